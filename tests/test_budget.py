"""What one run may spend, and all runs of a month: dollars, seconds, jobs; drain and exit included. Real workers."""

from __future__ import annotations

import math
import random
import sys
import time
from collections.abc import Callable, Sequence

import pytest
from far import hooked
from house import House, Run, at_once, finish, job, verdict
from hypothesis import given
from hypothesis import strategies as st

from nightreel_worker.budget import EXIT_S, TASK_MARGIN_S, Cap
from nightreel_worker.settings import Settings

WORK = (sys.executable, "-m", "nightreel", "work")
LEAVES_S = 4.0  # the drain of these workers
DOLLAR_A_SECOND = "3600"
LONG = "slow"  # prompts that take ten seconds each, where half a second was measured
LATE = """
import os, signal, threading, time
from nightreel_worker.worker import Worker
leave, run = Worker._leave, Worker.run
def leave_late(worker):
    while not worker.budget.spent():
        time.sleep(0.02)
    leave(worker)
def run_watched(worker):
    def strike():
        while worker.budget.left_s() > 1.0:
            time.sleep(0.02)
        os.kill(os.getpid(), signal.SIGTERM)
    threading.Thread(target=strike, daemon=True).start()
    return run(worker)
Worker._leave, Worker.run = leave_late, run_watched
"""
"""SIGTERM comes a second before the budget is spent, and the drain begins when it is."""


def measured(house: House) -> None:
    """Let a run measure half a second a keyframe."""
    house.enqueue(job("measured", "half a second m"))
    assert house.work_calmly().code == 0


# The shortest limit counts


def test_without_limits_a_run_may_last_for_ever() -> None:
    assert Cap.of(Settings(), usd_per_s=1.0).life_s == math.inf


def test_dollars_are_seconds_at_the_machines_price_and_none_where_it_costs_nothing() -> None:
    settings = Settings(max_cost_usd=0.5)

    assert Cap.of(settings, usd_per_s=0.01).life_s == 50.0
    assert Cap.of(settings, usd_per_s=0.0).life_s == math.inf


def test_a_platforms_timeout_is_met_with_a_margin() -> None:
    assert Cap.of(Settings(task_timeout_s=600), usd_per_s=0.0).life_s == 600 - TASK_MARGIN_S
    assert Cap.of(Settings(task_timeout_s=5), usd_per_s=0.0).life_s == 0.0


amounts = st.floats(0, 1e6)


@given(amounts, amounts, amounts, amounts)
def test_no_limit_allows_what_another_forbids(cost: float, runtime: float, timeout: float, usd_per_s: float) -> None:
    cap = Cap.of(Settings(max_cost_usd=cost, max_runtime_s=runtime, task_timeout_s=timeout), usd_per_s)

    assert cost == 0 or usd_per_s == 0 or cap.life_s * usd_per_s <= cost * (1 + 1e-9)
    assert runtime == 0 or cap.life_s <= runtime
    assert timeout == 0 or cap.life_s <= timeout


# Real workers


@pytest.mark.parametrize(
    ("flag", "amount", "words"),
    [
        ("--max-cost", 24.0, "max_cost_usd: it may cost 24 USD, which is 24 s; after "),
        ("--max-runtime", 24.0, "max_runtime_s: it may last 24 s; after "),
    ],
)
def test_a_run_never_costs_more_than_it_may_however_wrong_estimates_are(
    house: House, flag: str, amount: float, words: str
) -> None:
    # Given jobs that take twenty times as long as what was measured
    measured(house)
    house.enqueue(job("film", "first", *(f"slow {number}" for number in range(3))), job("next", "n"))

    began = time.monotonic()
    run = house.work(*WORK, flag, f"{amount:g}", price=DOLLAR_A_SECOND, drain_s=f"{LEAVES_S:g}")
    lasted_s = time.monotonic() - began

    # Then the run left in order before its money was spent, and what it had not done waits with its keyframes
    assert run.code == 0, run.err
    assert run.report["usd"] <= amount
    assert lasted_s <= amount
    assert run.report["seconds"] >= amount - LEAVES_S - EXIT_S
    assert run.report["why"].startswith(words)
    assert not house.has_ended("film")
    assert house.queue.backlog().ready == 2
    assert "first" in house.rendered()
    assert house.work_calmly().code == 0
    verdict(house, "measured", "film", "next", again={f"slow {number}": 1 for number in range(3)})


def test_a_job_that_does_not_fit_into_what_is_left_waits_for_another_run(house: House) -> None:
    # Given four jobs of about ten seconds each, by what was measured, and a run that can hold one or two
    measured(house)
    names = ("one", "two", "three", "four")
    house.enqueue(*(job(name, *(f"half a second {name} {number}" for number in range(16))) for name in names))

    run = house.work(*WORK, "--max-runtime", "36", drain_s=f"{LEAVES_S:g}")

    # Then it made what it could without being stopped, and gave the next one back at once
    assert run.code == 0
    assert run.report["why"].startswith("max_runtime_s: it may last 36 s; the next job would take ")
    assert run.report["lost_s"] < 0.1
    assert 1 <= run.report["done"] < 4
    assert house.queue.backlog().ready == 4 - run.report["done"]
    assert house.work_calmly().code == 0
    verdict(house, "measured", *names)


def test_a_job_that_fits_into_no_run_fails_with_the_figures_and_the_mend(house: House) -> None:
    measured(house)
    house.enqueue(job("film", *(f"half a second {number}" for number in range(60))), job("next", "n"))

    run = house.work(*WORK, "--max-runtime", "25", drain_s=f"{LEAVES_S:g}")

    assert run.code == 0
    reason = house.receipt("film").reason
    assert reason.startswith("max_runtime_s: it may last 25 s, but a run for this job alone would take about ")
    assert "(as earlier runs took)" in reason
    assert "60 keyframes" in reason
    assert reason.endswith("then: nightreel retry b film")
    assert [prompt for prompt in house.rendered() if prompt != "half a second m"] == ["n"]
    verdict(house, "measured", "film", "next", failed=["film"])


def test_a_run_that_has_only_time_to_leave_claims_nothing_and_says_so(house: House) -> None:
    house.enqueue(job("film", "x"))

    run = house.work(task_timeout_s=f"{TASK_MARGIN_S + 1:g}")

    assert run.code == 0
    assert run.report["why"].startswith("task_timeout_s: it may last 31 s, 30 to spare; after ")
    assert run.events("claimed") == []
    assert house.queue.backlog().ready == 1
    assert not house.has_ended("film")


def test_a_run_ends_as_many_jobs_as_it_may_and_no_more(house: House) -> None:
    house.enqueue(job("one", "x"), job("two", "refuse this"), job("three", "z"), job("four", "u"))

    run = house.work(*WORK, "--max-jobs", "2")

    assert run.code == 0
    assert run.report["why"] == "max_jobs: 2 of 2 jobs have ended"
    assert (run.report["done"], run.report["failed"]) == (1, 1)
    assert house.queue.backlog().ready == 2
    assert house.work_calmly().code == 0
    verdict(house, "one", "two", "three", "four", failed=["two"])


def test_whatever_jobs_come_no_run_and_no_month_costs_more_than_it_may(make_named: Callable[[str], House]) -> None:
    # Given jobs of any size, fast and slow ones, whose estimates are of fast ones alone
    chance = random.Random(1)

    def play(limit: str, amount: int, workers: int) -> None:
        house = make_named(limit)
        house.half_a_second_was_measured()
        for name in "abcdef":
            kinds = [chance.choice(("half a second", "slow", "quick")) for _ in range(chance.randint(1, 6))]
            house.enqueue(job(name, *(f"{kind} {name} {number}" for number, kind in enumerate(kinds))))
        settings = {limit: str(amount), "price": DOLLAR_A_SECOND, "drain_s": "3"}
        runs = [finish(worker) for worker in [house.start(**settings) for _ in range(workers)]]

        # Then the money is spent, and no more
        assert [run.code for run in runs] == [0] * workers, [run.err for run in runs]
        costs = [run.report["usd"] for run in runs]
        assert max(costs) <= amount
        assert limit != "monthly_usd" or sum(costs) <= amount + refused(runs)
        assert any(run.report["why"].startswith(f"{limit}: ") for run in runs)
        assert house.queue.backlog().leased == 0

    at_once({"a run": lambda: play("max_cost_usd", 18, 1), "a month": lambda: play("monthly_usd", 24, 2)})


def refused(runs: Sequence[Run]) -> float:
    """What runs cost that came when all of the month's money was reserved: starting, and seeing that."""
    return float(sum(run.report["usd"] for run in runs if not run.events("claimed")))


def test_sigterm_and_an_end_of_the_budget_may_come_together(make_named: Callable[[str], House]) -> None:
    """Whichever comes first is the reason, and the run leaves in order as after either."""

    def play(name: str, why: str, command: Callable[[House], tuple[str, ...]]) -> None:
        house = make_named(name)
        house.enqueue(job("film", "first", "slow 1", "slow 2"), job("next", "slow 3"))
        run = house.work(*command(house), max_runtime_s="18", drain_s=f"{LEAVES_S:g}")
        assert run.code == 0, run.err
        assert run.report["why"].startswith(why)
        assert (house.queue.backlog().ready, house.queue.backlog().leased) == (2, 0)
        attempts = [attempt for name in ("film", "next") for attempt in house.attempts(name)]
        assert attempts
        assert all(attempt.end for attempt in attempts)
        assert not house.has_ended("film")
        assert house.processes() == []
        assert house.leftovers() == []

    late = "nightreel_worker.worker:Worker._leave"
    at_once(
        {
            "SIGTERM while it drains": lambda: play("a", "max_runtime_s: ", lambda house: house.struck(late, "leave")),
            "spent while it drains": lambda: play("b", "SIGTERM asked it to leave", lambda house: hooked(LATE)),
        }
    )
