"""The least that starting and idling can cost one worker that is started by the wake rule: the plan of one who knows all.

It keeps the promise that the wake rule makes: whenever nobody works, a worker is started when the rule would start one for
what waits. It works until nothing waits; then it may idle for as long as it likes, or leave at once. Time spent on work is
the same for everyone.

After serving the first i jobs it has two choices: idle until job i+1 arrives, or stop and start again at the promised time.
What follows depends on i and the choice alone, except for the time at which job i was done; so the least cost is found by
walking through the jobs once, keeping for each i the few pairs of cost and time of which none is worse in both.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from .simulation import Jobs, Outcome

Promise = Callable[[int], float]
"""Index of the first job that waits, nobody working -> the time at which a worker is started for it and those after it."""


@dataclass(frozen=True, slots=True)
class _Way:
    """A way to have served the first so many jobs."""

    cost_s: float
    """Starting and idling up to now."""
    done_s: float
    started_s: float
    """Of the worker that is up."""
    stopped: _Way | None
    """What it was when the worker before that one stopped."""


def clairvoyant(jobs: Jobs, start_s: float, promise: Promise) -> Outcome:
    """The cheapest plan for this trace. Jobs are served in their order, urgent ones too; the cost does not depend on it."""
    ways: dict[int, list[_Way]] = {}
    if jobs:
        _restart(ways, jobs, 0, None, promise(0), start_s)
    for index in range(1, len(jobs)):
        arrival_s = jobs[index].at_s
        for way in ways.pop(index, ()):
            served, done_s = _serve(jobs, index, arrival_s)
            cost_s = way.cost_s + arrival_s - way.done_s
            _keep(ways.setdefault(served, []), _Way(cost_s, done_s, way.started_s, way.stopped))
            _restart(ways, jobs, index, way, promise(index), start_s)
    best = min(ways.get(len(jobs), ()), key=lambda way: way.cost_s, default=None)
    spans = list(_spans(best))[::-1]
    work_s = math.fsum(job.work_s for job in jobs)
    cost_s = best.cost_s if best else 0.0
    return Outcome(
        "clairvoyant", len(jobs), len(spans), work_s + cost_s, work_s, cost_s - start_s * len(spans),
        list(_waits(jobs, spans, start_s)), spans,
    )  # fmt: skip


def _serve(jobs: Jobs, index: int, at_s: float) -> tuple[int, float]:
    """Work from job `index` on until nothing waits: how many jobs are served then, and when."""
    while index < len(jobs) and jobs[index].at_s <= at_s:
        at_s += jobs[index].work_s
        index += 1
    return index, at_s


def _restart(
    ways: dict[int, list[_Way]], jobs: Jobs, index: int, before: _Way | None, begun_s: float, start_s: float
) -> None:
    served, done_s = _serve(jobs, index, begun_s + start_s)
    _keep(ways.setdefault(served, []), _Way((before.cost_s if before else 0.0) + start_s, done_s, begun_s, before))


def _keep(known: list[_Way], new: _Way) -> None:
    """Note a way to have served so many jobs; of two equally dear ones the later is better: less idling follows."""
    if any(way.cost_s <= new.cost_s and way.done_s >= new.done_s for way in known):
        return
    known[:] = [way for way in known if not (new.cost_s <= way.cost_s and new.done_s >= way.done_s)]
    known.append(new)


def _spans(way: _Way | None) -> Iterator[tuple[float, float]]:
    """Start and exit of each worker, the last one first."""
    while way:
        yield way.started_s, way.done_s
        way = way.stopped


def _waits(jobs: Jobs, spans: list[tuple[float, float]], start_s: float) -> Iterator[float]:
    index = 0
    for began_s, exit_s in spans:
        at_s = began_s + start_s
        while index < len(jobs) and jobs[index].at_s <= exit_s:
            at_s = max(at_s, jobs[index].at_s)
            yield at_s - jobs[index].at_s
            at_s += jobs[index].work_s
            index += 1
