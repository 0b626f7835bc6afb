"""What a person wants to see of a run: which jobs failed and why, which took longest, what the videos look like.

A run may have any number of jobs, so each list has an end, and memory does not grow with the run. The lists stand in the
run's report, which is stored while it works: the page of a run that was killed needs no search through receipts.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field
from typing import Literal

from pydantic import Field

from nightreel_storage.receipts import Receipt, Record

MAX_BATCHES = 50
MAX_GROUPS = 20
JOBS_A_GROUP = 10
MAX_REASON_CHARS = 500
SLOWEST = 10
SHOWN = 24  # four rows of six


class BatchCount(Record):
    """What a run did of one batch."""

    batch: str
    done: int = 0
    failed: int = 0
    cancelled: int = 0


class Ending(Record):
    """Jobs of one batch that ended without a video, for one reason."""

    batch: str
    state: Literal["failed", "cancelled"]
    reason: str
    """Of the first of them; those of the others differ in numbers at most."""
    count: int = 1
    jobs: tuple[str, ...] = Field(max_length=JOBS_A_GROUP)
    """The first of them."""


class Finished(Record):
    """One video that a run made."""

    batch: str
    job: str
    seconds: float
    """Of its stages, which overlap with those of other jobs: keyframes, film, and the look at the finished video."""
    keyframes: int
    """That were rendered for it."""
    usd: float
    """What its receipt says that it cost."""
    duration_s: float
    width: int
    height: int
    poster_bytes: int


class Spread:
    """Items spread evenly over all that came, whatever their number: every second is dropped when there are too many."""

    def __init__(self, most: int) -> None:
        self._most, self._step, self._seen = most, 1, 0
        self._items: list[Finished] = []

    def add(self, item: Finished) -> None:
        if self._seen % self._step == 0:
            self._items.append(item)
        self._seen += 1
        if len(self._items) > 2 * self._most:
            self._items, self._step = self._items[::2], 2 * self._step

    @property
    def items(self) -> tuple[Finished, ...]:
        count = len(self._items)
        if count <= self._most:
            return tuple(self._items)
        return tuple(self._items[round(at * (count - 1) / (self._most - 1))] for at in range(self._most))


@dataclass(slots=True)
class Highlights:
    """Counts rounds as they end. Not safe to use from several threads."""

    _batches: dict[str, Counter[str]] = field(default_factory=dict)
    _endings: dict[tuple[str, str, str], Ending] = field(default_factory=dict)
    _slowest: list[Finished] = field(default_factory=list)
    _shown: Spread = field(default_factory=lambda: Spread(SHOWN))

    def count(self, receipt: Receipt) -> None:
        """A round that this run ended, or that it found called off."""
        if receipt.batch in self._batches or len(self._batches) < MAX_BATCHES:
            self._batches.setdefault(receipt.batch, Counter())[receipt.state] += 1
        if receipt.state == "failed" or receipt.state == "cancelled":
            self._end(receipt, receipt.state)
        elif (finished := _finished(receipt)) is not None:
            self._shown.add(finished)
            self._slowest = sorted([*self._slowest, finished], key=lambda each: -each.seconds)[:SLOWEST]

    def figures(self) -> dict[str, object]:
        """Their part of a run's report."""
        return {
            "batches": tuple(BatchCount(batch=name, **counts) for name, counts in self._batches.items()),
            "endings": tuple(sorted(self._endings.values(), key=lambda each: -each.count)),
            "slowest": tuple(self._slowest),
            "shown": self._shown.items,
        }

    def _end(self, receipt: Receipt, state: Literal["failed", "cancelled"]) -> None:
        key = (receipt.batch, state, alike(receipt.reason))
        if (known := self._endings.get(key)) is not None:
            jobs = (*known.jobs, receipt.job)[:JOBS_A_GROUP]
            self._endings[key] = known.model_copy(update={"count": known.count + 1, "jobs": jobs})
        elif len(self._endings) < MAX_GROUPS:
            reason = receipt.reason[:MAX_REASON_CHARS]
            self._endings[key] = Ending(batch=receipt.batch, state=state, reason=reason, jobs=(receipt.job,))


def alike(reason: str) -> str:
    """The same for reasons that differ in numbers alone."""
    return re.sub(r"\d+(\.\d+)?", "#", reason)


def _finished(receipt: Receipt) -> Finished | None:
    """None for a receipt that lacks what a page shows."""
    if receipt.video is None:
        return None
    made = receipt.made
    return Finished(
        batch=receipt.batch,
        job=receipt.job,
        seconds=round(made.keyframes_s + made.film_s + made.verify_s, 3) if made else 0.0,
        keyframes=made.keyframes if made else 0,
        usd=receipt.cost.usd if receipt.cost else 0.0,
        duration_s=receipt.video.duration_s,
        width=receipt.video.width,
        height=receipt.video.height,
        poster_bytes=sum(output.size_bytes for output in receipt.outputs if output.name.endswith(".jpg")),
    )
