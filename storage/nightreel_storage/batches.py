"""Batch records: what was asked for, so that `status` can say what is still missing.

    .nightreel/batches/NAME.json               the head: how many jobs, which parts, and the latest jobs themselves
    .nightreel/batches/NAME/SHA256.json        a part: 1,000 jobs, written once, named by its content

A head holds fewer than 1,000 jobs; each full thousand moves to a part. Parts are put first and the head, by
compare-and-swap, last: it is the commit. Whoever is killed in between leaves parts that nobody speaks of, and that the
same command, run again, finds and uses.
"""

from __future__ import annotations

import builtins
import contextlib
import datetime as dt
import hashlib
from collections.abc import Iterable, Iterator

from .base import ABSENT, Store
from .errors import Conflict, NotFound
from .receipts import Record

PART_JOBS = 1000

FOLDER = ".nightreel/batches/"


class Asked(Record):
    """One job of a batch, as it was enqueued."""

    id: str
    fingerprint: str
    duration_s: float
    message: str
    """The job's canonical JSON: what `retry` publishes again."""


class Part(Record):
    """Jobs of a batch that lie in an object of their own."""

    jobs: tuple[Asked, ...]


class PartName(Record):
    """What a head says of a part."""

    name: str
    count: int


class Batch(Record):
    """The head of a batch's record: the jobs that came in together."""

    name: str
    title: str
    """Where they came from, such as nightly.yaml."""
    enqueued_at: dt.datetime
    """When the first of them came."""
    parts: tuple[PartName, ...] = ()
    """Of the earlier jobs, in order."""
    jobs: tuple[Asked, ...] = ()
    """The latest ones. Records of older versions have all of them here."""

    @property
    def count(self) -> int:
        """How many jobs the batch has, those in parts included."""
        return sum(part.count for part in self.parts) + len(self.jobs)


class IdTaken(Conflict):
    """Raised when a batch already asked for other content under the same id; nothing was recorded."""


class Batches:
    """The batch records of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, name: str) -> Batch | None:
        """The head of a batch's record, or None. Raises StoreError for one that cannot be read."""
        return self._read(name)[0]

    def jobs(self, batch: Batch) -> Iterator[Asked]:
        """All jobs of a batch, in the order in which they came, a part at a time. Raises StoreError."""
        for part in batch.parts:
            data, entry = self._store.get(part.name)
            yield from Part.from_bytes(data, entry.name).jobs
        yield from batch.jobs

    def find(self, batch: Batch, job: str) -> Asked | None:
        """One job of a batch, or None."""
        return next((asked for asked in self.jobs(batch) if asked.id == job), None)

    def record(self, name: str, title: str, now: dt.datetime, jobs: Iterable[Asked]) -> Batch:
        """Add jobs to a batch's record, which is created if need be; returns its head. Raises IdTaken.

        All or none. `jobs` is read more than once, and no more than a part of it is held at a time.
        """
        while True:
            head, generation = self._read(name)
            known = self._known(head)
            if head and not self._has_new(name, known, jobs):
                return head
            merged = self._grown(head or Batch(name=name, title=title, enqueued_at=now), known, jobs)
            try:
                self._store.put(
                    head_name(name), merged.to_bytes(), generation=generation, content_type="application/json"
                )
            except Conflict:
                continue  # somebody else recorded jobs of this batch meanwhile: join theirs
            return merged

    def list(self) -> Iterator[Batch]:
        """The heads of all batches, oldest first."""
        names = [entry.name for entry in self._store.list(FOLDER) if "/" not in entry.name.removeprefix(FOLDER)]
        batches = [Batch.from_bytes(self._store.get(name)[0], name) for name in names]
        return iter(sorted(batches, key=lambda batch: batch.enqueued_at))

    def parts(self) -> frozenset[str]:
        """Names of the parts that some head speaks of."""
        return frozenset(part.name for batch in self.list() for part in batch.parts)

    def _known(self, head: Batch | None) -> dict[str, str]:
        """Fingerprints by id."""
        return {asked.id: asked.fingerprint for asked in self.jobs(head)} if head else {}

    def _has_new(self, name: str, known: dict[str, str], jobs: Iterable[Asked]) -> bool:
        """Looks at all of them: raises IdTaken before anything is written."""
        return sum(_is_new(name, known, asked) for asked in jobs) > 0

    def _grown(self, head: Batch, known: dict[str, str], jobs: Iterable[Asked]) -> Batch:
        """The head with new jobs in it, and parts put for those that it has no room for."""
        parts, latest = list(head.parts), list(head.jobs)
        known = dict(known)
        for asked in jobs:
            if _is_new(head.name, known, asked):
                known[asked.id] = asked.fingerprint
                latest.append(asked)
            if len(latest) >= PART_JOBS:
                parts.append(self._put_part(head.name, latest[:PART_JOBS]))
                del latest[:PART_JOBS]
        return head.model_copy(update={"parts": tuple(parts), "jobs": tuple(latest)})

    def _put_part(self, batch: str, jobs: builtins.list[Asked]) -> PartName:
        data = Part(jobs=tuple(jobs)).to_bytes()
        name = f"{FOLDER}{batch}/{hashlib.sha256(data).hexdigest()}.json"
        self._renew(name, data)
        return PartName(name=name, count=len(jobs))

    def _renew(self, name: str, data: bytes) -> None:
        """Named by its content, one that is there is ours, from a command that was killed. It is put anew: who would
        clear it away holds an older generation, and must not delete it once a head speaks of it."""
        while True:
            entry = self._store.head(name)
            with contextlib.suppress(Conflict):
                self._store.put(
                    name, data, generation=entry.generation if entry else ABSENT, content_type="application/json"
                )
                return

    def _read(self, name: str) -> tuple[Batch | None, int]:
        try:
            data, entry = self._store.get(head_name(name))
        except NotFound:
            return None, ABSENT
        return Batch.from_bytes(data, entry.name), entry.generation


def _is_new(batch: str, known: dict[str, str], asked: Asked) -> bool:
    """Raises IdTaken."""
    if (fingerprint := known.get(asked.id)) is None:
        return True
    if fingerprint != asked.fingerprint:
        raise IdTaken(f"batch {batch} already has a job {asked.id} with other content: choose another id or batch")
    return False


def head_name(name: str) -> str:
    return f"{FOLDER}{name}.json"
