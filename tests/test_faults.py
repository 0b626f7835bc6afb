"""What becomes of work when processes die, hang, or are told to leave. Real workers, real children, real ffmpeg."""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Callable

import pytest
from house import House, finish, job, kill, until

from nightreel_storage.receipts import Receipts


def test_a_killed_renderer_is_replaced_and_its_job_tried_again(house: House) -> None:
    house.enqueue(job("victim", "kill the child once"))

    run = house.work()

    assert run.code == 0
    assert house.receipt("victim").state == "done"
    assert [attempt.end for attempt in house.attempts("victim")] == ["failed", "done"]
    assert "SIGKILL" in house.attempts("victim")[0].reason
    assert run.report["renderer_restarts"] == 1


def test_a_job_that_kills_its_renderer_is_given_up_and_its_neighbours_are_not(house: House) -> None:
    # Given a poisonous job in the middle of good ones
    house.enqueue(job("good1", "half a second"), job("poison", "kill the child"), job("good2", "x"), job("good3", "y"))

    run = house.work()

    # Then it fails after three attempts, with the reason, and the others are made at their first
    assert run.code == 0
    assert house.receipt("poison").state == "failed"
    assert "3 attempts" in house.receipt("poison").reason
    assert "SIGKILL" in house.receipt("poison").reason
    assert [letter.reason for letter in house.queue.dead()] == [house.receipt("poison").reason]
    for good in ("good1", "good2", "good3"):
        assert house.receipt(good).state == "done"
        assert [attempt.end for attempt in house.attempts(good)] == ["done"]


def test_a_killed_ffmpeg_costs_one_attempt_and_no_keyframe(house: House) -> None:
    # Given a job whose film waits for its slow second keyframe, so that its ffmpeg can be found
    house.enqueue(job("film", "first", "slow once"))
    process = house.start()
    until(lambda: house.processes("libx264"), "ffmpeg at work", process)

    os.kill(house.processes("libx264")[0], signal.SIGKILL)
    run = finish(process)

    assert run.code == 0
    assert house.receipt("film").state == "done"
    assert [attempt.end for attempt in house.attempts("film")] == ["failed", "done"]
    assert "ffmpeg" in house.attempts("film")[0].reason
    assert Counter(house.rendered())["first"] == 1


def test_after_a_killed_worker_nothing_is_lost_and_no_finished_keyframe_is_made_again(house: House) -> None:
    # Given a worker that is killed while it makes the second of two keyframes
    house.enqueue(job("long", "first", "slow once"), job("next", "x"))
    process = house.start()
    until(lambda: list(house.store.list(".nightreel/keyframes/")), "the first keyframe in the store", process)
    kill(process)

    # Then its renderer and ffmpeg go with it
    until(lambda: not house.processes(), "no process left behind")

    # When a worker runs again
    run = house.work_all()

    assert run.code == 0
    assert house.receipt("long").state == house.receipt("next").state == "done"
    assert Counter(house.rendered())["first"] == 1
    assert house.leftovers() == []
    assert house.queue.backlog().total == 0


def test_a_renderer_that_hangs_goes_with_its_killed_worker(house: House) -> None:
    """It says nothing more, so no broken pipe tells it: it has to notice the end of its orders."""
    house.enqueue(job("film", "first", "hang"))
    process = house.start()
    until(lambda: house.processes("libx264"), "the encoder", process)

    kill(process)

    until(lambda: not house.processes(), "no process left behind")


def test_a_job_that_kills_its_worker_every_time_is_given_up_after_three(house: House) -> None:
    house.enqueue(job("poison", "kill the parent"), job("good", "x"))

    runs = [house.work_all() for _ in range(4)]

    assert [run.code for run in runs] == [-signal.SIGKILL] * 3 + [0]
    assert house.receipt("poison").state == "failed"
    assert "gave up after 3 attempts" in house.receipt("poison").reason
    assert [attempt.end for attempt in house.attempts("poison")] == ["", "", ""]
    assert house.receipt("good").state == "done"


def test_an_unclosed_attempt_that_left_a_keyframe_costs_nothing(house: House) -> None:
    """A worker that is killed again and again while it makes progress is preempted, not poisoned."""
    house.enqueue(job("steady", "start", *(f"half a second, then kill the parent once {n}" for n in range(4))))

    runs = [house.work_all() for _ in range(5)]

    assert [run.code for run in runs] == [-signal.SIGKILL] * 4 + [0]
    assert house.receipt("steady").state == "done"


def test_a_hung_renderer_is_replaced_and_only_the_hung_job_pays(house: House) -> None:
    house.enqueue(job("hung", "hang"), job("good", "x"))

    run = house.work(stall_s="1.5", max_attempts="2")

    assert run.code == 0
    assert house.receipt("hung").state == "failed"
    assert house.receipt("good").state == "done"
    assert [attempt.end for attempt in house.attempts("good")] == ["done"]
    assert house.processes() == []


def test_the_lease_of_a_hung_job_runs_out(house: House) -> None:
    # Given a worker that would not notice a hang for an hour, but whose stage counts as quiet after a second
    house.enqueue(job("hung", "hang once"))
    stuck = house.start(stall_s="1")
    until(lambda: house.attempts("hung"), "the attempt to begin", stuck)
    # When the whole worker stops, watchdog and all, another one gets the job after the lease, and ends it
    os.kill(stuck.pid, signal.SIGSTOP)
    run = house.work_all()

    assert run.code == 0
    assert house.receipt("hung").state == "done"

    # And when the first goes on, it neither commits nor acks nor overwrites
    receipt = house.receipt("hung")
    os.kill(stuck.pid, signal.SIGCONT)
    assert finish(stuck).code == 0
    assert house.receipt("hung") == receipt


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_worker_that_is_told_to_leave_gives_its_jobs_back_at_once(house: House, number: signal.Signals) -> None:
    # Given a worker in the middle of a job
    house.enqueue(job("long", "first", "slow once"), job("next", "x"))
    process = house.start()
    until(lambda: list(house.store.list(".nightreel/keyframes/")), "the first keyframe in the store", process)

    process.send_signal(number)
    run = finish(process)

    # Then it leaves without an error; the job is back in the queue, and the attempt does not count
    assert run.code == 0
    assert house.processes() == []
    assert house.queue.backlog().ready == 2
    assert [attempt.end for attempt in house.attempts("long")] == ["preempted"]
    assert house.leftovers() == []

    # And the next worker goes on from the finished keyframe
    assert house.work(max_attempts="1").code == 0
    assert house.receipt("long").state == "done"
    assert Counter(house.rendered())["first"] == 1


def test_a_video_that_was_put_before_its_receipt_is_adopted(house: House) -> None:
    # Given a worker that is killed between the video and the receipt
    house.enqueue(job("film", "x"))
    died = house.work(*killed_at("nightreel_storage.receipts:Receipts.commit"))
    assert died.code == -signal.SIGKILL
    assert house.store.head("b/film.mp4") is not None
    assert not house.has_ended("film")

    run = house.work_all()

    # Then the next one commits that very video, without a renderer
    assert run.code == 0
    receipt = house.receipt("film")
    entry = house.store.head("b/film.mp4")
    assert entry is not None
    assert receipt.outputs[0].adopted
    assert receipt.outputs[0].sha256 == entry.sha256
    assert house.rendered() == ["x"]
    assert run.events("renderer_started") == []


def test_a_job_that_was_committed_but_not_acked_is_only_acked(house: House) -> None:
    house.enqueue(job("film", "x"))
    died = house.work(*killed_at("nightreel_queue.sqlite:SqliteDelivery.ack"))
    assert died.code == -signal.SIGKILL
    receipt = house.receipt("film")

    run = house.work_all()

    assert run.code == 0
    assert run.report["earlier"] == 1
    assert house.receipt("film") == receipt
    assert len(house.attempts("film")) == 1
    assert house.queue.backlog().total == 0


def test_two_workers_on_one_queue_share_the_work_and_commit_each_job_once(house: House) -> None:
    jobs = [job(f"job{number:02}", f"half a second {number}") for number in range(12)]
    house.enqueue(*jobs)

    workers = [house.start(idle_timeout_s="3") for _ in range(2)]
    runs = [finish(worker) for worker in workers]

    assert [run.code for run in runs] == [0, 0]
    assert sum(run.report["done"] for run in runs) == 12
    assert all(run.report["done"] > 0 for run in runs)
    assert [receipt.state for receipt in Receipts(house.store).list("b")] == ["done"] * 12
    assert Counter(house.rendered()).most_common(1)[0][1] == 1
    assert house.queue.backlog().total == 0


def test_a_cancelled_job_stops_while_it_is_being_rendered_and_the_next_one_runs(house: House) -> None:
    house.enqueue(job("unwanted", "first", "slow slow"), job("next", "x"))
    process = house.start()
    until(lambda: house.rendered() == ["first"], "the first keyframe", process)

    cancelled = house.work(sys.executable, "-m", "nightreel", "cancel", "b", "unwanted")
    run = finish(process)

    assert cancelled.code == 0
    assert run.code == 0
    assert house.receipt("unwanted").state == "cancelled"
    assert house.receipt("next").state == "done"
    assert [attempt.end for attempt in house.attempts("unwanted")] == ["cancelled"]
    assert house.store.head("b/unwanted.mp4") is None


def test_a_renderer_that_dies_while_it_loads_ends_the_run_and_blames_no_job(make_house: Callable[..., House]) -> None:
    house = make_house(load="die")
    house.enqueue(job("film", "x"))

    run = house.work()

    assert run.code == 3
    assert "out of luck while loading" in run.err
    assert [attempt.end for attempt in house.attempts("film")] == ["preempted"]
    assert house.queue.backlog().ready == 1


def test_a_model_that_cannot_be_had_ends_the_run_with_the_mend(make_house: Callable[..., House]) -> None:
    house = make_house(load="unavailable")
    house.enqueue(job("film", "x"))

    run = house.work()

    assert run.code == 3
    assert "put them there" in run.err.splitlines()[-1]
    assert house.attempts("film") == ()
    assert house.queue.backlog().ready == 1


def killed_at(place: str) -> tuple[str, ...]:
    """A worker that is killed when it is about to call `module:Class.method`."""
    module, _, method = place.partition(":")
    program = f"""
import os, signal, sys, {module}
{module}.{method} = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
sys.argv = ["nightreel", "work"]
from nightreel.main import main
main()
"""
    return sys.executable, "-c", program
