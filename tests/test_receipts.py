"""Receipts: each round of each job ends in exactly one of them."""

from __future__ import annotations

import datetime as dt
import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from nightreel_storage.base import Entry
from nightreel_storage.errors import Conflict, NotFound, StoreError
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import AlreadyEnded, Held, Receipt, Receipts, State

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
PATIENCE_S = 60.0


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "out")


@pytest.fixture
def receipts(store: FolderStore) -> Receipts:
    return Receipts(store)


def receipt(state: State = "done", attempt: str = "run1.b.film.1.1", **fields: Any) -> Receipt:
    return Receipt(
        **{"state": state, "batch": "b", "job": "film", "fingerprint": "f00d", "attempt": attempt, "ended_at": NOW}
        | fields
    )


def kept(receipts: Receipts) -> Held:
    held = receipts.read("b", "film")
    assert held is not None
    return held


# Reading


def test_a_job_that_has_not_ended_has_no_receipt(receipts: Receipts) -> None:
    assert receipts.read("b", "film") is None


def test_a_receipt_is_readable_json_beside_the_video(receipts: Receipts, store: FolderStore, tmp_path: Path) -> None:
    written = receipt("failed", reason="no", labels={"who": "me"}, request="{}", published_at=NOW)
    receipts.commit(written, None)

    # Then a person finds it under the job's name, over several lines
    text = (tmp_path / "out/b/film.json").read_text()
    assert json.loads(text)["state"] == "failed"
    assert len(text.splitlines()) > 10

    # And a program reads what was written, and need not read it to know its state
    assert kept(receipts).receipt == written
    entry = store.head("b/film.json")
    assert entry is not None
    assert entry.content_type == "application/json"
    assert entry.metadata == {"state": "failed", "round": "1", "fingerprint": "f00d"}


def test_fields_of_a_newer_version_are_skipped_on_reading(receipts: Receipts, store: FolderStore) -> None:
    newer = receipt().model_dump(mode="json") | {"cost_usd": 0.02, "outputs": [output("b/film.mp4") | {"crc32c": "x"}]}
    store.put("b/film.json", json.dumps(newer).encode())

    read = kept(receipts).receipt

    assert read.state == "done"
    assert read.outputs[0].name == "b/film.mp4"


def output(name: str) -> dict[str, Any]:
    return {"name": name, "sha256": "ab", "size_bytes": 1, "content_type": "video/mp4"}


@pytest.mark.parametrize(
    ("content", "complaint"),
    [(b"\x00\xff", "Invalid JSON"), (b'{"state": "won"}', "state"), (b'{"format": 2}', "format"), (b"", "JSON")],
)
def test_a_receipt_that_cannot_be_read_is_told_by_its_name(
    receipts: Receipts, store: FolderStore, content: bytes, complaint: str
) -> None:
    store.put("b/film.json", content)

    with pytest.raises(StoreError, match=rf"b/film\.json cannot be read.*{complaint}.*move it away") as caught:
        receipts.read("b", "film")
    assert not isinstance(caught.value, NotFound | Conflict)
    with pytest.raises(StoreError, match=r"b/film\.json"):
        list(receipts.list("b"))


def test_the_receipts_of_a_batch_are_listed_by_job_and_without_those_of_its_neighbours(receipts: Receipts) -> None:
    for batch, name in [("b", "z"), ("b", "a"), ("b2", "x"), ("a", "b")]:
        receipts.commit(receipt(batch=batch, job=name), None)

    assert [(each.batch, each.job) for each in receipts.list("b")] == [("b", "a"), ("b", "z")]


def test_videos_and_posters_of_a_batch_are_not_listed(receipts: Receipts, store: FolderStore) -> None:
    store.put("b/film.mp4", b"video")
    store.put("b/film.jpg", b"poster")

    assert list(receipts.list("b")) == []


@pytest.mark.parametrize(("state", "ended"), [("queued", False), ("done", True), ("failed", True), ("cancelled", True)])
def test_every_state_but_queued_is_an_end(state: State, ended: bool) -> None:
    assert receipt(state).ended is ended


# Committing


def test_a_first_round_is_committed_create_only(receipts: Receipts) -> None:
    first = receipt(attempt="one")
    assert receipts.commit(first, None) == first

    # When somebody else commits the same round, then he gets the receipt that there is
    with pytest.raises(AlreadyEnded, match="b/film round 1 is done already") as caught:
        receipts.commit(receipt("failed", attempt="two"), None)
    assert caught.value.receipt == first
    assert kept(receipts).receipt == first


def test_a_conflict_with_ones_own_receipt_is_a_success(receipts: Receipts) -> None:
    """The put succeeded, but its answer was lost."""
    mine = receipt(attempt="one")
    receipts.commit(mine, None)

    assert receipts.commit(mine, None) == mine


def test_receipts_without_an_attempt_are_nobodys_own(receipts: Receipts) -> None:
    receipts.commit(receipt("failed", attempt=""), None)

    with pytest.raises(AlreadyEnded):
        receipts.commit(receipt("cancelled", attempt=""), None)


def test_a_later_round_ends_over_the_queued_receipt_that_asked_for_it(receipts: Receipts) -> None:
    receipts.commit(receipt("failed"), None)
    receipts.requeue("b", "film", NOW)
    queued = kept(receipts)

    second = receipt("done", attempt="two", round=2)
    assert receipts.commit(second, queued) == second

    # Then whoever read the same queued receipt is too late
    with pytest.raises(AlreadyEnded) as caught:
        receipts.commit(receipt("done", attempt="three", round=2), queued)
    assert caught.value.receipt == second


def test_an_older_round_cannot_end_a_job_whose_next_round_was_asked_for(receipts: Receipts) -> None:
    receipts.commit(receipt("failed"), None)
    queued = receipts.requeue("b", "film", NOW)

    with pytest.raises(AlreadyEnded) as caught:
        receipts.commit(receipt("done", attempt="slow"), None)
    assert caught.value.receipt == queued
    assert kept(receipts).receipt == queued


def test_a_receipt_that_was_deleted_by_hand_in_between_is_written_anew(receipts: Receipts, tmp_path: Path) -> None:
    receipts.commit(receipt("failed"), None)
    receipts.requeue("b", "film", NOW)
    queued = kept(receipts)
    (tmp_path / "out/b/film.json").unlink()

    receipts.commit(receipt(attempt="two", round=2), queued)

    assert kept(receipts).receipt.attempt == "two"


RACE = """
import sys
from pathlib import Path
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import AlreadyEnded, Receipt, Receipts, utc_now

receipts = Receipts(FolderStore(Path(sys.argv[1])))
jobs = [f"job{number}" for number in range(30)]
over = {job: receipts.read("b", job) for job in jobs}
print("ready", flush=True)
sys.stdin.readline()
for job in jobs:
    mine = Receipt(state="done", batch="b", job=job, fingerprint="f", attempt=sys.argv[2], round=2 if over[job] else 1,
                   ended_at=utc_now())
    try:
        print(job, receipts.commit(mine, over[job]).attempt)
    except AlreadyEnded as exc:
        print(job, exc.receipt.attempt)
"""


@pytest.mark.parametrize("round_", [1, 2])
def test_processes_that_race_for_a_round_end_in_one_receipt_and_all_know_whose(
    receipts: Receipts, tmp_path: Path, round_: int
) -> None:
    jobs = [f"job{number}" for number in range(30)]
    if round_ == 2:
        for name in jobs:
            receipts.commit(receipt("failed", job=name), None)
            receipts.requeue("b", name, NOW)

    told = race(RACE, [[str(tmp_path / "out"), name] for name in ("red", "blue")])

    # Then both name the same winner for each job, and that is whose receipt lies there
    assert told[0] == told[1]
    stored = {each.job: each.attempt for each in receipts.list("b")}
    assert [line.split() for line in told[0]] == [[name, stored[name]] for name in jobs]


def race(script: str, arguments: Sequence[Sequence[str]]) -> list[list[str]]:
    """Run a script in several processes, which all go on from their `ready` at once; gives the lines they print."""
    racers = [
        subprocess.Popen(
            [sys.executable, "-c", script, *each], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for each in arguments
    ]
    for racer in racers:
        assert racer.stdout is not None
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        assert racer.stdin is not None
        racer.stdin.write("go\n")
        racer.stdin.flush()
    told = [racer.communicate(timeout=PATIENCE_S)[0].splitlines() for racer in racers]
    assert [racer.returncode for racer in racers] == [0] * len(racers)
    return told


STUCK = """
import sys
from pathlib import Path
from nightreel_storage import folder
from nightreel_storage.receipts import AlreadyEnded, Receipt, Receipts, utc_now

write_new, replace = folder.write_new, folder.os.replace
def staging(*arguments):
    print("staging", flush=True)
    sys.stdin.readline()
    return write_new(*arguments)
def placing(source, target):
    if str(target).endswith("/b/film.json"):
        print("placing", flush=True)
        sys.stdin.readline()
    replace(source, target)
if sys.argv[2] == "staging":
    folder.write_new = staging
else:
    folder.os.replace = placing
receipts = Receipts(folder.FolderStore(Path(sys.argv[1])))
mine = Receipt(state="done", batch="b", job="film", fingerprint="f", attempt=sys.argv[2], ended_at=utc_now())
try:
    print(receipts.commit(mine, None).attempt)
except AlreadyEnded as exc:
    print(exc.receipt.attempt)
"""


def test_a_worker_killed_within_its_commit_does_not_hang_the_one_that_waits_for_it(
    receipts: Receipts, tmp_path: Path
) -> None:
    # Given a worker that has looked, and is about to commit
    def start(gap: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-c", STUCK, str(tmp_path / "out"), gap]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert process.stdout is not None
        assert process.stdout.readline() == f"{gap}\n"
        return process

    waits = start("staging")
    # And another one that commits meanwhile, and is killed before its file has moved to its place
    dies = start("placing")
    dies.kill()
    dies.communicate()

    try:
        out, _ = waits.communicate("go\ngo\n", timeout=PATIENCE_S)
    finally:
        waits.kill()

    # Then the dead one's receipt counts
    assert out.splitlines()[-1] == "placing"
    assert kept(receipts).receipt.attempt == "placing"


# Cancelling


def test_a_job_is_cancelled_once_before_it_ends(receipts: Receipts) -> None:
    cancelled = receipts.cancel(receipt("cancelled", attempt="", reason="by hand"))
    assert kept(receipts).receipt == cancelled

    # Then neither the worker that renders it nor another hand can end it again
    with pytest.raises(AlreadyEnded) as worker:
        receipts.commit(receipt("done", attempt="late"), None)
    with pytest.raises(AlreadyEnded) as hand:
        receipts.cancel(receipt("cancelled", attempt=""))
    assert worker.value.receipt == hand.value.receipt == cancelled


@pytest.mark.parametrize("state", ["done", "failed"])
def test_a_job_that_has_ended_cannot_be_cancelled(receipts: Receipts, state: State) -> None:
    ended = receipts.commit(receipt(state), None)

    with pytest.raises(AlreadyEnded) as caught:
        receipts.cancel(receipt("cancelled", attempt=""))
    assert caught.value.receipt == ended
    assert kept(receipts).receipt == ended


def test_cancelling_a_job_that_waits_for_its_second_round_ends_that_round(receipts: Receipts) -> None:
    receipts.commit(receipt("failed"), None)
    receipts.requeue("b", "film", NOW)

    assert receipts.cancel(receipt("cancelled", attempt="")).round == 2
    assert (kept(receipts).receipt.state, kept(receipts).receipt.round) == ("cancelled", 2)


# Asking again


@pytest.mark.parametrize("state", ["failed", "cancelled"])
def test_another_round_can_be_asked_of_a_job_that_failed_or_was_cancelled(receipts: Receipts, state: State) -> None:
    first = receipt(state, reason="no", labels={"who": "me"}, request='{"version":1}', outputs=())
    receipts.commit(first, None)
    later = NOW + dt.timedelta(hours=1)

    queued = receipts.requeue("b", "film", later)

    # Then it says which round, and keeps what the round needs, not how the last one ended
    assert kept(receipts).receipt == queued
    assert queued == Receipt(
        state="queued",
        batch="b",
        job="film",
        round=2,
        fingerprint="f00d",
        labels={"who": "me"},
        request='{"version":1}',
        ended_at=later,
    )


def test_asking_twice_asks_for_one_round(receipts: Receipts) -> None:
    receipts.commit(receipt("failed"), None)
    queued = receipts.requeue("b", "film", NOW)
    generation = kept(receipts).generation

    assert receipts.requeue("b", "film", NOW + dt.timedelta(hours=1)) == queued
    assert kept(receipts).generation == generation


def test_a_done_job_is_not_done_again(receipts: Receipts) -> None:
    done = receipts.commit(receipt("done"), None)

    with pytest.raises(AlreadyEnded) as caught:
        receipts.requeue("b", "film", NOW)
    assert caught.value.receipt == done
    assert kept(receipts).receipt == done


def test_a_job_that_never_ended_cannot_be_asked_for_again(receipts: Receipts) -> None:
    with pytest.raises(NotFound, match="b/film has not ended: it waits, or is being rendered"):
        receipts.requeue("b", "film", NOW)
    assert receipts.read("b", "film") is None


class Overtaken(FolderStore):
    """A store in which somebody else asks for the same round between our look and our put."""

    def get(self, name: str) -> tuple[bytes, Entry]:
        found = super().get(name)
        if b'"failed"' in found[0]:
            Receipts(FolderStore(self._root)).requeue("b", "film", NOW)
        return found


def test_two_hands_that_ask_at_once_ask_for_one_round(receipts: Receipts, tmp_path: Path) -> None:
    receipts.commit(receipt("failed"), None)

    queued = Receipts(Overtaken(tmp_path / "out")).requeue("b", "film", NOW + dt.timedelta(hours=1))

    assert (queued.state, queued.round, queued.ended_at) == ("queued", 2, NOW)
    assert kept(receipts).receipt == queued
