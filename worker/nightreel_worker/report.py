"""What a run did, kept while it lasts and told at its end."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from nightreel_storage.receipts import Record

from . import wire
from .estimate import Taken, Takings
from .events import Ended, Event, Rejected, Returned
from .highlights import BatchCount, Ending, Finished, Highlights

LISTS = {"taken", "batches", "endings", "slowest", "shown"}
"""Fields of a report that its line in the log leaves out."""

EMPTY = "the queue is empty"  # how `why` begins, of a run that left because nothing waited
MAX_PASSED = 100  # jobs of one run that are kept by name


class RunReport(Record):
    """One worker's life in figures; stored as .nightreel/runs/RUN.json."""

    run: str
    state: Literal["running", "ended"] = "ended"
    """A run that was killed stays at running, with the figures of its last half minute."""
    wake: str = ""
    """Id of the start that it belongs to; empty when a person started it."""
    backend: str = ""
    """The backend that it belongs to; empty where there is no choice."""
    model: str = ""
    """The worker's own."""
    started_at: dt.datetime
    ended_at: dt.datetime
    why: str
    """Why it ended: the queue was empty, it was told to leave, or what could not be had."""
    unavailable: bool
    """Renderer, queue or store could not be had: the process exits with an error, so that it is started again."""
    done: int = 0
    failed: int = 0
    cancelled: int = 0
    earlier: int = 0
    """Deliveries of jobs that had ended before: acked, nothing rendered."""
    rejected: int = 0
    returned: int = 0
    passed: tuple[str, ...] = ()
    """Jobs that were left to other backends, BATCH/JOB; the first MAX_PASSED."""
    keyframes: int = 0
    reused: int = 0
    renderer_restarts: int = 0
    notified: int = 0
    """Notices of ended jobs that somebody took, each receiver counted."""
    not_notified: int = 0
    """Notices that nobody took; the log says why."""
    seconds: float = 0.0
    """From its process's start to this report."""
    stages_s: dict[str, float] = Field(default_factory=dict)
    """What these went to, each second once."""
    jobs_s: float = 0.0
    """What of them stands on receipts of this run."""
    lost_s: float = 0.0
    """What of them went to jobs that got no receipt from this run."""
    machine: str = ""
    """Id of the machine, where it has one: such as a pod's."""
    price: str = ""
    usd: float = 0.0
    """What the run cost, to a millionth."""
    clips_usd: float = 0.0
    """What of that was paid to services for clips; the rest is the machine's."""
    jobs_usd: float = 0.0
    """What of that stands on receipts of this run."""
    shared_usd: float = 0.0
    """What of that stands on none: starting, loading, waiting, leaving, and what was lost."""
    taken: tuple[Taken, ...] = ()
    """What the jobs took, by model and shape: estimates are made of it."""
    batches: tuple[BatchCount, ...] = ()
    """The first 50 batches."""
    endings: tuple[Ending, ...] = ()
    """Jobs that ended without a video, by batch and reason; the first 20 reasons."""
    slowest: tuple[Finished, ...] = ()
    """The ten videos that took longest."""
    shown: tuple[Finished, ...] = ()
    """At most 24 videos, spread evenly over the run."""
    load_s: float = 0.0
    keyframes_s: float = 0.0
    """Time that the GPU stage had a job."""
    waited_s: float = 0.0
    """Time that it had none, between its first job and its last."""
    held_up_s: float = 0.0
    """Time that it had one, but had to wait for the film stage to take the job before."""

    @property
    def machine_usd(self) -> float:
        """What the run's machine cost: what a month's limit of the machines is about."""
        return round(self.usd - self.clips_usd, 6)

    @property
    def had_work(self) -> bool:
        """Is there anything to tell of it?"""
        return self.unavailable or any(
            (self.done, self.failed, self.cancelled, self.earlier, self.rejected, self.returned)
        )

    @property
    def emptied_at(self) -> float | None:
        """When this run found the queue empty, in seconds since the epoch; None when it left, or was ended, for another reason."""
        if self.state == "running" or self.unavailable or not self.why.startswith(EMPTY):
            return None
        return self.ended_at.timestamp() - self.stages_s.get("drain", 0.0)

    @property
    def ended_jobs(self) -> int:
        """Deliveries that are dealt with for good. What went back to the queue is not."""
        return self.done + self.failed + self.cancelled + self.earlier + self.rejected


def run_name(run: str) -> str:
    """Of a run's report in the store; of their folder without an id."""
    return f".nightreel/runs/{run}.json" if run else ".nightreel/runs/"


@dataclass(slots=True)
class Tally:
    """Counts what happens, from several threads. Keeps no more than highlights: a run may have any number of jobs."""

    ended: Counter[str] = field(default_factory=Counter)
    """Rounds that this run ended, by state."""
    earlier: Counter[str] = field(default_factory=Counter)
    """Rounds that had ended before their delivery came, by state."""
    rejected: int = 0
    returned: int = 0
    passed: dict[str, float] = field(default_factory=dict)
    """Jobs that were left to other backends, and when they come back, by the monotonic clock; the first MAX_PASSED."""
    keyframes: int = 0
    reused: int = 0
    drawn: int = 0
    """Keyframes as the renderer makes them; those of jobs that do not end are among them."""
    load_s: float = 0.0
    keyframes_s: float = 0.0
    waited_s: float = 0.0
    held_up_s: float = 0.0
    _taken: Takings = field(default_factory=Takings)
    _highlights: Highlights = field(default_factory=Highlights)
    _first: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, event: Event) -> None:
        with self._lock:
            match event:
                case Ended(receipt=receipt, earlier=True):
                    self.earlier[receipt.state] += 1
                    if receipt.state == "cancelled":
                        self._highlights.count(receipt)
                case Ended(receipt=receipt):
                    self.ended[receipt.state] += 1
                    self._highlights.count(receipt)
                    if receipt.made:
                        self._taken.count(receipt)
                        self.keyframes += receipt.made.keyframes
                        self.reused += receipt.made.reused
                case Rejected():
                    self.rejected += 1
                case Returned():
                    self.returned += 1
                    self._see_passed(event)

    def _see_passed(self, event: Returned) -> None:
        name = f"{event.batch}/{event.job}"
        if event.passed and (name in self.passed or len(self.passed) < MAX_PASSED):
            self.passed[name] = time.monotonic() + event.delay_s

    def passed_on(self) -> int:
        """Of these, those that have not come back yet."""
        with self._lock:
            now = time.monotonic()
            return sum(back_at > now for back_at in self.passed.values())

    def hear(self, line: wire.Line) -> None:
        with self._lock:
            match line:
                case wire.Loaded(seconds=seconds):
                    self.load_s += seconds
                case wire.KeyframeMade():
                    self.drawn += 1
                case wire.KeyframesDone(seconds=seconds):
                    self.keyframes_s += seconds
                case wire.Started(waited_s=waited_s, held_up_s=held_up_s):
                    self.waited_s += 0.0 if self._first else waited_s
                    self.held_up_s += held_up_s
                    self._first = False

    @property
    def taken(self) -> tuple[Taken, ...]:
        """What this run's jobs took so far."""
        with self._lock:
            return self._taken.rows

    def figures(self) -> dict[str, Any]:
        """Its part of a RunReport."""
        with self._lock:
            seconds = {
                name: round(getattr(self, name), 3) for name in ("load_s", "keyframes_s", "waited_s", "held_up_s")
            }
            return (
                seconds
                | self._highlights.figures()
                | {
                    "taken": self._taken.rows,
                    "done": self.ended["done"],
                    "failed": self.ended["failed"],
                    "cancelled": self.earlier["cancelled"],
                    "earlier": self.earlier.total() - self.earlier["cancelled"],
                    "rejected": self.rejected,
                    "returned": self.returned,
                    "passed": tuple(self.passed),
                    "keyframes": self.keyframes,
                    "reused": self.reused,
                }
            )
