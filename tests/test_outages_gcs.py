"""Cloud Storage that is slow, overloaded, away, silent, and back: real workers, a real server behind a proxy."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from far import IMPATIENT, IMPATIENT_S, Far, every, hooked, leave
from house import finish, job, until, verdict

KEYFRAME, VIDEO, RECEIPT = b"/keyframes/", b'"films/b/film.mp4"', b'"films/b/film.json"'  # in what is uploaded


def when_uploaded(far: Far, marker: bytes, do: Callable[[], None]) -> None:
    """Do something, once, when an object is on its way up; its bytes do not arrive."""
    left = [marker]

    def up(data: bytes) -> bytes | None:
        if left and left[0] in data:
            left.clear()
            do()
            return None
        return data

    far.gcs.up = up


def away_for(far: Far, seconds: float) -> None:
    """Take the bucket away, from within one of its connections, and bring it back by and by."""
    threading.Thread(target=far.gcs.cut).start()
    threading.Timer(seconds, far.gcs.mend).start()


def test_a_slow_and_overloaded_bucket_that_resets_connections_costs_no_attempt(far: Far) -> None:
    # Given a bucket that turns away every third request, and resets its connections every now and then
    far.house.enqueue(job("film", "one", "half a second two"), job("next", "three"))
    far.gcs.delay_s = 0.05
    busy = itertools.cycle([None, None, b"503 Service Unavailable", None, None, b"429 Too Many Requests"])

    def answer(_: str) -> bytes | None:
        status = next(busy)
        return status and b"HTTP/1.1 " + status + b"\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"

    far.gcs.answer = answer

    with every(1.5, far.gcs.reset):
        run = far.house.work()

    assert run.code == 0, run.err
    for name in ("film", "next"):
        assert [each.end for each in far.house.attempts(name)] == ["done"]
    verdict(far.house, "film", "next")


def test_a_bucket_that_goes_away_at_every_upload_is_waited_for(far: Far) -> None:
    far.house.enqueue(job("film", "one"))
    markers = [KEYFRAME, VIDEO, RECEIPT]

    def go_away() -> None:
        away_for(far, 1.0)
        if markers:
            threading.Timer(0.2, when_uploaded, (far, markers.pop(0), go_away)).start()

    when_uploaded(far, markers.pop(0), go_away)
    run = far.house.work()

    assert run.code == 0, run.err
    assert markers == []
    assert [each.end for each in far.house.attempts("film")] == ["done"]
    verdict(far.house, "film")


def test_a_server_that_is_started_again_and_then_silent_costs_no_attempt(far: Far) -> None:
    far.house.enqueue(job("film", "one", "half a second two", "half a second three"))
    process = far.house.start()
    until(far.stored_keyframes, "the first keyframe in the bucket", process)

    far.gcs_server.stop()
    until(lambda: "half a second two" in far.house.rendered(), "a keyframe that finds no bucket", process)
    far.gcs_server.start()
    until(lambda: far.stored_keyframes() > 1, "that keyframe in the bucket", process)
    far.gcs_server.freeze()
    until(lambda: "half a second three" in far.house.rendered(), "a keyframe that hears no answer", process)
    far.gcs_server.thaw()
    run = finish(process)

    assert run.code == 0, run.err
    assert [each.end for each in far.house.attempts("film")] == ["done"]
    verdict(far.house, "film")


@pytest.mark.parametrize("marker", [KEYFRAME, VIDEO, RECEIPT], ids=["keyframe", "video", "receipt"])
def test_a_bucket_that_stays_away_ends_the_run_and_the_next_worker_finishes(far: Far, marker: bytes) -> None:
    # Given a worker that asks again for two seconds only, and a bucket that goes away at an upload
    far.house.enqueue(job("film", "one"))
    when_uploaded(far, marker, lambda: threading.Thread(target=far.gcs.cut).start())

    run = far.house.work(*IMPATIENT)

    assert run.code == 3
    assert f"cannot be reached, tried for {IMPATIENT_S:g} s" in run.err.splitlines()[-1]
    assert not far.house.has_ended("film")

    # When it is back
    far.gcs.mend()
    far.finish_all("film")

    verdict(far.house, "film", again={"one": int(marker == KEYFRAME)})


def test_a_worker_that_is_told_to_leave_while_the_bucket_is_silent_gives_its_jobs_back_in_time(far: Far) -> None:
    far.house.enqueue(job("film", "one", "slow once"), job("next", "two"))
    process = far.house.start(drain_s="4", queue=far.house.places.queue_url.replace("lease_s=4", "lease_s=60"))
    until(far.stored_keyframes, "the first keyframe in the bucket", process)
    far.gcs_server.freeze()

    leave(process)
    far.gcs_server.thaw()

    # Then the jobs are back long before their leases would have ended
    far.finish_all("film", "next")
    verdict(far.house, "film", "next")


def test_a_worker_that_waits_for_a_silent_bucket_leaves_when_it_is_told_to(far: Far) -> None:
    """It has claimed nothing yet: it is the first look for a hold that is not answered."""
    asked = threading.Event()

    def up(data: bytes) -> bytes:
        if b"hold.json" in data:
            asked.set()
            return b""
        return data

    far.gcs.up = up
    process = far.house.start(drain_s="1")
    until(asked.is_set, "the first look", process)

    assert leave(process).code == 3


def test_a_keyframe_that_was_damaged_in_the_bucket_is_made_again_and_mended(far: Far, tmp_path: Path) -> None:
    # Given a keyframe whose stored bytes are not what was put
    far.house.enqueue(job("film", "one", "two"))
    process = far.house.start(*hooked(BEFORE_THE_FILM_ENDS))
    assert finish(process).code == -9
    file = min((tmp_path / "buckets").rglob("keyframes/**/*.png"))
    whole = file.read_bytes()
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    damaged = far.house.rendered()

    far.finish_all("film")

    assert len(far.house.rendered()) == len(damaged) + 1
    assert file.read_bytes() == whole
    verdict(far.house, "film", again=dict.fromkeys(damaged, 1))


BEFORE_THE_FILM_ENDS = """
import os, signal, nightreel_worker.commit
nightreel_worker.commit.check = lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL)
"""
