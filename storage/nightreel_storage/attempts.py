"""Attempts: who tried a job, and how that went.

An attempt record is created before rendering and closed by its end. One that was never closed belongs to a worker that
was killed; it counts as a failure unless it left a keyframe behind, so that a job that kills its worker every time is
given up, and a job whose worker is preempted time and again is not.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

from .base import Store
from .errors import Conflict
from .receipts import Record

FOLDER = ".nightreel/attempts/"
_RECORD = re.compile(r"r[0-9]{4}-[0-9]+\.json")

End = Literal["", "done", "failed", "preempted", "cancelled", "lost", "passed"]


class Attempt(Record):
    """One try at one round of a job. `end` is empty while it lasts, and stays so when its worker was killed.

    passed: a model that stands in for the job's own cannot make it; it is left to others, and counts for nothing.
    """

    id: str
    run: str
    model: str = ""
    """The one that was to draw."""
    started_at: dt.datetime
    ended_at: dt.datetime | None = None
    end: End = ""
    reason: str = ""


@dataclass(frozen=True, slots=True)
class OpenAttempt:
    """An attempt of ours, to be closed."""

    attempt: Attempt
    name: str
    generation: int


class Attempts:
    """The attempt records of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def history(self, batch: str, job: str, round_: int) -> tuple[Attempt, ...]:
        """The attempts at one round so far, oldest first. Raises StoreError for one that cannot be read."""
        entries = self._store.list(_prefix(batch, job, round_))
        return tuple(Attempt.from_bytes(self._store.get(entry.name)[0], entry.name) for entry in entries)

    def begun(self, batch: str) -> frozenset[tuple[str, int]]:
        """Jobs of a batch, with their rounds, that somebody has tried; from one listing."""
        prefix = f"{FOLDER}{batch}/"
        parts = (entry.name.removeprefix(prefix).partition("/") for entry in self._store.list(prefix))
        return frozenset((job, int(rest[1:5])) for job, _, rest in parts if _RECORD.fullmatch(rest))

    def open(self, batch: str, job: str, round_: int, run: str, now: dt.datetime, model: str = "") -> OpenAttempt:
        """Record that an attempt begins. Numbers are create-only: two workers never write one record."""
        number = len(self.history(batch, job, round_)) + 1
        while True:
            name = f"{_prefix(batch, job, round_)}{number:04}.json"
            attempt = Attempt(id=f"{run}.{batch}.{job}.{round_}.{number}", run=run, model=model, started_at=now)
            try:
                entry = self._store.put(name, attempt.to_bytes(), content_type="application/json")
            except Conflict:
                number += 1
            else:
                return OpenAttempt(attempt, name, entry.generation)

    def close(self, opened: OpenAttempt, end: End, reason: str, now: dt.datetime) -> None:
        """Record how an attempt ended."""
        closed = opened.attempt.model_copy(update={"end": end, "reason": reason, "ended_at": now})
        self._store.put(opened.name, closed.to_bytes(), generation=opened.generation, content_type="application/json")


def failures(history: Collection[Attempt], makers: Collection[str]) -> list[Attempt]:
    """The attempts that count towards the limit; `makers` are the ids of attempts that left a keyframe behind."""
    return [
        attempt for attempt in history if attempt.end == "failed" or (attempt.end == "" and attempt.id not in makers)
    ]


def _prefix(batch: str, job: str, round_: int) -> str:
    return f"{FOLDER}{batch}/{job}/r{round_:04}-"
