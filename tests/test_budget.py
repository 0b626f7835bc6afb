"""What one run may spend: dollars, seconds, jobs; drain and exit included. Real workers."""

from __future__ import annotations

import math
import sys
import time

import pytest
from house import House, job, verdict
from hypothesis import given
from hypothesis import strategies as st

from nightreel_worker.budget import EXIT_S, TASK_MARGIN_S, Cap
from nightreel_worker.settings import Settings

WORK = (sys.executable, "-m", "nightreel", "work")
LEAVES_S = 4.0  # the drain of these workers
DOLLAR_A_SECOND = "3600"
LONG = "slow"  # prompts that take ten seconds each, where half a second was measured


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
