"""Leases are kept while, and only while, their work makes progress. A real queue with short leases."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from house import until

from nightreel_queue.base import Delivery, Message
from nightreel_queue.errors import LeaseLost
from nightreel_queue.sqlite import SqliteQueue
from nightreel_worker.leases import Lease, LeaseKeeper

FOREVER = 1e9
LEASE_S = 0.8


@pytest.fixture
def queue(tmp_path: Path) -> Iterator[SqliteQueue]:
    queue = SqliteQueue(tmp_path / "queue.db", lease_s=LEASE_S)
    queue.publish([Message(b"x")])
    yield queue
    queue.close()


@pytest.fixture
def delivery(queue: SqliteQueue) -> Delivery:
    delivery = queue.pull()
    assert delivery is not None
    return delivery


def test_a_lease_is_renewed_while_its_stage_makes_progress(queue: SqliteQueue, delivery: Delivery) -> None:
    with LeaseKeeper(stall_s=FOREVER, renderer_quiet_s=lambda: FOREVER) as keeper:
        lease = keeper.hold(delivery, on_lost=lambda: None)
        lease.waiting = False

        assert queue.pull(wait_s=3 * LEASE_S) is None
        lease.check()


def test_a_lease_whose_stage_is_quiet_runs_out_and_goes_to_another_worker(
    queue: SqliteQueue, delivery: Delivery
) -> None:
    lost: list[str] = []
    with LeaseKeeper(stall_s=0.1, renderer_quiet_s=lambda: 0.0) as keeper:
        lease = keeper.hold(delivery, on_lost=lambda: lost.append("lost"))
        lease.waiting = False

        assert queue.pull(wait_s=20 * LEASE_S) is not None

        def wake_up() -> list[str]:
            lease.progress()
            return lost

        until(wake_up, "the keeper to notice, once the stage gets on again")
        with pytest.raises(LeaseLost):
            lease.check()


def test_a_job_in_line_is_kept_while_the_renderer_is_heard(queue: SqliteQueue, delivery: Delivery) -> None:
    with LeaseKeeper(stall_s=0.1, renderer_quiet_s=lambda: 0.0) as keeper:
        keeper.hold(delivery, on_lost=lambda: None)

        assert queue.pull(wait_s=3 * LEASE_S) is None


def test_a_claim_counts_as_progress_also_after_a_long_silence(queue: SqliteQueue, delivery: Delivery) -> None:
    """A worker that has idled for longer than a stall must not lose the next job that comes."""
    with LeaseKeeper(stall_s=4 * LEASE_S, renderer_quiet_s=lambda: FOREVER) as keeper:
        keeper.hold(delivery, on_lost=lambda: None)

        assert queue.pull(wait_s=2 * LEASE_S) is None


def test_a_job_in_line_is_given_up_when_nothing_in_the_run_gets_on(queue: SqliteQueue, delivery: Delivery) -> None:
    with LeaseKeeper(stall_s=0.1, renderer_quiet_s=lambda: FOREVER) as keeper:
        keeper.hold(delivery, on_lost=lambda: None)

        assert queue.pull(wait_s=20 * LEASE_S) is not None


def test_before_a_commit_a_lease_that_somebody_else_has_is_noticed_without_the_keeper(
    queue: SqliteQueue, delivery: Delivery
) -> None:
    lease = Lease(delivery, on_lost=lambda: None)
    assert queue.pull(wait_s=20 * LEASE_S) is not None

    with pytest.raises(LeaseLost):
        lease.check()


def test_a_lease_that_ran_out_but_that_nobody_took_is_taken_back_before_a_commit(
    queue: SqliteQueue, delivery: Delivery
) -> None:
    lease = Lease(delivery, on_lost=lambda: None)
    until(lambda: queue.backlog().ready == 1, "the lease to run out")

    lease.check()

    assert queue.pull() is None
