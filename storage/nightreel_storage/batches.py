"""Batch records: what was asked for, so that `status` can say what is still missing."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator

from .base import ABSENT, Store
from .errors import Conflict, NotFound
from .receipts import Record


class Asked(Record):
    """One job of a batch, as it was enqueued."""

    id: str
    fingerprint: str
    duration_s: float
    message: str
    """The job's canonical JSON: what `retry` publishes again."""


class Batch(Record):
    """The jobs that came in together."""

    name: str
    title: str
    """Where they came from, such as nightly.yaml."""
    enqueued_at: dt.datetime
    jobs: tuple[Asked, ...]


class IdTaken(Conflict):
    """Raised when a batch already asked for other content under the same id; nothing was recorded."""


class Batches:
    """The batch records of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, name: str) -> Batch | None:
        """A batch's record, or None. Raises StoreError for one that cannot be read."""
        return self._read(name)[0]

    def record(self, batch: Batch) -> Batch:
        """Add a batch's jobs to its record, which is created if need be. Raises IdTaken."""
        while True:
            known, generation = self._read(batch.name)
            merged = _merge(known, batch) if known else batch
            if merged == known:
                return merged
            try:
                self._store.put(
                    _name(batch.name), merged.to_bytes(), generation=generation, content_type="application/json"
                )
            except Conflict:
                continue  # somebody else recorded jobs of this batch meanwhile: merge with theirs
            return merged

    def list(self) -> Iterator[Batch]:
        """All batches, oldest first."""
        entries = self._store.list(_name("").removesuffix(".json"))
        batches = [Batch.from_bytes(self._store.get(entry.name)[0], entry.name) for entry in entries]
        return iter(sorted(batches, key=lambda batch: batch.enqueued_at))

    def _read(self, name: str) -> tuple[Batch | None, int]:
        try:
            data, entry = self._store.get(_name(name))
        except NotFound:
            return None, ABSENT
        return Batch.from_bytes(data, entry.name), entry.generation


def _merge(known: Batch, batch: Batch) -> Batch:
    jobs = {job.id: job for job in known.jobs}
    for job in batch.jobs:
        if jobs.setdefault(job.id, job).fingerprint != job.fingerprint:
            raise IdTaken(
                f"batch {batch.name} already has a job {job.id} with other content: choose another id or batch"
            )
    return known.model_copy(update={"jobs": tuple(jobs.values())})


def _name(name: str) -> str:
    return f".nightreel/batches/{name}.json"
