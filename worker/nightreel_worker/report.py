"""What a run did, kept while it lasts and told at its end."""

from __future__ import annotations

import datetime as dt
import threading
from collections import Counter
from dataclasses import dataclass, field
from typing import Any, Literal

from pydantic import Field

from nightreel_storage.receipts import Record

from . import wire
from .estimate import Taken, Takings
from .events import Ended, Event, Rejected, Returned


class RunReport(Record):
    """One worker's life in figures; stored as .nightreel/runs/RUN.json."""

    run: str
    state: Literal["running", "ended"] = "ended"
    """A run that was killed stays at running, with the figures of its last half minute."""
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


def run_name(run: str) -> str:
    """Of a run's report in the store; of their folder without an id."""
    return f".nightreel/runs/{run}.json" if run else ".nightreel/runs/"


@dataclass(slots=True)
class Tally:
    """Counts what happens, from several threads. Keeps nothing of the jobs: a run may have any number of them."""

    ended: Counter[str] = field(default_factory=Counter)
    """Rounds that this run ended, by state."""
    earlier: Counter[str] = field(default_factory=Counter)
    """Rounds that had ended before their delivery came, by state."""
    rejected: int = 0
    returned: int = 0
    keyframes: int = 0
    reused: int = 0
    load_s: float = 0.0
    keyframes_s: float = 0.0
    waited_s: float = 0.0
    held_up_s: float = 0.0
    _taken: Takings = field(default_factory=Takings)
    _first: bool = True
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def see(self, event: Event) -> None:
        with self._lock:
            match event:
                case Ended(receipt=receipt, earlier=True):
                    self.earlier[receipt.state] += 1
                case Ended(receipt=receipt):
                    self.ended[receipt.state] += 1
                    if receipt.made:
                        self._taken.count(receipt)
                        self.keyframes += receipt.made.keyframes
                        self.reused += receipt.made.reused
                case Rejected():
                    self.rejected += 1
                case Returned():
                    self.returned += 1

    def hear(self, line: wire.Line) -> None:
        with self._lock:
            match line:
                case wire.Loaded(seconds=seconds):
                    self.load_s += seconds
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
            return seconds | {
                "taken": self._taken.rows,
                "done": self.ended["done"],
                "failed": self.ended["failed"],
                "cancelled": self.earlier["cancelled"],
                "earlier": self.earlier.total() - self.earlier["cancelled"],
                "rejected": self.rejected,
                "returned": self.returned,
                "keyframes": self.keyframes,
                "reused": self.reused,
            }
