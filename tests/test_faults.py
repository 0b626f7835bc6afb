"""What becomes of work when processes die, hang, or are told to leave. Real workers, real children, real ffmpeg."""

from __future__ import annotations

import contextlib
import os
import signal
import sqlite3
import sys
import time
from collections import Counter
from collections.abc import Callable

import pytest
from house import CALM_LEASE_S, House, finish, job, kill, until, verdict

from nightreel_queue.base import Message


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
    assert house.dead_letters() == [house.receipt("poison").reason]
    for good in ("good1", "good2", "good3"):
        assert house.receipt(good).state == "done"
        assert [attempt.end for attempt in house.attempts(good)] == ["done"]


def test_a_renderer_that_dies_before_it_tells_of_a_keyframe_makes_that_one_again(house: House) -> None:
    house.enqueue(job("film", "die untold once"))

    run = house.work()

    assert run.code == 0
    assert [attempt.end for attempt in house.attempts("film")] == ["failed", "done"]
    verdict(house, "film", again={"die untold once": 1})


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
    house.enqueue(job("steady", "start", *(f"half a second, then kill the parent once {n}" for n in range(2))))

    runs = [house.work_all(max_attempts="2") for _ in range(3)]

    assert [run.code for run in runs] == [-signal.SIGKILL] * 2 + [0]
    assert house.receipt("steady").state == "done"


def test_a_hung_renderer_is_replaced_and_only_the_hung_job_pays(house: House) -> None:
    house.enqueue(job("hung", "hang"), job("good", "x"))

    run = house.work(stall_s="1.5", max_attempts="2")

    assert run.code == 0
    assert house.receipt("hung").state == "failed"
    assert house.receipt("good").state == "done"
    assert [attempt.end for attempt in house.attempts("good")] == ["done"]
    assert house.processes() == []


def freeze(pid: int, house: House) -> None:
    """Stop a worker, but not in the middle of a write to an SQLite queue, which would lock it for all."""
    while True:
        os.kill(pid, signal.SIGSTOP)
        try:
            for file in house.folder.rglob("queue.db"):
                with contextlib.closing(sqlite3.connect(file, timeout=0)) as queue:
                    queue.execute("BEGIN IMMEDIATE").connection.rollback()
            return
        except sqlite3.OperationalError:
            os.kill(pid, signal.SIGCONT)
            time.sleep(0.01)


def test_the_lease_of_a_hung_job_runs_out(house: House) -> None:
    # Given a worker that would not notice a hang for an hour, but whose stage counts as quiet after a second
    house.enqueue(job("hung", "hang once"))
    stuck = house.start(stall_s="1")
    until((house.folder / "hang-once.done").exists, "the renderer to hang", stuck)
    # When the whole worker stops, watchdog and all, another one gets the job after the lease, and ends it
    freeze(stuck.pid, house)
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


def test_a_job_whose_name_another_job_has_leaves_the_queue(house: House) -> None:
    """Else it would come back for ever, and keep a GPU awake."""
    house.enqueue(job("film", "x"))
    assert house.work().code == 0
    receipt = house.receipt("film")
    house.queue.publish([Message.of(job("film", "another one"))])

    run = house.work()

    assert run.code == 0
    assert run.report["rejected"] == 1
    assert "already has another job film" in house.places.dead_letters(house.queue)[-1]
    assert house.places.is_empty(house.queue)
    assert house.receipt("film") == receipt


def test_a_commit_that_does_not_end_in_time_is_given_back_and_costs_nothing(build: Callable[..., House]) -> None:
    # Given a job whose keyframes are there, and a worker that is told to leave while its commit is stuck
    house = build("house", lease_s=CALM_LEASE_S)
    house.enqueue(job("before", "x"))
    assert house.work().code == 0
    house.enqueue(job("film", "x"))

    run = house.work(*house.struck("nightreel_worker.commit:check", "get_stuck"), drain_s="3")

    # Then it leaves all the same, and the job is anybody's
    assert run.code == 0
    assert len(run.events("left_unfinished")) == 1
    assert house.processes() == []
    assert house.leftovers() == []
    house.message_back()
    assert [attempt.end for attempt in house.attempts("film")] == ["preempted"]
    assert house.work_calmly(max_attempts="1").code == 0
    verdict(house, "before", "film")


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
