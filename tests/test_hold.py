"""A hold stops all claiming for a store, and says why; what is under way is finished."""

from __future__ import annotations

import json
import sys

from house import House, Run, finish, job, until

from nightreel_storage.holds import Holds
from nightreel_storage.receipts import utc_now

NIGHTREEL = (sys.executable, "-m", "nightreel")


def status(house: House) -> Run:
    return house.work(*NIGHTREEL, "status", "--json")


def test_while_a_store_is_on_hold_a_worker_claims_nothing_and_says_why(house: House) -> None:
    house.enqueue(job("film", "x"))
    held = house.work(*NIGHTREEL, "hold", "the price is wrong")

    run = house.work()

    assert held.code == run.code == 0
    assert "on hold: the price is wrong" in held.out
    assert run.report["why"] == "on hold: the price is wrong"
    assert house.rendered() == []
    assert house.queue.backlog().ready == 1
    assert json.loads(status(house).out)["hold"] == "the price is wrong"
    assert "on hold since" in house.work(*NIGHTREEL, "status").out


def test_a_hold_lets_a_worker_finish_what_it_has_and_take_no_more(house: House) -> None:
    # Given a worker with one job in the works, one in line, and four more in the queue
    house.enqueue(*(job(f"job{number}", f"slow once {number}") for number in range(6)))
    process = house.start()
    until(lambda: house.attempts("job1"), "the second job to be claimed", process)

    Holds(house.store).put("enough for today", utc_now())
    run = finish(process)

    assert run.code == 0
    done = [name for name in (f"job{number}" for number in range(6)) if house.has_ended(name)]
    assert done == ["job0", "job1"]
    assert house.queue.backlog().ready == 4


def test_a_worker_that_waits_goes_on_when_the_hold_is_lifted(house: House) -> None:
    Holds(house.store).put("a moment", utc_now())
    house.enqueue(job("film", "x"))
    process = house.start(idle_timeout_s="60")

    resumed = house.work(*NIGHTREEL, "resume")
    until(lambda: house.has_ended("film"), "the job to be done", process)

    assert "not on hold any more" in resumed.out
    assert "was not on hold" in house.work(*NIGHTREEL, "resume").out
    process.terminate()
    assert finish(process).code == 0


def test_the_last_word_counts(house: House) -> None:
    holds = Holds(house.store)

    holds.put("one", utc_now())
    holds.put("two", utc_now())
    held = holds.read()
    holds.lift(utc_now())

    assert held is not None
    assert held.reason == "two"
    assert holds.read() is None
