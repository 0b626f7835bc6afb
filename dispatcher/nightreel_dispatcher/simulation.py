"""A virtual clock for arrivals and workers: what a policy would have cost, and how long jobs would have waited.

Decisions are made by the functions that decide in earnest: `wake.decide` and `nightreel_worker.idle.allowance_s`. A worker
here is one that is ready `start_s` after its start, takes urgent jobs before others and else the oldest, and works as long
as each says. Of several idle workers the one that idled last gets the next job, so that the others may leave.
"""

from __future__ import annotations

import heapq
import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from .wake import Decision, Waiting


class Arrival(NamedTuple):
    """One job of a trace."""

    at_s: float
    """When it came; seconds since the epoch, where a nightly hour matters."""
    work_s: float
    """How long a worker that is ready needs for it."""
    urgent: bool = False


Jobs = Sequence[Arrival]
"""A trace, by arrival."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """How somebody runs workers."""

    name: str
    start_s: float
    wake: Callable[[Waiting, int, float], Decision]
    """(what waits, workers running, now) -> what to do."""
    idle: Callable[[float], float]
    """Seconds that a worker has idled in earlier gaps -> how many more it waits in this one."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a trace."""

    name: str
    jobs: int
    starts: int
    worker_s: float
    """All seconds of all workers, from start to exit: what is paid for."""
    work_s: float
    idle_s: float
    waits_s: Sequence[float] = field(repr=False)
    """From each job's arrival to its begin, in the order of the begins."""
    spans: Sequence[tuple[float, float]] = field(default=(), repr=False)
    """(start, exit) of each worker."""

    @property
    def overhead_s(self) -> float:
        """Starting and idling: what a policy can save."""
        return self.worker_s - self.work_s

    @property
    def start_s(self) -> float:
        """All starts together."""
        return self.overhead_s - self.idle_s

    def wait_s(self, share: float) -> float:
        """A quantile of the waits: at least this share of the jobs waited no longer."""
        if not self.waits_s:
            return 0.0
        ordered = sorted(self.waits_s)
        return ordered[min(len(ordered) - 1, max(0, math.ceil(share * len(ordered)) - 1))]


@dataclass(slots=True, eq=False)
class _Worker:
    started_s: float
    idled_s: float = 0.0
    idle_since_s: float = 0.0
    idle: bool = False
    event: int = 0
    """Number of its pending event; older ones are void."""


def simulate(jobs: Jobs, strategy: Strategy) -> Outcome:
    """Replay a trace. Raises ValueError for one that is not in order."""
    return _Simulation(jobs, strategy).run()


class _Simulation:
    def __init__(self, jobs: Jobs, strategy: Strategy) -> None:
        self._jobs, self._strategy = jobs, strategy
        self._next = 0
        self._waiting: deque[Arrival] = deque()
        self._urgent: deque[Arrival] = deque()
        self._waiting_work_s = 0.0
        self._events: list[tuple[float, int, _Worker]] = []
        self._idle: list[_Worker] = []
        self._running = self._starts = self._numbers = 0
        self._worker_s = self._idle_s = self._work_s = 0.0
        self._look_s = math.inf
        self._waits: list[float] = []
        self._spans: list[tuple[float, float]] = []

    def run(self) -> Outcome:
        last_s = -math.inf
        while (now_s := min(self._arrival_s(), self._event_s(), self._look_s)) < math.inf:
            if now_s < last_s:
                raise ValueError(f"job {self._next + 1} arrives before the one before it: sort the trace by time")
            last_s = now_s
            if self._event_s() == now_s:  # workers first: one that becomes free may take the job that arrives
                self._step(heapq.heappop(self._events), now_s)
            elif self._arrival_s() == now_s:
                self._arrive(now_s)
            else:
                self._decide(now_s)
        end_s = max((worker.idle_since_s for worker in self._idle), default=0.0)
        for worker in tuple(self._idle):  # endless patience ends with the last job
            self._exit(worker, end_s)
        return Outcome(
            self._strategy.name, len(self._waits), self._starts, self._worker_s, self._work_s, self._idle_s,
            self._waits, self._spans,
        )  # fmt: skip

    def _arrival_s(self) -> float:
        return self._jobs[self._next].at_s if self._next < len(self._jobs) else math.inf

    def _event_s(self) -> float:
        return self._events[0][0] if self._events else math.inf

    def _arrive(self, now_s: float) -> None:
        job = self._jobs[self._next]
        self._next += 1
        (self._urgent if job.urgent else self._waiting).append(job)
        self._waiting_work_s += job.work_s
        if self._idle:
            worker = self._idle.pop()
            worker.idle = False
            worker.idled_s += now_s - worker.idle_since_s
            self._take(worker, now_s)
        else:
            self._decide(now_s)

    def _decide(self, now_s: float) -> None:
        heads = [line[0].at_s for line in (self._waiting, self._urgent) if line]
        jobs, urgent = len(self._waiting) + len(self._urgent), len(self._urgent)
        waiting = Waiting(jobs, max(0.0, self._waiting_work_s), now_s - min(heads, default=now_s), urgent)
        decision = self._strategy.wake(waiting, self._running, now_s)
        for _ in range(decision.start):
            self._starts += 1
            self._running += 1
            self._later(now_s + self._strategy.start_s, _Worker(now_s))
        self._look_s = max(now_s + decision.look_again_s, math.nextafter(now_s, math.inf))

    def _step(self, event: tuple[float, int, _Worker], now_s: float) -> None:
        _, number, worker = event
        if number != worker.event:
            return
        if worker.idle:
            self._exit(worker, now_s)
        else:
            self._take(worker, now_s)

    def _take(self, worker: _Worker, now_s: float) -> None:
        if line := self._urgent or self._waiting:
            arrival_s, work_s, _ = line.popleft()
            self._waiting_work_s -= work_s
            self._waits.append(now_s - arrival_s)
            self._work_s += work_s
            self._later(now_s + work_s, worker)
            return
        self._waiting_work_s = 0.0  # what rounding has left could miss a threshold
        worker.idle, worker.idle_since_s = True, now_s
        more_s = self._strategy.idle(worker.idled_s)
        self._idle.append(worker)
        if more_s <= 0:
            self._exit(worker, now_s)
        elif more_s < math.inf:
            self._later(now_s + more_s, worker)

    def _exit(self, worker: _Worker, now_s: float) -> None:
        self._idle.remove(worker)
        worker.event = -1
        worker.idled_s += now_s - worker.idle_since_s
        self._idle_s += worker.idled_s
        self._worker_s += now_s - worker.started_s
        self._spans.append((worker.started_s, now_s))
        self._running -= 1

    def _later(self, at_s: float, worker: _Worker) -> None:
        self._numbers += 1
        worker.event = self._numbers
        heapq.heappush(self._events, (at_s, self._numbers, worker))
