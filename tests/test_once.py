"""Each job is made once and nothing is overwritten, whatever was published twice, lost, or lay there already."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from house import House, job, verdict

from nightreel_pipelines.encode import ffmpeg
from nightreel_queue.base import Message
from nightreel_storage.attempts import Attempts

NIGHTREEL = (sys.executable, "-m", "nightreel")
MANIFEST = """\
defaults: {render: {model: faulty}, output: {width: 64, height: 64, fps: 8}, transition: {type: cut}}
jobs:
  - {id: first, shots: [{prompt: x, duration: 0.5}]}
  - {id: second, shots: [{prompt: y, duration: 0.5}]}
"""


def film_left_behind(house: House, *names: str) -> bytes:
    """Put videos as a worker does that is killed before their receipts; returns what each holds."""
    house.enqueue(job("model", "x"))
    assert house.work_calmly().code == 0
    film, _ = house.store.get("b/model.mp4")
    for name in names:
        fingerprint = job(name, "x").fingerprint
        house.store.put(f"b/{name}.mp4", film, content_type="video/mp4", metadata={"fingerprint": fingerprint})
    return film


def test_a_film_that_another_worker_left_behind_is_adopted_and_one_that_is_cut_short_is_left_alone(
    any_house: House,
) -> None:
    # Given a whole film without a receipt, and half of one
    house = any_house
    film = film_left_behind(house, "whole")
    half = film[: len(film) // 2]
    fingerprint = {"fingerprint": job("half", "x").fingerprint}
    before = house.store.put("b/half.mp4", half, content_type="video/mp4", metadata=fingerprint)
    house.enqueue(job("whole", "x"), job("half", "x"))

    run = house.work_calmly()

    # Then the whole one is the job's, without a renderer
    assert run.code == 0
    assert run.events("renderer_started") == []
    assert house.receipt("whole").outputs[0].adopted
    # And the other job fails, with the mend, and its name still holds what it held
    assert house.receipt("half").reason.startswith("b/half.mp4 is there, but is not this job's video (")
    assert house.receipt("half").reason.endswith("): move it away, retry")
    assert house.store.get("b/half.mp4") == (half, before)
    verdict(house, "model", "whole", "half", failed=["half"], strange=["b/half.mp4"])


def test_a_video_of_somebody_else_is_never_overwritten(any_house: House) -> None:
    house = any_house
    before = house.store.put("b/film.mp4", b"holidays", content_type="video/mp4")
    house.enqueue(job("film", "x"))

    assert house.work_calmly().code == 0

    assert "choose another id or batch" in house.receipt("film").reason
    assert house.store.get("b/film.mp4") == (b"holidays", before)
    assert house.rendered() == []
    verdict(house, "film", failed=["film"], strange=["b/film.mp4"])


@pytest.mark.parametrize("left_behind", [True, False], ids=["adopted", "rendered"])
def test_an_ffmpeg_that_is_killed_while_it_checks_a_film_says_nothing_about_it(
    house: House, tmp_path: Path, left_behind: bool
) -> None:
    """The system kills what takes too much memory; the film is looked at once more."""
    if left_behind:
        film_left_behind(house, "film")
    killed = tmp_path / "ffmpeg"
    killed.write_text(
        '#!/bin/sh\ncase "$*" in *framehash*) if [ ! -e killed-once ]; then touch killed-once; kill -9 $$; fi ;; esac\n'
        f'exec "{ffmpeg()}" "$@"\n'
    )
    killed.chmod(0o755)
    house.environment["IMAGEIO_FFMPEG_EXE"] = str(killed)
    house.enqueue(job("film", "x"))

    run = house.work_calmly()

    assert run.code == 0
    assert (tmp_path / "killed-once").exists()
    assert house.receipt("film").outputs[0].adopted == left_behind
    verdict(house, "film", *(["model"] if left_behind else []))


def test_a_job_that_was_published_three_times_is_made_once(any_house: House) -> None:
    # Given a queue that does not know that these are the same
    house = any_house
    house.queue.publish([dataclasses.replace(Message.of(job("film", "half a second x")), key="") for _ in range(3)])

    run = house.work_calmly()

    assert run.code == 0
    assert (run.report["done"], run.report["earlier"]) == (1, 2)
    verdict(house, "film")


def test_a_manifest_that_is_enqueued_again_is_made_once(any_house: House) -> None:
    house = any_house
    (house.folder / "twice.yaml").write_text(MANIFEST)
    enqueue = (*NIGHTREEL, "enqueue", "twice.yaml")
    # When it is enqueued twice before a worker comes, and once more after it
    codes = [house.work(*enqueue).code for _ in range(2)]
    codes += [house.work_calmly().code, house.work(*enqueue).code]
    late = house.work_calmly()

    assert codes == [0] * 4
    assert late.code == 0
    assert (late.report["done"], late.report["earlier"]) == (0, 2)
    assert late.events("renderer_started") == []
    house.batch = next(iter(house.store.list("twice"))).name.partition("/")[0]
    verdict(house, "first", "second")


def test_an_ack_that_is_lost_after_the_commit_costs_a_look(any_house: House) -> None:
    # Given a queue that cannot be reached when the job is to be acked
    house = any_house
    house.enqueue(job("film", "x"))

    first = house.work(*house.struck("Delivery.ack", "lose_the_queue"), idle_timeout_s="1")

    # Then the job has ended all the same
    assert first.code == 0
    assert len(first.events("not_acked")) == 1
    receipt = house.receipt("film")
    house.message_back()

    # And its next delivery is acked without a renderer
    run = house.work_calmly()
    assert run.code == 0
    assert run.report["earlier"] == 1
    assert run.events("renderer_started") == []
    assert house.receipt("film") == receipt
    assert [attempt.end for attempt in Attempts(house.store).history("b", "film", 1)] == ["done"]
    verdict(house, "film")


def test_a_round_that_nobody_asked_for_is_rejected(house: House) -> None:
    house.enqueue(job("film", "x"))
    assert house.work().code == 0
    house.queue.publish([Message.of(job("film", "x"), round_=2)])

    run = house.work()

    assert run.code == 0
    assert run.report["rejected"] == 1
    verdict(house, "film", rejected=["round 2 was never asked for; the receipt is at 1"])
