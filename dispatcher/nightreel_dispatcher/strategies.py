"""How people run GPU workers: Nightreel's way, and those that it is compared with."""

from __future__ import annotations

import datetime as dt
import math
from collections.abc import Callable
from dataclasses import replace

from nightreel_worker.idle import allowance_s

from .clairvoyant import Promise, clairvoyant
from .simulation import Jobs, Outcome, Strategy, simulate
from .wake import Decision, Policy, Waiting, decide

FIXED_IDLE_S = 300.0
NIGHT = dt.time(2)


def compare(jobs: Jobs, policy: Policy) -> tuple[Outcome, ...]:
    """The clairvoyant, Nightreel, and the others, with as many workers as the policy allows where it makes sense."""
    return (
        clairvoyant(jobs, policy.start_s, promise_of(jobs, policy)),
        simulate(jobs, nightreel(policy)),
        simulate(jobs, fixed_idle(policy, FIXED_IDLE_S)),
        one_each(jobs, policy.start_s),
        simulate(jobs, always_on(policy.start_s, steady_workers(jobs, policy.max_workers))),
        simulate(jobs, nightly(policy, policy.nightly or NIGHT)),
    )


def nightreel(policy: Policy) -> Strategy:
    """Start when it is worth it, stop when waiting has cost as much as it can save."""

    def idle(idled_s: float) -> float:
        return allowance_s(policy.start_s, policy.max_wait_s) - idled_s

    return Strategy("nightreel", policy.start_s, _deciding(policy), idle)


def always_on(start_s: float, workers: int) -> Strategy:
    """The same workers from the first job to the last."""

    def wake(waiting: Waiting, running: int, now_s: float) -> Decision:
        return Decision(workers - running, "a job came", math.inf)

    return Strategy("always on", start_s, wake, lambda idled_s: math.inf)


def steady_workers(jobs: Jobs, most: int) -> int:
    """How many workers do a trace's work in the time in which it comes."""
    time_s = jobs[-1].at_s - jobs[0].at_s if jobs else 0.0
    work_s = math.fsum(job.work_s for job in jobs)
    return min(most, math.ceil(work_s / time_s)) if time_s and work_s else 1


def fixed_idle(policy: Policy, idle_s: float) -> Strategy:
    """Workers start for the first job that comes, and leave when nothing has come for a while."""
    wake = _deciding(replace(policy, max_wait_s=0.0, nightly=None))
    return Strategy(f"{idle_s / 60:g}-minute idle", policy.start_s, wake, lambda idled_s: idle_s)


def nightly(policy: Policy, at: dt.time) -> Strategy:
    """Whatever came during the day is rendered at one hour."""
    policy = replace(policy, max_wait_s=math.inf, nightly=at)
    return replace(nightreel(policy), name=f"nightly at {at:%H:%M}")


def one_each(jobs: Jobs, start_s: float) -> Outcome:
    """An execution for each job, all at once if need be: what a function call for each message does."""
    work_s = math.fsum(job.work_s for job in jobs)
    spans = [(job.at_s, job.at_s + start_s + job.work_s) for job in jobs]
    return Outcome("one execution per job", len(jobs), len(jobs), work_s + start_s * len(jobs), work_s, 0.0,
                   [start_s] * len(jobs), spans)  # fmt: skip


def promise_of(jobs: Jobs, policy: Policy) -> Promise:
    """When the wake rule starts a worker for job `first` and those that come after it, while nobody works."""

    def promise(first: int) -> float:
        begun_s, work_s, urgent, index = jobs[first].at_s, 0.0, 0, first
        now_s = begun_s
        while True:
            while index < len(jobs) and jobs[index].at_s <= now_s:
                work_s += jobs[index].work_s
                urgent += jobs[index].urgent
                index += 1
            decision = decide(Waiting(index - first, work_s, now_s - begun_s, urgent), 0, policy, now_s)
            if decision.start:
                return now_s
            next_s = jobs[index].at_s if index < len(jobs) else math.inf
            now_s = min(next_s, max(now_s + decision.look_again_s, math.nextafter(now_s, math.inf)))

    return promise


def _deciding(policy: Policy) -> Callable[[Waiting, int, float], Decision]:
    def wake(waiting: Waiting, running: int, now_s: float) -> Decision:
        return decide(waiting, running, policy, now_s)

    return wake
