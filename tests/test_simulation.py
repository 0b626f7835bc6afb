"""Simulated workers, held against a slow simulation; the clairvoyant, held against all plans there are; the bounds."""

from __future__ import annotations

import datetime as dt
import functools
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from nightreel_dispatcher import strategies, wake
from nightreel_dispatcher.clairvoyant import Promise, clairvoyant
from nightreel_dispatcher.simulation import Arrival, Jobs, Outcome, Strategy, simulate
from nightreel_dispatcher.strategies import (
    always_on,
    compare,
    fixed_idle,
    nightly,
    nightreel,
    one_each,
    promise_of,
    steady_workers,
)
from nightreel_dispatcher.traces import BUILT_IN
from nightreel_dispatcher.wake import Policy, Waiting, decide
from nightreel_worker import idle

ROUNDING = 1e-6
ONE = Policy(start_s=1.0, finish_within_s=1e9)  # one worker, and a cold start as the unit of time


def both(jobs: Jobs, policy: Policy) -> tuple[Outcome, Outcome]:
    return simulate(jobs, nightreel(policy)), clairvoyant(jobs, policy.start_s, promise_of(jobs, policy))


def check_books(outcome: Outcome, jobs: Jobs, start_s: float) -> None:
    """Every job was done once, and every second of every worker is start, work or idling."""
    assert outcome.jobs == len(jobs) == len(outcome.waits_s)
    assert outcome.work_s == pytest.approx(math.fsum(job.work_s for job in jobs))
    assert outcome.worker_s == pytest.approx(outcome.starts * start_s + outcome.work_s + outcome.idle_s, rel=1e-9)
    assert outcome.worker_s == pytest.approx(sum(exit_s - began_s for began_s, exit_s in outcome.spans), rel=1e-9)
    assert len(outcome.spans) == outcome.starts
    assert min(outcome.waits_s, default=0) >= 0
    assert outcome.idle_s >= -ROUNDING


# One case after the other


def test_a_worker_takes_what_came_meanwhile_and_leaves() -> None:
    jobs = [Arrival(0, 2), Arrival(3, 5), Arrival(100, 1)]

    outcome = simulate(jobs, nightreel(replace(ONE, max_wait_s=4.0)))

    # Started at 4 and 104, ready a second later.
    assert outcome.spans == [(4, 12), (104, 106)]
    assert list(outcome.waits_s) == [5, 4, 5]
    assert (outcome.starts, outcome.idle_s, outcome.overhead_s) == (2, 0, 2)


def test_a_worker_idles_for_jobs_that_must_not_wait_but_not_beyond_what_a_start_costs() -> None:
    jobs = [Arrival(0, 2), Arrival(3.5, 1), Arrival(4.875, 1), Arrival(20, 1)]

    outcome = simulate(jobs, nightreel(replace(ONE, max_wait_s=0.0)))

    # Idle from 3 to 3.5, from 4.5 to 4.875, and then for the eighth of a second that is left.
    assert outcome.spans[0] == (0, 6)
    assert outcome.spans[1] == (20, 23)
    assert outcome.idle_s == 2


def test_urgent_jobs_go_first_and_are_started_for_at_once() -> None:
    jobs = [Arrival(0, 10), Arrival(1, 10), Arrival(5, 1, urgent=True)]

    outcome = simulate(jobs, nightreel(replace(ONE, max_wait_s=50.0)))

    assert outcome.spans == [(5, 27)]
    assert list(outcome.waits_s) == [1, 7, 16]


def test_those_that_are_always_on_are_paid_until_the_last_job_is_done() -> None:
    jobs = [Arrival(0, 2), Arrival(50, 10), Arrival(51, 3)]

    outcome = simulate(jobs, always_on(1.0, workers=2))

    check_books(outcome, jobs, 1.0)
    assert outcome.spans == [(0, 60), (0, 60)]
    assert outcome.worker_s == 120
    assert list(outcome.waits_s) == [1, 0, 0]


def test_always_on_means_as_many_as_the_trace_needs() -> None:
    assert steady_workers([Arrival(0, 30), Arrival(10, 5)], most=9) == 4
    assert steady_workers([Arrival(0, 30), Arrival(10, 5)], most=2) == 2
    assert steady_workers([Arrival(0, 30)], most=9) == steady_workers([], most=9) == 1


def test_a_fixed_idle_timeout_begins_anew_after_each_job() -> None:
    jobs = [Arrival(0, 1), Arrival(6, 1), Arrival(11, 1), Arrival(30, 1)]

    outcome = simulate(jobs, fixed_idle(ONE, idle_s=5.0))

    assert outcome.spans == [(0, 17), (30, 37)]
    assert outcome.name == "0.0833333-minute idle"


def test_of_several_idle_workers_the_one_that_idled_last_goes_on_so_that_others_leave() -> None:
    jobs = [Arrival(0, 2), Arrival(0, 4), Arrival(8, 1)]
    pair = replace(always_on(1.0, workers=2), idle=lambda idled_s: 6.0)

    # One idles from 3, the other from 5; the second takes the job at 8, and the first leaves at 9.
    assert simulate(jobs, pair).spans == [(0, 9), (0, 15)]


def test_one_execution_per_job_starts_for_each() -> None:
    jobs = [Arrival(0, 2), Arrival(0, 3)]

    outcome = one_each(jobs, 1.0)

    check_books(outcome, jobs, 1.0)
    assert (outcome.starts, outcome.worker_s, list(outcome.waits_s)) == (2, 7, [1, 1])


def test_nightly_waits_for_the_hour_and_for_nothing_else() -> None:
    jobs = [Arrival(3600.0 * hour, 500) for hour in range(24)]

    outcome = simulate(jobs, nightly(replace(ONE, max_wait_s=60.0), dt.time(12)))

    # The job that comes on the stroke of noon, and the one that comes while the worker is busy, are done the same day.
    assert outcome.spans == [(12 * 3600, 12 * 3600 + 1 + 14 * 500), (36 * 3600, 36 * 3600 + 1 + 10 * 500)]


def test_the_simulation_asks_the_functions_that_decide_in_earnest() -> None:
    assert vars(strategies)["decide"] is wake.decide
    assert vars(strategies)["allowance_s"] is idle.allowance_s


def test_a_quantile_is_a_wait_that_occurred() -> None:
    outcome = replace(one_each([Arrival(0, 1)], 1.0), waits_s=[5.0, 1.0, 3.0, 2.0])

    assert [outcome.wait_s(share) for share in (0.0, 0.25, 0.5, 0.51, 0.95, 1.0)] == [1, 1, 2, 3, 5, 5]
    assert replace(outcome, waits_s=[]).wait_s(0.5) == 0


def test_no_jobs_cost_nothing() -> None:
    assert {(outcome.worker_s, outcome.starts) for outcome in compare([], ONE)} == {(0, 0)}


def test_a_trace_that_is_not_in_order_is_refused() -> None:
    with pytest.raises(ValueError, match="job 2 arrives before the one before it: sort the trace by time"):
        simulate([Arrival(5, 1), Arrival(4, 1)], always_on(1.0, 1))


# Against a slow and obvious simulation


@dataclass(slots=True, eq=False)
class Slow:
    """A worker, second by second."""

    began: int
    busy_until: int
    order: int
    idled: int = 0
    """In the gaps that are over."""
    idle_since: int | None = None


def slowly(jobs: Jobs, policy: Policy, patience: int) -> tuple[list[tuple[int, int]], list[float]]:
    """Spans and waits, by looking at everything every second."""
    workers: list[Slow] = []
    waiting: list[Arrival] = []
    spans, waits, numbers, coming, second = [], [], itertools.count(), list(jobs), 0

    def begin(worker: Slow, job: Arrival) -> None:
        waiting.remove(job)
        waits.append(second - job.at_s)
        worker.busy_until, worker.order = second + int(job.work_s), next(numbers)
        worker.idle_since = None

    def ask() -> None:
        oldest = second - min((job.at_s for job in waiting), default=second)
        urgent = sum(job.urgent for job in waiting)
        answer = decide(
            Waiting(len(waiting), sum(job.work_s for job in waiting), oldest, urgent), len(workers), policy, second
        )
        for _ in range(answer.start):
            workers.append(Slow(second, second + int(policy.start_s), next(numbers)))

    while coming or waiting or workers:
        for worker in sorted(workers, key=lambda each: each.order):
            if worker.idle_since is None and worker.busy_until == second:
                if waiting:
                    begin(worker, min(waiting, key=lambda job: (not job.urgent, job.at_s, waiting.index(job))))
                    continue
                worker.idle_since, worker.order = second, next(numbers)
            if worker.idle_since is not None and worker.idled + second - worker.idle_since >= patience:
                workers.remove(worker)
                spans.append((worker.began, second))
        while coming and coming[0].at_s == second:
            waiting.append(coming.pop(0))
            free = [worker for worker in workers if worker.idle_since is not None]
            if free:
                latest = max(free, key=lambda each: each.order)
                latest.idled += second - (latest.idle_since or 0)
                begin(latest, waiting[0])
            else:
                ask()
        if not workers:
            ask()
        second += 1
    return spans, waits


whole_traces = st.lists(
    st.tuples(
        st.sampled_from([0, 0, 1, 1, 2, 5, 9, 20, 41]), st.integers(1, 12), st.sampled_from([False, False, True])
    ),
    min_size=1,
    max_size=14,
).map(lambda rows: arrivals([(float(gap), float(work), urgent) for gap, work, urgent in rows]))


def arrivals(rows: Sequence[tuple[float, float, bool]]) -> Jobs:
    """From (seconds since the job before, work, urgent)."""
    times = itertools.accumulate(gap for gap, _, _ in rows)
    return [Arrival(at_s, work_s, urgent) for at_s, (_, work_s, urgent) in zip(times, rows, strict=True)]


@settings(max_examples=300, deadline=None)
@given(
    whole_traces,
    st.sampled_from([4.0, 10.0]),
    st.sampled_from([0.0, 2.0, 4.0, 8.0, 20.0, 60.0]),
    st.sampled_from([0.1, 0.5]),
    st.sampled_from([(1, 1e9), (3, 12.0)]),
    st.booleans(),
)
def test_the_simulation_does_what_a_slow_and_obvious_one_does(
    jobs: Jobs, start_s: float, max_wait_s: float, share: float, many: tuple[int, float], at_night: bool
) -> None:
    most, within_s = many
    policy = Policy(start_s, share, max_wait_s, within_s, most, dt.time(0, 1) if at_night else None)

    outcome = simulate(jobs, nightreel(policy))

    check_books(outcome, jobs, start_s)
    assert (list(outcome.spans), list(outcome.waits_s)) == slowly(jobs, policy, int(max(0, start_s - max_wait_s)))


@settings(max_examples=200, deadline=None)
@given(whole_traces, st.sampled_from([0.0, 8.0, 60.0]), st.sampled_from([0.1, 0.5]), st.booleans())
def test_the_promise_is_when_a_worker_is_started_while_nobody_works(
    jobs: Jobs, max_wait_s: float, share: float, at_night: bool
) -> None:
    policy = Policy(10.0, share, max_wait_s, nightly=dt.time(0, 1) if at_night else None)

    assert promise_of(jobs, policy)(0) == simulate(jobs, nightreel(policy)).spans[0][0]


# The clairvoyant, against every plan there is


def cheapest(jobs: Jobs, start: int, promise: Promise) -> float:
    """The least cost of starting and idling, over all choices to idle or leave when nothing waits, on whole seconds."""

    @functools.cache
    def stopped(served: int) -> float:
        if served == len(jobs):
            return 0.0
        return start + serve(served, int(promise(served)) + start)

    @functools.cache
    def up(served: int, now: int) -> float:
        if served == len(jobs):
            return 0.0
        leaves = math.inf if jobs[served].at_s <= now else stopped(served)
        return min(leaves, serve(served, now))

    def serve(served: int, now: int) -> float:
        begin = max(now, int(jobs[served].at_s))
        return begin - now + up(served + 1, begin + int(jobs[served].work_s))

    return stopped(0)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 14), st.integers(1, 9), st.sampled_from([False, False, False, True])), min_size=1, max_size=8),
    st.sampled_from([1, 3, 5]),
    st.sampled_from([0.0, 2.0, 4.0, 8.0]),
    st.sampled_from([0.2, 0.5]),
)  # fmt: skip
@example([(0, 1, False), (13, 1, False), (11, 1, False)], 3, 8.0, 0.2)  # to be dearer and later pays
def test_no_plan_of_all_that_keep_the_promise_is_cheaper_than_the_clairvoyants(
    rows: list[tuple[int, int, bool]], start: int, max_wait_s: float, share: float
) -> None:
    jobs = arrivals([(float(gap), float(work), urgent) for gap, work, urgent in rows])
    policy = Policy(float(start), share, max_wait_s)
    promise = promise_of(jobs, policy)

    outcome = clairvoyant(jobs, float(start), promise)

    check_books(outcome, jobs, float(start))
    whole = functools.partial(cheapest, jobs, start)
    assert outcome.overhead_s == whole(lambda index: math.floor(promise(index)))


# What is claimed

PATIENCE = (0.0, 0.1, 0.3, 0.5, 0.9, 1.0, 1.5, 2.0, 3.0, 10.0, 50.0)


@dataclass(frozen=True, slots=True)
class Adversary:
    """A policy and a trace that is made to hurt it: jobs that come just after the worker has left."""

    policy: Policy
    jobs: Jobs


@st.composite
def adversaries(draw: st.DrawFn) -> Adversary:
    policy = replace(
        ONE, start_share=draw(st.sampled_from([0.1, 0.3, 0.5])), max_wait_s=draw(st.sampled_from(PATIENCE))
    )
    patience, worth = policy.max_wait_s, policy.worth_s
    gaps = [0.0, 0.001, 0.01, 0.99, 1.001, 1.01, patience * 0.9, patience + 1.01, policy.collect_s + 1.01]
    works = [0.001, 0.1, 1.0, worth / 2, worth * 0.99, worth]
    rows = draw(
        st.lists(
            st.tuples(
                st.one_of(st.sampled_from(gaps), st.floats(0, 3 + 2 * patience)),
                st.one_of(st.sampled_from(works), st.floats(0.001, 2 * worth)),
                st.booleans(),  # does the gap count from the time at which all before could be done?
            ),
            min_size=1,
            max_size=30,
        )
    )
    jobs: list[Arrival] = []
    done_s = 0.0
    for gap, work, after in rows:
        last_s = jobs[-1].at_s if jobs else 0.0
        at_s = max(last_s, done_s) + gap if after else last_s + gap
        done_s = max(done_s, at_s + policy.collect_s + policy.start_s) + work
        jobs.append(Arrival(at_s, work))
    return Adversary(policy, jobs)


def ladder(policy: Policy) -> Jobs:
    """A trace on which a clairvoyant works off what it let wait, while the rule leaves and comes again.

    A tiny job, for which the clairvoyant idles a moment; a large one that comes while the rule's worker is up and the
    clairvoyant's is not; then others, each worth a start, just after the rule's worker has left.
    """
    jobs = [Arrival(0.0, 0.001)]
    for _ in range(10):
        jobs.append(Arrival(simulate(jobs, nightreel(policy)).spans[-1][1] + 0.001, 0.001))
        ready_s = simulate(jobs, nightreel(policy)).spans[-1][0] + policy.start_s
        jobs.append(Arrival(ready_s, policy.worth_s * 0.99))
        for _ in range(5):
            jobs.append(Arrival(simulate(jobs, nightreel(policy)).spans[-1][1] + 0.001, policy.worth_s))
    return jobs


class Hasty(Policy):
    """A backlog that is worth a start is let grow only for as long as a start takes."""

    @property
    def collect_s(self) -> float:
        return min(self.start_s, self.max_wait_s)


@settings(max_examples=300, deadline=None)
@given(adversaries())
@example(Adversary(replace(ONE, max_wait_s=10.0), ladder(replace(ONE, max_wait_s=10.0))))
@example(  # 1 s of work is just worth a start, unless rounding has taken something off
    Adversary(
        Policy(1.0, 0.5, 2.0, 1e9),
        [
            Arrival(0.0, 0.5),
            Arrival(2.5, 1.601633324236179),
            Arrival(6.101633324236179, 1.0),
            Arrival(9.101633324236179, 0.001),
            Arrival(10.101633324236179, 0.001),
        ],
    )
)
def test_starting_and_idling_cost_at_most_twice_the_clairvoyants(case: Adversary) -> None:
    ours, least = both(case.jobs, case.policy)

    check_books(ours, case.jobs, 1.0)
    check_books(least, case.jobs, 1.0)
    assert least.overhead_s <= ours.overhead_s + ROUNDING
    assert ours.overhead_s <= 2 * least.overhead_s + ROUNDING


def test_less_waiting_for_company_would_break_that_bound() -> None:
    hasty = Hasty(start_s=1.0, max_wait_s=10.0, finish_within_s=1e9)
    ours, least = both(ladder(hasty), hasty)

    assert ours.overhead_s > 2.5 * least.overhead_s


def test_the_bound_is_reached() -> None:
    """Jobs that must not wait and come just after the worker has left."""
    jobs = [Arrival(3.01 * number, 0.001) for number in range(50)]
    ours, least = both(jobs, replace(ONE, max_wait_s=0.0))

    assert ours.overhead_s == pytest.approx(2 * least.overhead_s, rel=0.02)


def patient(policy: Policy, patience: Sequence[float]) -> Strategy:
    """Starts as promised, and idles as long as somebody has drawn."""
    drawn = itertools.cycle(patience)
    return replace(nightreel(policy), idle=lambda idled_s: next(drawn))


@settings(max_examples=150, deadline=None)
@given(whole_traces, st.sampled_from([0.0, 3.0, 8.0, 40.0]), st.lists(st.floats(0, 30), min_size=1))
def test_the_clairvoyant_is_never_dearer_than_one_who_keeps_the_promise(
    jobs: Jobs, max_wait_s: float, patience: list[float]
) -> None:
    policy = Policy(8.0, 0.5, max_wait_s)
    least = clairvoyant(jobs, 8.0, promise_of(jobs, policy))

    for strategy in (patient(policy, patience), nightreel(policy)):
        outcome = simulate(jobs, strategy)
        check_books(outcome, jobs, 8.0)
        assert least.overhead_s <= outcome.overhead_s + ROUNDING


@settings(max_examples=100, deadline=None)
@given(whole_traces, st.lists(st.floats(0, 30), min_size=1), st.integers(1, 4))
def test_the_books_of_the_others_are_right_too(jobs: Jobs, patience: list[float], workers: int) -> None:
    policy = Policy(8.0, 0.5, 40.0, 20.0, max_workers=workers)

    for outcome in compare(jobs, policy):
        check_books(outcome, jobs, 8.0)
    check_books(simulate(jobs, patient(policy, patience)), jobs, 8.0)
    check_books(simulate(jobs, always_on(8.0, workers)), jobs, 8.0)


@settings(max_examples=100, deadline=None)
@given(adversaries())
def test_jobs_are_served_in_the_order_in_which_they_came(case: Adversary) -> None:
    waits = simulate(case.jobs, nightreel(case.policy)).waits_s
    begins = [job.at_s + wait_s for job, wait_s in zip(case.jobs, waits, strict=True)]

    for job, began_s, next_s in zip(case.jobs, begins, begins[1:], strict=False):
        assert next_s >= began_s + job.work_s - ROUNDING


@settings(max_examples=100, deadline=None)
@given(adversaries())
def test_a_worker_is_ready_for_every_job_within_its_patience_and_a_start(case: Adversary) -> None:
    """Beyond that a job waits for those before it, and only for them."""
    outcome = simulate(case.jobs, nightreel(case.policy))

    free_s = -math.inf
    for job, wait_s in zip(case.jobs, outcome.waits_s, strict=True):
        assert job.at_s + wait_s <= max(free_s, job.at_s + case.policy.max_wait_s + 1.0) + ROUNDING
        free_s = job.at_s + wait_s + job.work_s


@pytest.mark.parametrize("name", BUILT_IN)
def test_with_ten_starts_of_slack_the_whole_cost_is_within_15_percent_of_the_clairvoyants(name: str) -> None:
    jobs = BUILT_IN[name]()
    policy = Policy(75.0, max_wait_s=750.0, max_workers=64 if name == "launch" else 5)
    ours, least = both(jobs, policy)

    check_books(ours, jobs, 75.0)
    assert least.worker_s <= ours.worker_s <= 1.15 * least.worker_s
