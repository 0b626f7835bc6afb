"""How long a worker may idle: as long as a start costs, less what jobs may wait."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest
from house import House, job
from hypothesis import given
from hypothesis import strategies as st

from nightreel_queue.base import Message
from nightreel_queue.sqlite import SqliteDelivery, SqliteQueue
from nightreel_worker.claims import EMPTY_PULLS, Claims, Situation
from nightreel_worker.history import History
from nightreel_worker.idle import Idling, allowance_s

seconds = st.floats(0, 1e6)


def test_jobs_that_must_not_wait_are_worth_as_much_idling_as_a_start_costs() -> None:
    assert allowance_s(start_s=75.0, max_wait_s=0.0) == 75.0


@pytest.mark.parametrize("max_wait_s", [75.0, 76.0, 900.0, float("inf")])
def test_jobs_that_may_wait_as_long_as_a_start_takes_are_worth_none(max_wait_s: float) -> None:
    assert allowance_s(75.0, max_wait_s) == 0.0


@given(seconds, seconds)
def test_what_a_job_may_wait_is_taken_off(start_s: float, max_wait_s: float) -> None:
    allowed_s = allowance_s(start_s, max_wait_s)

    assert 0 <= allowed_s <= start_s
    assert allowed_s == start_s - max_wait_s or (allowed_s == 0 and max_wait_s >= start_s)


@given(seconds, seconds, seconds, seconds)
def test_all_idling_since_the_start_counts_and_not_only_the_last_gap(
    start_s: float, max_wait_s: float, idled_s: float, gap_s: float
) -> None:
    by_rule = Idling(None, max_wait_s, start_s=lambda: start_s, idled_s=lambda: idled_s)

    assert by_rule.enough(gap_s) == (idled_s >= allowance_s(start_s, max_wait_s))


@given(seconds, seconds, seconds)
def test_a_fixed_timeout_begins_anew_with_each_gap_and_waits_for_every_retry(
    timeout_s: float, idled_s: float, gap_s: float
) -> None:
    fixed = Idling(timeout_s, 0.0, start_s=lambda: 1e9, idled_s=lambda: idled_s)

    assert fixed.enough(gap_s) == (gap_s >= timeout_s)
    assert fixed.waits_for(gap_s)


@pytest.mark.parametrize("max_wait_s", [0.0, 900.0])
def test_a_retry_is_worth_waiting_for_as_long_as_a_start_takes_whatever_jobs_may_wait(max_wait_s: float) -> None:
    idling = Idling(None, max_wait_s, start_s=lambda: 75.0, idled_s=lambda: 30.0)

    assert idling.waits_for(45.0)
    assert not idling.waits_for(45.1)


# A queue that says that it is empty


class Forgetful(SqliteQueue):
    """Says a few times that it has nothing, and cannot count: as Pub/Sub does."""

    false_empties = 0
    takes_s = 0.0
    """A false empty."""
    window_s = 0.3
    pulls = 0

    @property
    def empty_after_s(self) -> float:
        return self.window_s

    def pull(self, wait_s: float = 0.0) -> SqliteDelivery | None:
        self.pulls += 1
        if self.pulls > self.false_empties:
            return super().pull(min(wait_s, 0.05))
        time.sleep(self.takes_s)
        return None


def claimed(queue: SqliteQueue, idling: Idling, hold: str = "") -> tuple[int, str]:
    """How many deliveries a run claims that settles each at once, and why it leaves."""
    now = Situation(lambda: True, lambda: False, lambda: False, lambda: hold)
    claims = Claims(queue, now, lambda event: None, idling=idling, wait_for_others=False)
    count = 0
    for delivery in claims:
        delivery.ack()
        count += 1
    return count, claims.why


AT_ONCE = Idling(0.0, 900.0, start_s=lambda: 0.0, idled_s=lambda: 0.0)


def test_few_empty_pulls_are_not_believed_where_they_prove_nothing(tmp_path: Path) -> None:
    # Given a queue whose two false empties take longer than emptiness must last
    queue = Forgetful(tmp_path / "queue.db")
    queue.false_empties, queue.takes_s, queue.window_s = EMPTY_PULLS - 1, 0.1, 0.05
    queue.publish([Message(b"{}")])

    # Even a worker that is to leave at once asks again
    assert claimed(queue, AT_ONCE) == (1, "the queue is empty")
    assert queue.pulls >= 2 * EMPTY_PULLS
    queue.close()


def test_emptiness_must_last_however_many_pulls_say_it(tmp_path: Path) -> None:
    queue = Forgetful(tmp_path / "queue.db")
    queue.false_empties = 1_000_000  # that come back at once

    claimed(queue, AT_ONCE)

    assert queue.pulls > 10 * EMPTY_PULLS
    queue.close()


def test_a_hold_is_believed_at_once(tmp_path: Path) -> None:
    queue = Forgetful(tmp_path / "queue.db")

    assert claimed(queue, AT_ONCE, hold="a moment") == (0, "on hold: a moment")
    assert queue.pulls == 0
    queue.close()


# Real workers


def test_a_worker_whose_jobs_must_not_wait_idles_as_long_as_its_own_start_took(house: House) -> None:
    house.enqueue(job("film", "x"))

    report = house.work(max_wait_s="0").report

    spent = report["stages_s"]
    assert spent["idle"] >= spent["start"] + spent["import"] + spent["load"] - 0.01
    assert report["why"] == "the queue is empty"


def test_by_default_jobs_may_wait_for_longer_than_a_start_and_a_worker_leaves_at_once(house: House) -> None:
    house.enqueue(job("film", "x"))

    spent = house.work().report["stages_s"]

    assert spent["idle"] < spent["start"] + spent["import"] + spent["load"]


def test_a_retry_that_is_further_away_than_a_start_is_left_to_another_run(house: House) -> None:
    house.enqueue(job("film", "raise once"))

    run = house.work(retry_delay_s="300")

    assert run.code == 0
    assert run.report["why"].startswith("the queue is empty; 1 to be tried again, the next in ")
    assert house.queue.backlog().delayed == 1
    assert not house.has_ended("film")


def test_with_a_fixed_timeout_a_worker_waits_for_its_retries(house: House) -> None:
    house.enqueue(job("film", "raise once"))

    assert house.work(retry_delay_s="3", idle_timeout_s="0").report["done"] == 1
    assert house.receipt("film").state == "done"


def test_render_leaves_at_once_whatever_workers_are_told(house: House) -> None:
    manifest = house.folder / "two.json"
    shot = {"prompt": "x", "duration": 0.5, "motion": "still"}
    manifest.write_text(json.dumps({"jobs": [{"output": {"width": 64, "height": 64, "fps": 8}, "shots": [shot]}]}))

    run = house.work(sys.executable, "-m", "nightreel", "render", str(manifest), idle_timeout_s="20", max_wait_s="0")

    assert run.code == 0, run.err
    [report] = History.read(house.store).runs
    assert report.stages_s["idle"] < 20
