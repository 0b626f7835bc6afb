"""Another round of jobs that failed or were cancelled: what `nightreel retry` and the console do."""

from __future__ import annotations

from collections.abc import Sequence

from nightreel_queue.base import Message
from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.batches import Batch, Batches
from nightreel_storage.errors import NotFound
from nightreel_storage.receipts import AlreadyEnded, Receipts, utc_now

from .looking import no_job


def ask_again(store: Store, batch: Batch, jobs: Sequence[str], *, without_limits: bool = False) -> list[Message]:
    """Ask for another round of these jobs; returns what is to be published for it.

    `without_limits`: lift the limits that the jobs set themselves. Raises NotFound and AlreadyEnded before anything is
    changed. The receipts say `queued` before anything is published: a second retry publishes what a crash left out.
    """
    again = [(name, job_as_asked(store, batch, name)) for name in jobs]
    if without_limits:
        again = [(name, job.model_copy(update={"limits": None})) for name, job in again]
    receipts = Receipts(store)
    return [Message.of(job, receipts.requeue(batch.name, name, utc_now()).round) for name, job in again]


def job_as_asked(store: Store, batch: Batch, job: str) -> Job:
    """The job as it was asked for. Raises NotFound, and AlreadyEnded for one that is done."""
    held = Receipts(store).read(batch.name, job)
    if held and held.receipt.state == "done":
        raise AlreadyEnded(held.receipt)
    message = held.receipt.request if held else ""
    if not message:  # a receipt of an older version, or none
        asked = Batches(store).find(batch, job)
        if held is None and asked is None:
            raise no_job(batch.name, job)
        message = asked.message if asked else ""
    if not message:
        raise NotFound(f"the store has no copy of job {batch.name}/{job}: publish it again")
    return Job.model_validate_json(message)
