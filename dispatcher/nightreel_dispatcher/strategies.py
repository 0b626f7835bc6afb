"""How people run GPU workers: Nightreel's way, and those that it is compared with."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import replace

from nightreel_worker.idle import allowance_s

from .clairvoyant import Promise
from .simulation import Jobs, Outcome, Strategy
from .wake import Decision, Policy, Waiting, decide


def nightreel(policy: Policy) -> Strategy:
    """Start when it is worth it, stop when waiting has cost as much as it can save."""

    def wake(waiting: Waiting, running: int, now_s: float) -> Decision:
        return decide(waiting, running, policy, now_s)

    def idle(idled_s: float) -> float:
        return allowance_s(policy.start_s, policy.max_wait_s) - idled_s

    return Strategy("nightreel", policy.start_s, wake, idle)


def always_on(start_s: float) -> Strategy:
    """One worker from the first job to the last."""
    return Strategy("always on", start_s, _one_at_once, lambda idled_s: math.inf)


def fixed_idle(start_s: float, idle_s: float) -> Strategy:
    """A worker for the first job that comes; it leaves when nothing has come for a while."""
    minutes = f"{idle_s / 60:g}-minute idle"
    return Strategy(minutes, start_s, _one_at_once, lambda idled_s: idle_s)


def nightly(start_s: float, at: dt.time, zone: str) -> Strategy:
    """Whatever came during the day is rendered at one hour."""
    policy = Policy(start_s, start_share=1e-9, max_wait_s=math.inf, nightly=at, zone=zone)
    return replace(nightreel(policy), name=f"nightly at {at:%H:%M}")


def one_each(jobs: Jobs, start_s: float) -> Outcome:
    """An execution for each job, all at once if need be: what a function call for each message does."""
    work_s = math.fsum(work for _, work in jobs)
    spans = tuple((arrival, arrival + start_s + work) for arrival, work in jobs)
    return Outcome("one execution a job", len(jobs), len(jobs), work_s + start_s * len(jobs), work_s, 0.0,
                   [start_s] * len(jobs), spans)  # fmt: skip


def promise_of(jobs: Jobs, policy: Policy) -> Promise:
    """When the wake rule starts a worker for job `first` and those that come after it, while nobody works."""

    def promise(first: int) -> float:
        begun_s, work_s, index = jobs[first][0], 0.0, first
        now_s = begun_s
        while True:
            while index < len(jobs) and jobs[index][0] <= now_s:
                work_s += jobs[index][1]
                index += 1
            decision = decide(Waiting(index - first, work_s, now_s - begun_s), 0, policy, now_s)
            if decision.start:
                return now_s
            next_s = jobs[index][0] if index < len(jobs) else math.inf
            now_s = min(next_s, max(now_s + decision.look_again_s, math.nextafter(now_s, math.inf)))

    return promise


def _one_at_once(waiting: Waiting, running: int, now_s: float) -> Decision:
    start = 1 if waiting.jobs and not running else 0
    return Decision(start, "something waits", math.inf)
