"""What one run may spend: dollars, seconds, jobs. Hard limits, from the process's start to its exit.

All limits of money and time are one: seconds that the process may live. Of these the drain's are set aside, so rendering
stops before, and the run leaves as after SIGTERM: what is not committed goes back to the queue, and its keyframes are kept.
So that this stays the exception, a job is only begun that is estimated to fit into what is left. One that does not goes
back, and the run claims no more; one that no new run could hold fails, for it would come back for ever.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from nightreel_pipelines.models import ModelSpec

from .admission import Work
from .errors import OverLimit, Preempted
from .estimate import Estimate, pipelined_s
from .meter import Meter
from .settings import Settings

EXIT_S = 2.0  # that a process may take to be gone when its drain is over, on a busy machine
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

    cap: Cap
    drain_s: float
    max_jobs: int
    """0: any number."""
    meter: Meter
    start_s: Callable[[ModelSpec], float]
    """Seconds from a worker's start until it renders with a model."""
    _begun: dict[object, Estimate] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _closed: str = ""

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
            if needs_s > (left_s := self.left_s()):
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

    def _check_any_run(self, work: Work, estimate: Estimate) -> None:
        whole_s = self.start_s(work.spec) + estimate.seconds + self.reserve_s
        if whole_s <= self.cap.life_s:
            return
        known = "as earlier runs took" if estimate.basis == "measured" else "a guess: no run has measured it yet"
        raise OverLimit(
            f"{self.cap.words}, but a run for this job alone would take about {whole_s:.1f} s ({known}):"
            f" {self.start_s(work.spec):.1f} s to start, {estimate.seconds:.1f} s for {estimate.keyframes} keyframes and"
            f" {estimate.frames} frames, {self.reserve_s:g} s set aside to leave. Raise the limit, or make the job shorter, then:"
            f" nightreel retry {' '.join(work.request.name)}"
        )
