"""What ends without a video leaves a record and a dead letter, whenever its worker is killed; and leaves the queue."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable
from functools import partial

import pytest
from house import House, at_once, job, verdict

from nightreel_queue.base import Message
from nightreel_queue.sqlite import SqliteQueue

Build = Callable[..., House]
Step = tuple[str, bool]  # a place, and whether the worker dies right after it

RECEIPT = "nightreel_storage.receipts:Receipts.commit"
LETTER = "Delivery.dead_letter"
STEPS: dict[str, Step] = {
    "before the dead letter": (LETTER, False),
    "before it is published": ("nightreel_queue.pubsub:Clients.publish", False),
    "between the dead letter and the ack": ("nightreel_queue.pubsub:Clients.ack", False),
    "after the dead letter": (LETTER, True),
}
OF_A_JOB: dict[str, Step] = {
    "before the failed receipt": (RECEIPT, False),
    "after the failed receipt": (RECEIPT, True),
    **STEPS,
}
OF_A_MESSAGE: dict[str, Step] = {
    "before the record": ("Store.put", False),
    "after the record": ("Store.put", True),
    **STEPS,
}


def test_a_job_that_fails_has_one_receipt_and_a_dead_letter_whenever_its_worker_is_killed(build: Build) -> None:
    at_once({name: partial(fail, build, name, step) for name, step in OF_A_JOB.items()})


def test_a_message_that_is_no_job_has_a_record_and_a_dead_letter_whenever_its_worker_is_killed(build: Build) -> None:
    at_once({name: partial(reject, build, name, step) for name, step in OF_A_MESSAGE.items()})


def fail(build: Build, name: str, step: Step) -> None:
    house = build(name)
    if is_one_transaction(house, step):
        return
    # Given a job that can never be made, and a worker that dies over it
    house.enqueue(job("bad", "refuse"))
    kill_worker(house, step)
    receipt = house.receipt("bad") if house.has_ended("bad") else None
    assert bool(receipt) == (name != "before the failed receipt")

    # When the message came back, if it does
    if step != STEPS["after the dead letter"]:
        house.message_back()
    run = house.work_calmly()

    # Then the job has failed once
    assert run.code == 0
    assert receipt in (None, house.receipt("bad"))
    assert house.receipt("bad").reason == "shots[0].prompt: refused, as asked"
    verdict(house, "bad", failed=["bad"])


def reject(build: Build, name: str, step: Step) -> None:
    house = build(name)
    if is_one_transaction(house, step):
        return
    house.queue.publish([Message(b"{no job")])
    kill_worker(house, step)
    assert len(records(house)) == (name != "before the record")

    if step != STEPS["after the dead letter"]:
        house.message_back()
    run = house.work_calmly()

    assert run.code == 0
    (record,) = records(house)
    assert record["body"] == "{no job"
    verdict(house, rejected=[record["reason"]])


def is_one_transaction(house: House, step: Step) -> bool:
    """A dead letter and its ack are one on SQLite: nothing can come between."""
    return "pubsub" in step[0] and isinstance(house.queue, SqliteQueue)


def kill_worker(house: House, step: Step) -> None:
    place, after = step
    died = house.work(*house.struck(place, "kill_worker", after=after), idle_timeout_s="150")
    assert died.code == -signal.SIGKILL


def records(house: House) -> list[dict[str, str]]:
    found = [house.store.get(entry.name)[0] for entry in house.store.list(".nightreel/rejected/")]
    return [json.loads(content) for content in found]


@pytest.mark.parametrize("poison", ["kill the child", "raise"])
def test_a_job_given_up_after_its_last_attempt_goes_the_same_way(build: Build, poison: str) -> None:
    # Given a job on its last attempt, whose worker dies between the failed receipt and the dead letter
    house = build("house")
    house.enqueue(job("bad", poison))
    died = house.work(*house.struck(LETTER, "kill_worker"), max_attempts="2", idle_timeout_s="150")
    assert died.code == -signal.SIGKILL
    house.message_back()

    run = house.work_calmly()

    assert run.code == 0
    assert house.receipt("bad").attempts == 2
    verdict(house, "bad", failed=["bad"], again={poison: 1})
