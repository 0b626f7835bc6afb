"""Batches that look as if workers had been at them, without any: for tests of what comes after a run."""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import Mapping

from house import House, Run, job

from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.receipts import OutputFile, Receipt, Receipts, State

ENDED_AT = dt.datetime(2026, 3, 1, tzinfo=dt.UTC)


def nightreel(house: House, *arguments: str, **settings: str) -> Run:
    """Run the command as a process of its own."""
    return house.work(sys.executable, "-m", "nightreel", *arguments, **settings)


def enqueue(house: House, *names: str) -> dict[str, Job]:
    """Record and publish tiny jobs, by id."""
    jobs = {name: job(name, f"a picture of {name}") for name in names}
    house.enqueue(*jobs.values())
    return jobs


def finish(store: Store, job: Job, video: bytes = b"a film") -> None:
    """Video, poster, and the receipt that says done."""
    name = f"{job.batch}/{job.id}"
    files = [
        store.put(f"{name}.mp4", video, content_type="video/mp4", metadata={"fingerprint": job.fingerprint}),
        store.put(f"{name}.jpg", b"a poster", content_type="image/jpeg"),
    ]
    outputs = tuple(
        OutputFile(name=file.name, sha256=file.sha256, size_bytes=file.size_bytes, content_type=file.content_type)
        for file in files
    )
    end(store, job, "done", outputs=outputs)


def end(store: Store, job: Job, state: State, reason: str = "", outputs: tuple[OutputFile, ...] = ()) -> None:
    """The receipt alone."""
    Receipts(store).commit(
        Receipt(
            state=state,
            batch=str(job.batch),
            job=str(job.id),
            fingerprint=job.fingerprint,
            reason=reason,
            outputs=outputs,
            ended_at=ENDED_AT,
        ),
        None,
    )


def videos(jobs: Mapping[str, Job]) -> dict[str, bytes]:
    """A content for each job's video that no other has."""
    return {name: f"the film of {name} ".encode() * 1000 for name in jobs}
