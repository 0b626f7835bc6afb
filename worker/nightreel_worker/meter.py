"""The run's clock: every nanosecond from the process's start to the report is booked once, to what it went to.

At each moment a run is in one stage, the first in STAGES that anything is in. A second in which one job's keyframes are
made while another's film is encoded belongs to the first: the GPU is what is paid for. Stages that a job is in are booked
to this job's account; what no job is in (starting, loading, waiting, leaving) is the run's own.

A job's receipt carries what its account held when the receipt was written. So receipts, what was lost and the run's own
seconds add up to the run's time exactly, in any order of events.
"""

from __future__ import annotations

import math
import os
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from nightreel_storage.receipts import Cost

from . import wire
from .prices import Price

Stage = Literal["load", "render", "film", "upload", "import", "wait"]
Phase = Literal["start", "idle", "drain"]
Busy = Literal["import", "load"]
"""What a renderer may have to do before it can render."""
STAGES: tuple[Stage, ...] = ("load", "render", "film", "upload", "import", "wait")
"""The most telling first: what a moment is booked to when several are under way."""
OF_JOBS = frozenset(("render", "film", "upload"))
FREE = Price(name="local", usd_per_s=0.0)


@dataclass(slots=True)
class Account:
    """One delivery's nanoseconds, and what was paid for it besides."""

    spent_ns: int = 0
    billed_ns: int = 0
    """What the last bill said."""
    paid_micro_usd: int = 0
    """For clips."""
    billed_micro_usd: int = 0
    """Of these, what the last bill said."""


@dataclass(frozen=True, slots=True)
class Statement:
    """Where a run's time and money went."""

    stages_s: dict[str, float]
    """Seconds by stage or phase; they add up to the run's."""
    seconds: float
    """The sum of these."""
    jobs_s: float
    """On receipts of this run."""
    lost_s: float
    """On jobs that got no receipt from this run: handed back, cancelled, crashed, ended by somebody else first."""
    price: str
    usd: float
    """Of the whole run."""
    clips_usd: float
    """What of that was paid for clips."""
    jobs_usd: float
    """The sum of the costs that this run's receipts carry."""

    @property
    def shared_usd(self) -> float:
        """What no receipt carries: start, loading, waiting, leaving, and what was lost."""
        return round(self.usd - self.jobs_usd, 6)

    def figures(self) -> dict[str, Any]:
        """Its part of a run's report."""
        return {
            "seconds": round(self.seconds, 3),
            "stages_s": {stage: round(seconds, 3) for stage, seconds in self.stages_s.items()},
            "jobs_s": round(self.jobs_s, 3),
            "lost_s": round(self.lost_s, 3),
            "price": self.price,
            "usd": self.usd,
            "clips_usd": self.clips_usd,
            "jobs_usd": self.jobs_usd,
            "shared_usd": self.shared_usd,
        }


@dataclass(eq=False)
class Meter:
    """Safe to use from several threads."""

    price: Price = FREE
    clock_ns: Callable[[], int] = time.monotonic_ns
    age_ns: int = 0
    """Of the process, when the meter was made."""
    _phase: Phase = "start"
    _open: dict[Stage, list[object]] = field(default_factory=lambda: {stage: [] for stage in STAGES})
    _booked: Counter[str] = field(default_factory=Counter)
    _accounts: dict[object, Account] = field(default_factory=dict)
    _on_receipts_ns: int = 0
    _on_receipts_micro_usd: int = 0
    _lost_ns: int = 0
    _paid_micro_usd: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __post_init__(self) -> None:
        self._at_ns = self.clock_ns()
        self._booked["start"] = self.age_ns

    def phase(self, phase: Phase) -> None:
        """What time goes to from now on while no stage is open."""
        with self._lock:
            self._book()
            self._phase = phase

    def enter(self, stage: Stage, key: object = None) -> None:
        """A stage begins, for a delivery or for the run; one that is open already stays so."""
        with self._lock:
            self._book()
            if key not in self._open[stage]:
                self._open[stage].append(key)

    def leave(self, stage: Stage, key: object = None) -> None:
        """A stage ends; one that is not open stays so."""
        with self._lock:
            self._book()
            if key in self._open[stage]:
                self._open[stage].remove(key)

    def hear(self, key: object, line: wire.Line | None) -> None:
        """What the renderer says of a delivery's job; None: it has the job no longer."""
        match line:
            case wire.Started():
                self.enter("render", key)
            case wire.KeyframesDone():
                self.leave("render", key)
            case wire.Filming():
                self.enter("film", key)
            case None | wire.Filmed() | wire.Failed() | wire.Dropped():
                self.leave("render", key)
                self.leave("film", key)

    def renderer_is(self, busy: Busy | None) -> None:
        """The renderer is getting ready; None: it is ready, or gone."""
        self.leave("import")
        self.leave("load")
        if busy:
            self.enter(busy)

    def pay(self, key: object, micro_usd: int) -> None:
        """A clip was bought for a delivery."""
        with self._lock:
            self._accounts.setdefault(key, Account()).paid_micro_usd += micro_usd
            self._paid_micro_usd += micro_usd

    def paid_usd(self, key: object) -> float:
        """What was paid for a delivery's clips so far."""
        with self._lock:
            return self._accounts.get(key, Account()).paid_micro_usd / 1e6

    def spent_s(self, key: object) -> float:
        """What is booked to a delivery so far, in seconds."""
        with self._lock:
            self._book()
            return self._accounts.get(key, Account()).spent_ns / 1e9

    def seconds(self) -> float:
        """The age of the run, from its process's start."""
        with self._lock:
            self._book()
            return self._booked.total() / 1e9

    def booked_s(self, *stages: str) -> float:
        """What went to some stages or phases so far, in seconds."""
        with self._lock:
            self._book()
            return sum(self._booked[stage] for stage in stages) / 1e9

    def bill(self, key: object) -> Cost:
        """What the receipt that is about to be written shall carry. `close` tells whether it was written."""
        with self._lock:
            self._book()
            account = self._accounts.setdefault(key, Account())
            account.billed_ns, account.billed_micro_usd = account.spent_ns, account.paid_micro_usd
            return Cost(
                seconds=round(account.billed_ns / 1e9, 3),
                usd=(self._micro_usd(account.billed_ns) + account.billed_micro_usd) / 1e6,
                clips_usd=account.billed_micro_usd / 1e6,
                price=self.price.name,
            )

    def close(self, key: object, *, billed: bool) -> None:
        """A delivery is settled. `billed`: its last bill stands in a receipt of this run; what came after is the run's own."""
        with self._lock:
            self._book()
            for keys in self._open.values():
                if key in keys:
                    keys.remove(key)
            account = self._accounts.pop(key, Account())
            if billed:
                self._on_receipts_ns += account.billed_ns
                self._on_receipts_micro_usd += self._micro_usd(account.billed_ns) + account.billed_micro_usd
            else:
                self._lost_ns += account.spent_ns

    def statement(self) -> Statement:
        """As of now; accounts that are open count as lost."""
        with self._lock:
            self._book()
            lost_ns = self._lost_ns + sum(account.spent_ns for account in self._accounts.values())
            return Statement(
                stages_s={stage: ns / 1e9 for stage, ns in self._booked.items() if ns},
                seconds=self._booked.total() / 1e9,
                jobs_s=self._on_receipts_ns / 1e9,
                lost_s=lost_ns / 1e9,
                price=self.price.name,
                usd=(self._micro_usd(self._booked.total()) + self._paid_micro_usd) / 1e6,
                clips_usd=self._paid_micro_usd / 1e6,
                jobs_usd=self._on_receipts_micro_usd / 1e6,
            )

    def _book(self) -> None:
        now_ns = self.clock_ns()
        passed_ns, self._at_ns = now_ns - self._at_ns, now_ns
        stage = next((stage for stage in STAGES if self._open[stage]), None)
        self._booked[stage or self._phase] += passed_ns
        if stage in OF_JOBS:
            self._accounts.setdefault(self._open[stage][0], Account()).spent_ns += passed_ns

    def _micro_usd(self, ns: int) -> int:
        """Whole millionths of a dollar, so that sums are exact; rounded down, so that parts are never more than the whole."""
        return math.floor(ns * self.price.machine_usd_per_s / 1e3)


def process_age_ns() -> int:
    """How long ago this process was started; 0 where the system does not tell (it has no /proc)."""
    try:
        fields = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace").rpartition(")")[2].split()
        started_ticks = int(fields[19])  # starttime, the 22nd field; since boot, as CLOCK_BOOTTIME
        return max(0, time.clock_gettime_ns(time.CLOCK_BOOTTIME) - started_ticks * 10**9 // os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError, AttributeError):
        return 0
