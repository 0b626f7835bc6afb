"""What one run may spend: dollars, seconds, jobs. Hard limits, from the process's start to its exit.

All limits of money and time are one: seconds that the process may live. Of these the drain's are set aside, so rendering
stops before, and the run leaves as after SIGTERM: what is not committed goes back to the queue, and its keyframes are kept.
The month's limit is one of them, and moves: what it allows grows when a block of the month's money is granted. So that this stays the exception, a job is only begun that is estimated to fit into what is left. One that does not goes
back, and the run claims no more; one that no new run could hold fails, for it would come back for ever.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Self

import structlog

from nightreel_pipelines.models import ModelSpec
from nightreel_storage.base import Store
from nightreel_storage.errors import StoreError

from .admission import Work
from .errors import OverLimit, Preempted
from .estimate import Estimate, pipelined_s
from .ledger import Ledger
from .meter import Meter
from .monthly import BLOCK_S, Monthly
from .settings import Settings

log = structlog.get_logger()

EXIT_S = 2.0  # that a process may take to be gone when its drain is over, on a busy machine
TOP_UP_S = 60.0  # before a run would have to leave it asks for more of the month's money
AGAIN_S = 5.0  # between two such questions
TASK_MARGIN_S = 30.0  # a platform's clock starts before the process does; Cloud Run's kill comes without a word


@dataclass(frozen=True, slots=True)
class Cap:
    """How long the process may live, and who says so."""

    life_s: float
    """Seconds from its start to its exit."""
    words: str
    """The setting with its figure."""

    @classmethod
    def of(cls, settings: Settings, usd_per_s: float) -> Cap:
        """The shortest of what the settings allow; for ever when they say nothing."""
        caps = [cls(math.inf, "no limit")]
        if settings.max_runtime_s:
            caps.append(cls(settings.max_runtime_s, f"max_runtime_s: it may last {settings.max_runtime_s:g} s"))
        if settings.max_cost_usd and usd_per_s:
            life_s = settings.max_cost_usd / usd_per_s
            caps.append(
                cls(life_s, f"max_cost_usd: it may cost {settings.max_cost_usd:g} USD, which is {life_s:.0f} s")
            )
        if settings.task_timeout_s:
            life_s = max(0.0, settings.task_timeout_s - TASK_MARGIN_S)
            caps.append(
                cls(life_s, f"task_timeout_s: it may last {settings.task_timeout_s:g} s, {TASK_MARGIN_S:g} to spare")
            )
        return min(caps, key=lambda cap: cap.life_s)


@dataclass(eq=False)
class Budget:
    """Of one run. Safe to use from several threads."""

    own: Cap
    """The run's own limits, which stay as they are."""
    monthly: Monthly | None
    drain_s: float
    max_jobs: int
    """0: any number."""
    meter: Meter
    start_s: Callable[[ModelSpec], float]
    """Seconds from a worker's start until it renders with a model."""
    _begun: dict[object, Estimate] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: str = ""
    _over: threading.Event = field(default_factory=threading.Event)

    @classmethod
    def of(
        cls, settings: Settings, store: Store, run: str, meter: Meter, start_s: Callable[[ModelSpec], float]
    ) -> Budget:
        own = Cap.of(settings, meter.price.machine_usd_per_s)
        monthly = Monthly(Ledger(store), run, settings.monthly_usd, meter) if settings.monthly_usd else None
        return cls(own, monthly, settings.drain_s, settings.max_jobs, meter, start_s)

    def __enter__(self) -> Self:
        """From now on the run lives on what it has reserved of the month. Raises StoreError: then it must not begin."""
        if self.monthly:
            self.monthly.open(self.own.life_s, self.reserve_s)
            threading.Thread(target=self._top_up, args=(self.monthly,), name="monthly", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()

    def settle(self, usd: float) -> None:
        """Say what the run cost of the month's money. A failure must not make it fail: a later run settles it."""
        try:
            if self.monthly:
                self.monthly.settle(usd)
        except StoreError as exc:
            log.warning("run_not_settled", reason=str(exc))

    @property
    def cap(self) -> Cap:
        """The shortest of its limits, as of now."""
        if self.monthly and self.monthly.life_s < self.own.life_s:
            return Cap(self.monthly.life_s, self.monthly.words)
        return self.own

    @property
    def limited(self) -> bool:
        """Must jobs be estimated?"""
        return self.cap.life_s < math.inf

    @property
    def reserve_s(self) -> float:
        """What is set aside for leaving."""
        return self.drain_s + EXIT_S

    def left_s(self) -> float:
        """Seconds that the run may still work before it has to leave; infinite when it may for ever."""
        return self.cap.life_s - self.reserve_s - self.meter.seconds() if self.limited else math.inf

    def spent(self) -> str:
        """Why the run has to leave now; empty when it may stay."""
        if self.left_s() > 0:
            return ""
        return f"{self.cap.words}; after {self.meter.seconds():.1f} s only the time to leave is left. What was not done waits"

    def closed(self, ended: int) -> str:
        """Why the run claims no more; empty when it may. ended: jobs that got their receipts from this run."""
        if self.max_jobs and ended >= self.max_jobs:
            return f"max_jobs: {ended} of {self.max_jobs} jobs have ended"
        return self._closed or self.spent()

    def takes(self, ended: int, under_way: int) -> bool:
        """May one more job be claimed besides those under way?"""
        return not self.max_jobs or ended + under_way < self.max_jobs

    def admit(self, key: object, work: Work, estimate: Estimate) -> None:
        """Raises Preempted for a job that does not fit into what is left, OverLimit for one that fits into no run."""
        with self._lock:
            self._check_any_run(work, estimate)
            begun_s = sum(self.meter.spent_s(each) for each in self._begun)
            loading_s = max(0.0, self.start_s(work.spec) - self.meter.booked_s("start", "import", "load"))
            needs_s = loading_s + max(0.0, pipelined_s([*self._begun.values(), estimate]) - begun_s)
            if needs_s > self.left_s() and not self._gets(needs_s):
                left_s = self.left_s()
                self._closed = (
                    f"{self.cap.words}; the next job would take {needs_s:.1f} s with what is under way, and {max(0.0, left_s):.1f} s"
                    " are left before it has to leave. The job waits for another run"
                )
                raise Preempted(self._closed)
            self._begun[key] = estimate

    def close(self, key: object) -> None:
        """A delivery is settled."""
        with self._lock:
            self._begun.pop(key, None)

    def _gets(self, needs_s: float) -> bool:
        """Is there as much of the month's money left as a job needs, and does the run get it? A block at least, where it can."""
        life_s = self.meter.seconds() + needs_s + self.reserve_s
        if self.monthly is None or life_s > self.own.life_s:
            return False
        self.monthly.reach(min(self.own.life_s, max(life_s, self.monthly.life_s + BLOCK_S)), life_s)
        return life_s <= self.monthly.life_s

    def _top_up(self, monthly: Monthly) -> None:
        """Ask for the next block while the run lives, in time to leave in order if there is none."""
        while not self._over.wait(AGAIN_S):
            if self.left_s() < TOP_UP_S:
                monthly.reach(min(self.own.life_s, monthly.life_s + BLOCK_S))

    def _check_any_run(self, work: Work, estimate: Estimate) -> None:
        whole_s = self.start_s(work.spec) + estimate.seconds + self.reserve_s
        most = self.own
        if self.monthly and self.monthly.most_s < most.life_s:
            most = Cap(self.monthly.most_s, self.monthly.limit_words)
        if whole_s <= most.life_s:
            return
        known = "as earlier runs took" if estimate.basis == "measured" else "a guess: no run has measured it yet"
        raise OverLimit(
            f"{most.words}, but a run for this job alone would take about {whole_s:.1f} s ({known}):"
            f" {self.start_s(work.spec):.1f} s to start, {estimate.seconds:.1f} s for {estimate.keyframes} keyframes and"
            f" {estimate.frames} frames, {self.reserve_s:g} s set aside to leave. Raise the limit, or make the job shorter, then:"
            f" nightreel retry {' '.join(work.request.name)}"
        )
