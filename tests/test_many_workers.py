"""Several workers on one queue, one of which is killed in the middle: each job is made once, by somebody."""

from __future__ import annotations

import random
import signal
from collections import Counter

import pytest
from house import House, finish, job, verdict

JOBS = 12
IN_HAND = 4  # deliveries that one worker holds at most: what it may have rendered and not stored
STEPS = [  # places, and whether the worker dies right after them
    ("nightreel_worker.admission:Admission.request", False),
    ("nightreel_storage.attempts:Attempts.open", True),
    ("nightreel_storage.keyframes:Keyframes.put", False),
    ("nightreel_storage.keyframes:Keyframes.put", True),
    ("nightreel_worker.commit:check", False),
    ("nightreel_worker.commit:Committer._put", True),
    ("nightreel_storage.receipts:Receipts.commit", False),
    ("nightreel_storage.receipts:Receipts.commit", True),
    ("Delivery.ack", False),
    ("Delivery.ack", True),
]


@pytest.mark.parametrize(("workers", "seed"), [(2, 7), (4, 11)])
def test_of_several_workers_one_may_be_killed_at_any_time(any_house: House, workers: int, seed: int) -> None:
    # Given a worker that dies at some step of its first or second job, and others beside it
    chance = random.Random(f"{seed} {any_house.delivery}")
    place, after = chance.choice(STEPS)
    call = chance.choice([1, 2])
    names = [f"job{number:02}" for number in range(JOBS)]
    any_house.enqueue(*(job(name, f"half a second {name}") for name in names))
    doomed = any_house.start(*any_house.struck(place, "kill_worker", after=after, call=call))
    others = [any_house.start(**any_house.calm) for _ in range(workers - 1)]

    codes = [finish(each).code for each in (doomed, *others)]

    # And one that comes for what it leaves behind
    any_house.work_off(*names)
    assert any_house.work_calmly().code == 0

    # Then all is made, and nothing twice but what was in its hands
    assert codes == [-signal.SIGKILL] + [0] * (workers - 1), (place, after, call)
    paid_again = Counter(any_house.rendered()) - Counter(set(any_house.rendered()))
    assert paid_again.total() <= IN_HAND, (place, after, call)
    verdict(any_house, *names, again=dict.fromkeys(any_house.rendered(), 1))


def test_workers_share_the_work(house: House) -> None:
    names = [f"job{number}" for number in range(6)]
    house.enqueue(*(job(name, f"half a second {name}") for name in names))

    runs = [finish(worker) for worker in [house.start(idle_timeout_s="3") for _ in range(2)]]

    assert [run.code for run in runs] == [0, 0]
    assert sum(run.report["done"] for run in runs) == len(names)
    assert all(run.report["done"] for run in runs)
    verdict(house, *names)
