"""Attempts: who tried a job, and which of the tries count against it."""

from __future__ import annotations

import datetime as dt
import json
from pathlib import Path

import pytest

from nightreel_storage.attempts import Attempt, Attempts, End, failures
from nightreel_storage.base import Entry, Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import Conflict, StoreError
from nightreel_storage.folder import FolderStore

NOW = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
LATER = NOW + dt.timedelta(minutes=1)


@pytest.fixture
def store(store_url: str) -> Store:
    return open_store(store_url)


@pytest.fixture
def attempts(store: Store) -> Attempts:
    return Attempts(store)


def test_a_job_that_nobody_tried_has_no_history(attempts: Attempts) -> None:
    assert attempts.history("b", "film", 1) == ()


def test_an_attempt_is_on_record_from_its_beginning_and_open_until_its_end(attempts: Attempts) -> None:
    opened = attempts.open("b", "film", 1, "run7", NOW)
    assert attempts.history("b", "film", 1) == (opened.attempt,)
    assert (opened.attempt.run, opened.attempt.started_at) == ("run7", NOW)
    assert (opened.attempt.end, opened.attempt.ended_at) == ("", None)

    attempts.close(opened, "failed", "ffmpeg ended early", LATER)

    closed = opened.attempt.model_copy(update={"end": "failed", "reason": "ffmpeg ended early", "ended_at": LATER})
    assert attempts.history("b", "film", 1) == (closed,)


def test_attempts_are_told_oldest_first_also_after_the_ninth(attempts: Attempts) -> None:
    opened = [attempts.open("b", "film", 1, f"run{number}", NOW).attempt for number in range(12)]

    assert list(attempts.history("b", "film", 1)) == opened
    assert len({attempt.id for attempt in opened}) == 12


def test_each_round_and_each_job_has_attempts_of_its_own(attempts: Attempts) -> None:
    ids = {
        attempts.open(batch, job, round_, "run1", NOW).attempt.id
        for batch, job, round_ in [("b", "film", 1), ("b", "film", 2), ("b", "film2", 1), ("b2", "film", 1)]
    }

    assert len(ids) == 4
    assert len(attempts.history("b", "film", 1)) == len(attempts.history("b", "film", 2)) == 1


class Overtaken(FolderStore):
    """A store in which somebody else opens an attempt between our look and our put."""

    overtaken = False

    def put(self, name: str, source: bytes | Path, **options: object) -> Entry:
        if not self.overtaken:
            self.overtaken = True
            Attempts(FolderStore(self._root)).open("b", "film", 1, "faster", NOW)
        return super().put(name, source, **options)  # type: ignore[arg-type]  # passed on as they came


@pytest.mark.parametrize("store_url", ["folder"], indirect=True)
def test_two_workers_that_begin_at_once_never_write_one_record(attempts: Attempts, tmp_path: Path) -> None:
    slower = Attempts(Overtaken(tmp_path / "out")).open("b", "film", 1, "slower", NOW)

    history = attempts.history("b", "film", 1)
    assert [attempt.run for attempt in history] == ["faster", "slower"]
    assert history[1] == slower.attempt
    assert history[0].id != history[1].id

    # And each closes its own
    attempts.close(slower, "done", "", LATER)
    assert [attempt.end for attempt in attempts.history("b", "film", 1)] == ["", "done"]


def test_an_attempt_is_closed_once(attempts: Attempts) -> None:
    opened = attempts.open("b", "film", 1, "run1", NOW)
    attempts.close(opened, "failed", "first", LATER)

    with pytest.raises(Conflict):
        attempts.close(opened, "done", "second", LATER)
    assert attempts.history("b", "film", 1)[0].reason == "first"


def test_fields_of_a_newer_version_are_skipped_on_reading(attempts: Attempts, store: Store) -> None:
    opened = attempts.open("b", "film", 1, "run1", NOW)
    newer = opened.attempt.model_dump(mode="json") | {"gpu_s": 3.5}
    store.put(opened.name, json.dumps(newer).encode(), generation=opened.generation)

    assert attempts.history("b", "film", 1) == (opened.attempt,)


def test_a_record_that_cannot_be_read_is_told_by_its_name(attempts: Attempts, store: Store) -> None:
    opened = attempts.open("b", "film", 1, "run1", NOW)
    store.put(opened.name, b"nonsense", generation=opened.generation)

    with pytest.raises(StoreError, match=rf"{opened.name} cannot be read.*move it away"):
        attempts.history("b", "film", 1)


@pytest.mark.parametrize(
    ("end", "left_a_keyframe", "counts"),
    [
        ("failed", False, True),
        ("failed", True, True),
        ("", False, True),  # its worker was killed, perhaps by this very job
        ("", True, False),  # its worker was killed, but the job gets on
        ("preempted", False, False),
        ("preempted", True, False),
        ("cancelled", False, False),
        ("lost", False, False),
        ("done", False, False),
    ],
)
def test_failures_count_and_so_do_killed_attempts_that_left_no_keyframe(
    end: End, left_a_keyframe: bool, counts: bool
) -> None:
    attempt = Attempt(id="run1.b.film.1.1", run="run1", started_at=NOW, end=end)
    makers = {"run1.b.film.1.1"} if left_a_keyframe else {"run0.b.film.1.1"}

    assert failures([attempt], makers) == ([attempt] if counts else [])


def test_the_counting_attempts_are_told_in_their_order() -> None:
    ends: list[End] = ["failed", "preempted", "", "failed", "lost"]
    history = [Attempt(id=str(number), run="r", started_at=NOW, end=end) for number, end in enumerate(ends)]

    assert [attempt.id for attempt in failures(history, ())] == ["0", "2", "3"]
