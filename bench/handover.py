"""How soon a worker that waits has a job: one that was just published, and one that another worker had to give back."""

from __future__ import annotations

import os
import random
import signal
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import bare_queue
import sleeper
from common import Table, count, spread
from emulators import Place, Worker, in_the_cloud, on_this_machine, when
from soak import tiny_job
from workload import Shape, Workload, make

from nightreel_queue.base import Message
from nightreel_queue.job import Job

AT_REST_S = (0.5, 2.5)  # before each publish, drawn: it meets the pull at any moment of its life
SETTLED_S = 4.0  # after which a new worker certainly waits
MID_RENDER_S = 1.0  # after the claim
FOREVER_S = 600.0  # that the keyframe takes which nobody finishes
KILL_LEASE_S = 10  # of the workers that are killed without a word


# publish to claim


def claim(folder: Path, times: int, rounds: int) -> tuple[Table, ...]:
    """The same jobs one by one to a waiting worker on the emulators, to one on SQLite, and to Google's client."""
    delays: dict[str, list[float]] = {}
    chance = random.Random(1)
    for _ in range(rounds):
        cloud, local = in_the_cloud(), on_this_machine(folder)
        workers = [(place, _waiting(place, folder)) for place in (cloud, local)]
        raw = in_the_cloud()
        for number in range(1, times + 1):
            job = tiny_job(number)
            for name, (place, worker) in zip(("Pub/Sub emulator", "SQLite"), workers, strict=True):
                delays.setdefault(f"`nightreel work`, {name}: to its `claimed`", []).append(
                    _claimed_after(place, worker, job, chance)
                )
            delays.setdefault("Google's client with an open pull: to its answer", []).append(
                _received_after(raw, job, chance)
            )
        for _, worker in workers:
            worker.leave()
    return (_claim_table(delays, rounds),)


def _claim_table(delays: dict[str, list[float]], rounds: int) -> Table:
    rows = tuple((how, str(len(each)), spread([delay * 1000 for delay in each], 0)) for how, each in delays.items())
    return Table(
        "From publish to claim",
        ("who waits", "jobs", "ms"),
        rows,
        (
            (
                "From just before the call of publish until the worker's log says `claimed`, which it does after it has "
                "looked in the store whether the job has ended before, for its keyframes and its attempts, and has written "
                "its own attempt. Medians, least and greatest in brackets; a job of each kind in turn, "
                f"{count(range(rounds))}; {AT_REST_S[0]:g} to {AT_REST_S[1]:g} s of silence before each."
            ),
        ),
    )


def _waiting(place: Place, folder: Path) -> Worker:
    """A worker that has made one video, so that its renderer is there, and waits."""
    worker = Worker.start(place, folder, model="testcard", idle_timeout_s=3600)
    place.publish([tiny_job(0)])
    worker.wait("job_ended")
    return worker


def _claimed_after(place: Place, worker: Worker, job: Job, chance: random.Random) -> float:
    time.sleep(chance.uniform(*AT_REST_S))
    asked_at = _publish(place, job)
    delay_s = when(worker.wait("claimed", job.id or "")) - asked_at
    worker.wait("job_ended", job.id or "")
    return delay_s


def _received_after(place: Place, job: Job, chance: random.Random) -> float:
    came: list[float] = []
    waiting = threading.Thread(target=lambda: came.append(bare_queue.receive(place.queue_url)))
    waiting.start()
    time.sleep(chance.uniform(*AT_REST_S))
    asked_at = _publish(place, job)
    waiting.join()
    return came[0] - asked_at


def _publish(place: Place, job: Job) -> float:
    """Returns when the call began: since the epoch, over a connection that is there already."""
    queue = place.queue()
    queue.backlog()
    try:
        asked_at = time.time()
        queue.publish([Message.of(job)])
    finally:
        queue.close()
    return asked_at


# SIGTERM to claim


@dataclass(frozen=True, slots=True)
class Handover:
    """What happened after a signal, in seconds since it."""

    claimed_s: float
    """Until another worker had claimed the job."""
    left_s: float
    """Until the process that got the signal was gone."""


def sigterm(folder: Path, rounds: int) -> tuple[Table, ...]:
    """A worker in the middle of a keyframe gets a signal; another one waits."""
    work = make(
        folder / "sigterm", Shape(1, 1, 0.5, 320, 180), "gpu", sleeper.SOURCE, seconds_to_load=0,
        seconds_per_keyframe=FOREVER_S,
    )  # fmt: skip
    lease = f"?lease_s={KILL_LEASE_S}"
    kinds: list[tuple[str, signal.Signals, Callable[[], Place]]] = [
        ("SIGTERM, Pub/Sub emulator", signal.SIGTERM, in_the_cloud),
        ("SIGTERM, SQLite", signal.SIGTERM, lambda: on_this_machine(folder)),
        (f"SIGKILL, Pub/Sub emulator, leases of {KILL_LEASE_S} s", signal.SIGKILL, lambda: in_the_cloud(lease)),
    ]
    rows = [_handover_row(name, handovers(place(), folder, work, rounds, number)) for name, number, place in kinds]
    return (
        Table(
            "From a signal in mid-render to another worker's claim",
            ("signal, queue", "rounds", "s until `claimed` elsewhere", "s until the process was gone"),
            tuple(rows),
            (
                (
                    f"The signal comes about {MID_RENDER_S:g} s into a keyframe that takes {FOREVER_S:g} s; the other "
                    "worker has waited with an empty queue, and starts its renderer before it says `claimed`. A worker "
                    "that is killed says nothing: its job comes back when the lease ends that it renewed last. Medians, "
                    "least and greatest in brackets."
                ),
            ),
        ),
    )


def _handover_row(name: str, seen: Sequence[Handover]) -> tuple[str, ...]:
    return (
        name,
        str(len(seen)),
        spread([each.claimed_s for each in seen], 3),
        spread([each.left_s for each in seen], 3),
    )


def handovers(place: Place, folder: Path, work: Workload, rounds: int, number: signal.Signals) -> list[Handover]:
    """One job that wanders from worker to worker, as often as asked."""
    job = work.jobs[0].id or ""

    def start() -> Worker:
        return Worker.start(place, folder, model=work.model, models=work.models, idle_timeout_s=3600, max_attempts=100)

    place.publish(work.jobs)
    has_it = start()
    has_it.wait("claimed", job)
    seen = []
    for _ in range(rounds):
        other = start()
        time.sleep(SETTLED_S)
        seen.append(_handover(has_it, other, job, number))
        has_it = other
    has_it.leave()
    return seen


def _handover(has_it: Worker, other: Worker, job: str, number: signal.Signals) -> Handover:
    gone: list[float] = []
    end = threading.Thread(target=lambda: gone.append((has_it.process.wait(), time.time())[1]))
    end.start()
    time.sleep(MID_RENDER_S)
    sent_at = time.time()
    os.kill(has_it.process.pid, number)
    claimed_at = when(other.wait("claimed", job))
    end.join()
    return Handover(claimed_at - sent_at, gone[0] - sent_at)
