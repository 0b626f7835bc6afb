"""What ways to wake workers would cost on four made-up traces, with charts; and how long a million jobs take to simulate.

python bench/simulate.py
"""

from __future__ import annotations

import random
import time

from common import DOCS, Table, arguments, count, publish, spread

from nightreel_dispatcher.chart import chart, lasting
from nightreel_dispatcher.clairvoyant import clairvoyant
from nightreel_dispatcher.simulation import Arrival, Jobs, Outcome, simulate
from nightreel_dispatcher.strategies import compare, nightreel, promise_of
from nightreel_dispatcher.traces import BUILT_IN
from nightreel_dispatcher.wake import Policy

PAGE = DOCS.parent / "explanation" / "waking.md"
IMAGES = DOCS.parent / "images"
USD_PER_HOUR = 1.42
MANY, FEW = 1_000_000, 10_000
POLICIES = {
    "nightly": Policy(75.0, max_workers=5),
    "office": Policy(75.0, max_workers=5),
    "poisson": Policy(75.0, max_workers=5),
    "launch": Policy(75.0, max_workers=64),
}
SAID = {
    "nightly": "nightly bursts: a week, a manifest of 100 to 300 jobs each evening, a few single ones by day",
    "office": "office hours: a job every three minutes from 9 to 17 on five days, fewer at noon",
    "poisson": "Poisson: a job every five minutes on average, for a week",
    "launch": "a launch day: 100,000 jobs, half of them from 10:00 on and fading, up to 64 workers",
}


def main() -> None:
    asked = arguments("What waking workers this way or that would cost.").parse_args()
    names = ["office"] if asked.quick else list(BUILT_IN)
    if asked.docs is None and not asked.quick:
        asked.docs = PAGE
    tables = [_strategies(name, draw=asked.docs == PAGE) for name in names]
    tables.append(_million(FEW if asked.quick else MANY, asked.rounds or (1 if asked.quick else 3)))
    publish("simulate", tables, asked)


def picture(name: str, jobs: Jobs, outcomes: tuple[Outcome, ...]) -> str:
    return chart(f"{name}: {len(jobs):,} jobs", jobs, outcomes, USD_PER_HOUR)


def _strategies(name: str, draw: bool) -> Table:
    jobs, policy = BUILT_IN[name](), POLICIES[name]
    outcomes = compare(jobs, policy)
    if draw:
        (IMAGES / f"waking-{name}.svg").write_text(picture(name, jobs, outcomes), encoding="utf-8")
    work_h = sum(job.work_s for job in jobs) / 3600
    return Table(
        SAID[name][0].upper() + SAID[name][1:],
        ("strategy", "$ per video", "whole cost", "start and idle", "starts", "GPU h", "idle h", "waiting p50", "p95"),
        tuple(_row(outcome, outcomes[0]) for outcome in outcomes),
        (
            f"{len(jobs):,} jobs with {work_h:,.1f} h of work. Whole cost, and starting and idling: times the clairvoyant's.",
        ),
    )


def _row(outcome: Outcome, least: Outcome) -> tuple[str, ...]:
    return (
        outcome.name,
        f"{outcome.worker_s / 3600 * USD_PER_HOUR / outcome.jobs:.4f}",
        f"{outcome.worker_s / least.worker_s:.3f}",
        f"{outcome.overhead_s / least.overhead_s:,.2f}",
        f"{outcome.starts:,}",
        f"{outcome.worker_s / 3600:,.1f}",
        f"{outcome.idle_s / 3600:,.1f}",
        lasting(outcome.wait_s(0.5)),
        lasting(outcome.wait_s(0.95)),
    )


def _million(jobs: int, rounds: int) -> Table:
    """CPU time, not wall time: other programs on the machine do not count."""
    policy = Policy(75.0, max_workers=20)
    ours, least = [], []
    for number in range(rounds):
        trace = _poisson(jobs, random.Random(number))
        began_s = time.process_time()
        simulate(trace, nightreel(policy))
        ours.append(time.process_time() - began_s)
        began_s = time.process_time()
        clairvoyant(trace, policy.start_s, promise_of(trace, policy))
        least.append(time.process_time() - began_s)
    return Table(
        f"How long {jobs:,} jobs take to simulate",
        ("what", "CPU seconds"),
        (("the wake rule and up to 20 workers", spread(ours, 1)), ("the clairvoyant", spread(least, 1))),
        (f"A job every eight seconds on average. Medians of {count(range(rounds))}, least and greatest in brackets.",),
    )


def _poisson(jobs: int, rnd: random.Random) -> Jobs:
    at_s, trace = 0.0, []
    for _ in range(jobs):
        at_s += rnd.expovariate(1 / 8)
        trace.append(Arrival(at_s, rnd.uniform(20, 60)))
    return trace


if __name__ == "__main__":
    main()
