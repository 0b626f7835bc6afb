"""The least that starting and idling can cost: what a worker would pay that knows all arrivals beforehand.

It keeps the promise that the wake rule makes: whenever nobody works, a worker is started no later than the rule would start
one for what waits. It may keep a worker idle for as long as it likes, or stop it at once. Time spent on work is the same
for everyone. Any number of workers costs no less than one, and starting one earlier than promised never saves anything:
whatever it would have done meanwhile, it does later in the same go, and in company.

After serving the first i jobs it has two choices: idle until job i+1 arrives, or stop and start again at the promised time.
What follows depends on i and the choice alone, except for the time at which job i was done; so the least cost is found by
walking through the jobs once, keeping for each i the few pairs of cost and time of which none is worse in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from .simulation import Jobs, Outcome

Promise = Callable[[int], float]
"""Index of the first job that waits, nobody working -> the time at which a worker is started for it and those after it."""


def clairvoyant(jobs: Jobs, start_s: float, promise: Promise) -> Outcome:
    """The cheapest that any one strategy could be on this trace. Its waits are not told: it is a bound, not a plan."""
    total_s = math.fsum(work for _, work in jobs)
    reached: dict[int, list[tuple[float, float]]] = {}
    if jobs:
        begun_s = promise(0)
        _reach(reached, *_serve(jobs, 0, begun_s + start_s), start_s)
    index, least_s = 0, math.inf if jobs else 0.0
    while index < len(jobs):
        index += 1
        for cost_s, done_s in reached.pop(index, ()):
            if index == len(jobs):
                least_s = min(least_s, cost_s)
                continue
            arrival_s = jobs[index][0]
            _reach(reached, *_serve(jobs, index, arrival_s), cost_s + arrival_s - done_s)
            _reach(reached, *_serve(jobs, index, promise(index) + start_s), cost_s + start_s)
    return Outcome("clairvoyant", len(jobs), 0, total_s + least_s, total_s, 0.0, ())


def _serve(jobs: Jobs, index: int, at_s: float) -> tuple[int, float]:
    """Work from job `index` on until nothing waits: how many jobs are served then, and when."""
    while index < len(jobs) and jobs[index][0] <= at_s:
        at_s += jobs[index][1]
        index += 1
    return index, at_s


def _reach(reached: dict[int, list[tuple[float, float]]], index: int, done_s: float, cost_s: float) -> None:
    """Note a way to have served `index` jobs; later is better, because less idling follows."""
    known = reached.setdefault(index, [])
    if any(cost <= cost_s and done >= done_s for cost, done in known):
        return
    known[:] = [(cost, done) for cost, done in known if not (cost_s <= cost and done_s >= done)]
    known.append((cost_s, done_s))
