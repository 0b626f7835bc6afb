"""What waits for a worker, from whoever can tell.

An SQLite queue counts exactly. Pub/Sub tells nobody, so two sources are joined that fail in different ways:

- Cloud Monitoring counts every message that is not acked, whoever published it, as of two to three minutes ago.
- The store knows what was asked for and has not ended, as of now, but only of what came in through Nightreel; and it may
  speak of jobs that no message asks for any more.

A moment divides them: when the figures were sampled, or when a worker last found the queue empty, whichever is later. What
came before the sample is counted by it, what came after it by the store: nothing twice. A sample from before the queue was
found empty, and jobs that were asked for before that, say nothing of what is left: nothing is started twice for them. Should
a message have been missed, then the next sample counts it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from nightreel_queue.base import Queue
from nightreel_storage.base import Store
from nightreel_storage.batches import FOLDER, Batch, Batches
from nightreel_storage.receipts import Receipts

from .wake import Waiting

RETENTION_S = 7 * 86400.0  # of a subscription: what was asked for earlier has no message any more


class NoFigures(Exception):
    """Raised when nobody can be asked how many messages wait; says what to do."""


@dataclass(frozen=True, slots=True)
class Unacked:
    """What a queue held when it was sampled; deliveries that workers hold count too."""

    at: float
    """Seconds since the epoch."""
    messages: int
    urgent: int
    oldest_s: float
    """Age of the oldest message then."""


class Figures(Protocol):
    """Somebody who counts a queue's messages from outside."""

    def unacked(self) -> Unacked | None:
        """The latest sample; None when there is none. Raises NoFigures."""
        ...


@dataclass(frozen=True, slots=True)
class Backlog:
    """What waits, and what is known besides."""

    waiting: Waiting
    held: bool = False
    """Is there a worker that holds jobs? Only a queue that counts exactly tells."""
    next_ready_s: float | None = None
    """Seconds until one more job may wait, that was delayed or is held."""
    remark: str = ""
    """What could not be asked, and the mend."""


@dataclass(frozen=True, slots=True)
class Asked:
    """Jobs that the store knows of and that have not ended."""

    jobs: int = 0
    urgent: int = 0
    oldest_s: float = 0.0


def look(
    queue: Queue,
    store: Store,
    figures: Figures | None,
    job_s: float,
    emptied_at: Callable[[], float],
    now: Callable[[], float],
) -> Backlog:
    """What waits now.

    job_s: what a worker needs for a job; emptied_at: when a worker last found the queue empty, in seconds since the epoch, as `now`.
    Raises QueueUnavailable, StoreError.
    """
    counted = queue.backlog()
    if counted.oldest_s is not None:
        waiting = Waiting(counted.ready, counted.ready * job_s, counted.oldest_s, counted.urgent)
        return Backlog(waiting, counted.leased > 0, counted.next_ready_s)
    sample, remark = None, ""
    try:
        sample = figures.unacked() if figures else None
    except NoFigures as exc:
        remark = f"{exc}; until then only jobs that came in through Nightreel count"
    return Backlog(_joined(store, sample, job_s, emptied_at(), now()), remark=remark)


def _joined(store: Store, sample: Unacked | None, job_s: float, emptied_at: float, now_s: float) -> Waiting:
    if sample is not None and sample.at <= emptied_at:
        sample = None
    since = max(sample.at if sample else 0.0, emptied_at, now_s - RETENTION_S)
    asked = asked_since(store, since, now_s)
    if sample is None:
        return Waiting(asked.jobs, asked.jobs * job_s, asked.oldest_s, asked.urgent)
    jobs = sample.messages + asked.jobs
    sampled_s = sample.oldest_s + now_s - sample.at if sample.messages else 0.0
    return Waiting(jobs, jobs * job_s, max(sampled_s, asked.oldest_s), sample.urgent + asked.urgent)


def asked_since(store: Store, since: float, now_s: float) -> Asked:
    """Jobs that have not ended, of the batches that got jobs after a moment (seconds since the epoch). Raises StoreError."""
    jobs, urgent, oldest_s = 0, 0, 0.0
    for entry in store.list(FOLDER):
        if "/" in entry.name.removeprefix(FOLDER):
            continue  # a part of a batch's record
        put_at = entry.put_at.timestamp() if entry.put_at else now_s
        if put_at <= since:
            continue
        batch = Batch.from_bytes(store.get(entry.name)[0], entry.name)
        found = _open_jobs(store, batch)
        if found:
            came_at = max(batch.enqueued_at.timestamp(), since)  # what came earlier has been dealt with
            jobs, urgent = jobs + len(found), urgent + sum(map(_is_urgent, found))
            oldest_s = max(oldest_s, now_s - came_at)
    return Asked(jobs, urgent, oldest_s)


def _open_jobs(store: Store, batch: Batch) -> list[str]:
    """The messages of a batch's jobs that have not ended."""
    ended = {job for job, standing in Receipts(store).standings(batch.name).items() if standing.ended}
    return [asked.message for asked in Batches(store).jobs(batch) if asked.id not in ended]


def _is_urgent(message: str) -> bool:
    return '"urgent"' in message and json.loads(message).get("priority") == "urgent"
