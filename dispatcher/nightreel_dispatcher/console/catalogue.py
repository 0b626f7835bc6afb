"""Which batches there are, and which jobs they have. What a store never changes under a name is read once."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from functools import lru_cache

from nightreel_storage.base import Entry, Store
from nightreel_storage.batches import FOLDER, Batch, Part, head_name
from nightreel_storage.errors import NotFound

from ..looking import known_batch

KEPT = 64  # batches, and as many parts of large ones


@dataclass(frozen=True, slots=True)
class Listed:
    """A batch, without the contents of its jobs."""

    name: str
    title: str
    """Where it came from, such as nightly.yaml; empty for jobs that were published without a manifest."""
    enqueued_at: dt.datetime
    jobs: tuple[str, ...]
    """Ids, in the order in which they came."""
    video_s: float
    """Seconds of film that they ask for."""


class Catalogue:
    """Of one store. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._head = lru_cache(KEPT)(self._read_head)
        self._part = lru_cache(KEPT)(self._read_part)

    def newest(self, offset: int, limit: int) -> tuple[list[Listed], bool]:
        """Batches by when they were last written to, latest first; and are there more?"""
        heads = [entry for entry in self._store.list(FOLDER) if "/" not in entry.name.removeprefix(FOLDER)]
        heads.sort(key=lambda entry: entry.generation, reverse=True)  # generations are times
        page = heads[offset : offset + limit]
        return [self._head(entry.name, entry.generation) for entry in page], len(heads) > offset + limit

    def find(self, name: str) -> Listed:
        """Raises NotFound."""
        entry: Entry | None = self._store.head(head_name(name))
        if entry is None:  # its jobs were published without a manifest: their receipts tell of it
            return self._listed(known_batch(self._store, name))
        return self._head(entry.name, entry.generation)

    def _read_head(self, name: str, generation: int) -> Listed:
        """A later generation may be read: the next look has another key."""
        data, _ = self._store.get(name)
        return self._listed(Batch.from_bytes(data, name))

    def _listed(self, batch: Batch) -> Listed:
        parts = [self._part(part.name) for part in batch.parts]
        jobs = tuple(job for ids, _ in parts for job in ids) + tuple(asked.id for asked in batch.jobs)
        video_s = sum(seconds for _, seconds in parts) + sum(asked.duration_s for asked in batch.jobs)
        return Listed(batch.name, batch.title, batch.enqueued_at, jobs, video_s)

    def _read_part(self, name: str) -> tuple[tuple[str, ...], float]:
        """Parts are named by their content."""
        data, _ = self._store.get(name)
        jobs = Part.from_bytes(data, name).jobs
        return tuple(asked.id for asked in jobs), sum(asked.duration_s for asked in jobs)


def check_member(batch: Listed, job: str) -> None:
    """Raises NotFound."""
    if job not in batch.jobs:
        raise NotFound(f"batch {batch.name} has no job {job}")
