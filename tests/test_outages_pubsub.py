"""Pub/Sub that is slow, away, silent, and back: real workers whose connection to the real emulator is harmed."""

from __future__ import annotations

import pytest
from far import IMPATIENT, SWALLOWED_S, Far, every, leave
from house import finish, job, until, verdict


def test_a_slow_line_that_breaks_now_and_then_loses_and_doubles_nothing(far: Far) -> None:
    far.house.enqueue(*(job(f"film{number}", f"half a second {number}") for number in range(2)))
    far.pubsub.delay_s = 0.3

    with every(5.0, far.pubsub.reset):
        run = far.house.work(idle_timeout_s=str(SWALLOWED_S + 2))  # until also a lost pull's message has come back

    assert run.code == 0, run.err
    verdict(far.house, "film0", "film1")


@pytest.mark.parametrize("outage", ["refused", "silent"])
def test_a_lease_that_runs_out_while_pubsub_is_away_is_given_up_and_the_job_done_once(far: Far, outage: str) -> None:
    """Nobody tells the worker: it goes by its own clock, and takes the job anew when Pub/Sub is back."""
    far.house.enqueue(job("film", "first", "slow once"))
    process = far.house.start(**far.house.places.patient)
    until(far.stored_keyframes, "the first keyframe in the bucket", process)

    far.begin(outage)
    until(lambda: [each.end for each in far.house.attempts("film")] == ["lost"], "the lease given up", process)
    far.end(outage)
    run = finish(process)

    assert run.code == 0, run.err
    far.finish_all("film")  # it may have left while a lost pull's message was still to come back
    assert [each.end for each in far.house.attempts("film")] == ["lost", "done"]
    verdict(far.house, "film")


def test_a_job_whose_worker_cannot_reach_pubsub_goes_to_another_one(far: Far) -> None:
    # Given a worker that is cut off in the middle of a job, and tries for two seconds only
    far.house.enqueue(job("film", "first", "slow once"), job("next", "x"))
    cut_off = far.house.start(*IMPATIENT)
    until(far.stored_keyframes, "the first keyframe in the bucket", cut_off)
    far.pubsub.cut()

    # When it has left, with an error that says why, another one finds everything
    run = finish(cut_off)
    far.pubsub.mend()
    far.finish_all("film", "next")

    assert run.code == 3
    assert "is the emulator running" in run.err.splitlines()[-1]
    verdict(far.house, "film", "next")


@pytest.mark.parametrize("outage", ["refused", "silent"])
def test_a_worker_that_is_told_to_leave_while_pubsub_is_away_leaves_in_time(far: Far, outage: str) -> None:
    far.house.enqueue(job("film", "first", "slow once"))  # nobody in line: the worker tries to pull more
    process = far.house.start(drain_s="3")
    until(far.stored_keyframes, "the first keyframe in the bucket", process)
    far.begin(outage)

    run = leave(process)
    far.end(outage)

    assert run.code in (0, 3), run.err
    assert [each.end for each in far.house.attempts("film")] == ["preempted"], run.err
    far.finish_all("film")
    verdict(far.house, "film")
