"""When workers are started, and how many: the rule case by case, and what holds for every case."""

from __future__ import annotations

import datetime as dt
import math
import time
import zoneinfo
from dataclasses import replace

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from nightreel_dispatcher.wake import Decision, Policy, Waiting, decide

POLICY = Policy(start_s=75.0)  # a start is worth it for 675 s of work; jobs wait 900 s at most, half of it when it is
NIGHTLY = replace(POLICY, max_wait_s=math.inf, nightly=dt.time(2), zone="Europe/Berlin")
NOON_S = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC).timestamp()
ZONES = sorted(zoneinfo.available_timezones())


def waits(work_s: float, oldest_s: float, urgent: int = 0, jobs: int = 5) -> Waiting:
    return Waiting(jobs, work_s, oldest_s, urgent)


def asked(waiting: Waiting, running: int = 0, policy: Policy = POLICY, now_s: float = NOON_S) -> Decision:
    return decide(waiting, running, policy, now_s)


def utc(text: str) -> float:
    return dt.datetime.fromisoformat(text).replace(tzinfo=dt.UTC).timestamp()


# One case after the other


def test_nothing_is_started_for_nothing() -> None:
    assert asked(Waiting(0, 0.0, 0.0)) == Decision(0, "nothing waits", math.inf)


def test_little_work_waits_and_is_told_why_and_until_when() -> None:
    assert asked(waits(200, 60)) == Decision(
        0, "for 200 s of work a start would be 27% of the bill, 10% is allowed; the oldest job has waited 60 of 900 s", 840.0
    )  # fmt: skip


def test_a_job_waits_no_longer_than_its_limit() -> None:
    assert asked(waits(40, 900)) == Decision(1, "the oldest job has waited 900 s", math.inf)


def test_work_that_is_worth_a_start_waits_half_as_long_for_company() -> None:
    assert asked(waits(675, 60)) == Decision(
        0, "675 s of work are worth a start, and what comes soon may share it; the oldest job has waited 60 of 450 s", 390.0
    )  # fmt: skip
    assert asked(waits(675, 450)) == Decision(1, "675 s of work make the start 10% of the bill", math.inf)
    assert asked(waits(674, 450)).start == 0


@pytest.mark.parametrize(
    ("max_wait_s", "collect_s"),
    [(0.0, 0.0), (30.0, 30.0), (75.0, 75.0), (100.0, 75.0), (150.0, 75.0), (151.0, 75.5), (900.0, 450.0)],
)
def test_company_is_waited_for_as_long_as_a_start_takes_and_half_of_all_patience(
    max_wait_s: float, collect_s: float
) -> None:
    assert replace(POLICY, max_wait_s=max_wait_s).collect_s == collect_s


def test_an_urgent_job_waits_for_nothing() -> None:
    assert asked(waits(1, 0, urgent=1, jobs=1)) == Decision(1, "1 urgent", math.inf)


def test_a_worker_that_runs_takes_what_comes_even_the_urgent() -> None:
    assert asked(waits(40, 5000, urgent=1), running=1) == Decision(0, "1 running will take it", math.inf)


def test_where_nobody_may_wait_a_worker_is_started_at_once() -> None:
    assert asked(waits(0.0, 0.0), policy=replace(POLICY, max_wait_s=0.0)).start == 1


def test_a_start_that_costs_nothing_is_always_worth_it() -> None:
    assert asked(waits(0.0, 450.0), policy=replace(POLICY, start_s=0.0)).start == 1


# How many


def test_as_many_are_started_as_finish_in_time() -> None:
    five = replace(POLICY, max_workers=5)

    # An hour, less the start, holds 3,525 s of work.
    assert asked(waits(3525, 900), policy=five).start == 1
    assert asked(waits(3526, 900), policy=five).start == 2
    assert asked(waits(3 * 3525, 900), policy=five).start == 3
    assert asked(waits(1e6, 900), policy=five).start == 5


def test_no_worker_is_started_for_less_work_than_is_worth_a_start() -> None:
    hasty = replace(POLICY, finish_within_s=100.0, max_workers=50)

    assert asked(waits(1349, 900), policy=hasty).start == 1
    assert asked(waits(1350, 900), policy=hasty).start == 2
    assert asked(waits(10, 900), policy=hasty).start == 1


def test_more_join_those_that_run_when_they_would_not_finish_in_time() -> None:
    five = replace(POLICY, max_workers=5)

    assert asked(waits(7000, 10), running=1, policy=five) == Decision(
        1, "more waits than the running workers finish in time", math.inf
    )
    assert asked(waits(7000, 10), running=2, policy=five).start == 0
    assert asked(waits(1e6, 10), running=4, policy=five).start == 1
    assert asked(waits(1e6, 10), running=7, policy=five).start == 0


# At night


def test_what_waits_is_started_at_the_nightly_hour() -> None:
    now_s = utc("2026-03-03T00:59:00")  # 01:59 in Berlin

    early = asked(waits(40, 3600), policy=NIGHTLY, now_s=now_s)
    assert early.start == 0
    assert early.look_again_s == 60.0
    assert early.reason.endswith("the oldest job has waited 3600 s, and will not beyond 02:00 Europe/Berlin")
    late = asked(waits(40, 3660), policy=NIGHTLY, now_s=now_s + 60)
    assert late == Decision(1, "it is after 02:00 Europe/Berlin, and jobs from before wait", math.inf)


def test_a_job_that_comes_after_the_nightly_hour_waits_for_the_next_one() -> None:
    later = asked(waits(40, 60), policy=NIGHTLY, now_s=utc("2026-03-03T01:02:00"))

    assert later.start == 0
    assert later.look_again_s == 24 * 3600 - 120


def test_a_job_that_comes_on_the_stroke_of_the_nightly_hour_is_not_left_for_a_day() -> None:
    assert asked(waits(40, 0), policy=NIGHTLY, now_s=utc("2026-03-03T01:00:00")).start == 1


def test_a_night_that_nobody_asked_in_is_made_up_for() -> None:
    assert asked(waits(40, 7 * 3600), policy=NIGHTLY, now_s=utc("2026-03-03T07:00:00")).start == 1


@pytest.mark.parametrize("day", ["2026-03-28", "2026-03-29", "2026-07-01", "2026-10-25"])
def test_without_a_zone_the_nightly_hour_is_the_one_of_this_machines_clock(
    day: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    here = replace(NIGHTLY, zone="", nightly=dt.time(2, 30))
    there = replace(here, zone="Europe/Berlin")

    for minute in range(0, 24 * 60, 10):
        now_s = utc(day) + 60 * minute
        local, named = (asked(waits(40, 3600), policy=policy, now_s=now_s) for policy in (here, there))
        assert (local.start, local.look_again_s) == (named.start, named.look_again_s)

    monkeypatch.undo()
    time.tzset()


@pytest.mark.parametrize(
    ("zone", "day", "moments"),
    [
        ("Europe/Berlin", "2026-03-29", ["2026-03-29T01:30:00"]),  # 02:30 does not exist: 03:30 by the clock
        ("Europe/Berlin", "2026-10-25", ["2026-10-25T00:30:00"]),  # 02:30 comes twice: the first
        ("Pacific/Apia", "2011-12-30", ["2011-12-30T12:30:00"]),  # a date that was skipped
    ],
)
def test_clocks_that_jump_have_one_night_a_day(zone: str, day: str, moments: list[str]) -> None:
    policy = replace(NIGHTLY, nightly=dt.time(2, 30), zone=zone)
    at_s = utc(f"{day}T00:00:00") - 7200
    seen = []
    while at_s < utc(f"{day}T00:00:00") + 20 * 3600:
        at_s += asked(waits(40, 0), policy=policy, now_s=at_s).look_again_s
        seen.append(at_s)
        at_s += 1  # a job that comes on the stroke is rendered that night

    assert [night for night in seen if abs(night - utc(f"{day}T10:00:00")) < 12 * 3600] == list(map(utc, moments))


@settings(deadline=None)
@given(st.sampled_from(ZONES), st.datetimes(dt.datetime(1995, 1, 1), dt.datetime(2037, 1, 1)), st.times())
def test_no_zone_has_zero_or_two_nights_a_day(zone: str, moment: dt.datetime, nightly: dt.time) -> None:
    """From any moment the next night comes within a day and a jump, and the one after it not sooner than that."""
    policy = replace(NIGHTLY, nightly=nightly.replace(second=0, microsecond=0), zone=zone)
    now_s = moment.replace(tzinfo=dt.UTC).timestamp()

    first_s = asked(waits(40, 0), policy=policy, now_s=now_s + 0.5).look_again_s
    second_s = asked(waits(40, 0), policy=policy, now_s=now_s + 1.5 + first_s).look_again_s + 1

    jump_s = 24 * 3600 if zone in ("Pacific/Apia", "Pacific/Fakaofo", "Pacific/Kiritimati", "Pacific/Enderbury",
                                   "Pacific/Kanton", "Pacific/Kwajalein", "Kwajalein") else 3 * 3600  # fmt: skip
    assert 0 < first_s <= 24 * 3600 + jump_s
    assert abs(second_s - 24 * 3600) <= jump_s


# What holds for every case

seconds = st.one_of(st.floats(0, 1e4), st.sampled_from([0.0, 75.0, 450.0, 675.0, 900.0, 3525.0]))
policies = st.builds(
    Policy,
    start_s=st.sampled_from([0.0, 1.0, 75.0, 600.0]),
    start_share=st.sampled_from([0.01, 0.1, 0.5, 1.0]),
    max_wait_s=st.sampled_from([0.0, 30.0, 75.0, 900.0, math.inf]),
    finish_within_s=st.sampled_from([1.0, 600.0, 3600.0]),
    max_workers=st.integers(1, 9),
    nightly=st.sampled_from([None, dt.time(2), dt.time(23, 59)]),
    zone=st.sampled_from(["UTC", "Europe/Berlin", "Pacific/Apia"]),
)
backlogs = st.builds(Waiting, st.integers(1, 99), seconds, seconds, st.sampled_from([0, 0, 0, 1]))


@settings(deadline=None)
@given(policies, st.floats(0, 2), st.floats(0, 0.45), seconds)
def test_looking_again_when_told_starts_and_a_moment_before_does_not(
    policy: Policy, work: float, age: float, later_s: float
) -> None:
    waiting = Waiting(3, work * policy.worth_s, age * min(policy.max_wait_s, 1e4))
    now_s = NOON_S + later_s
    first = asked(waiting, policy=policy, now_s=now_s)
    assume(first.start == 0 and first.look_again_s < math.inf)

    def after(wait_s: float) -> Decision:
        return asked(replace(waiting, oldest_s=waiting.oldest_s + wait_s), policy=policy, now_s=now_s + wait_s)

    assert first.look_again_s > 0
    assert after(first.look_again_s + 1e-3).start >= 1
    assert after(max(0.0, first.look_again_s - 1e-3)).start == 0


@settings(deadline=None)
@given(backlogs, policies, st.integers(0, 9), seconds, seconds)
def test_more_work_or_more_age_never_turns_a_start_into_waiting(
    waiting: Waiting, policy: Policy, running: int, work_s: float, age_s: float
) -> None:
    more = replace(waiting, work_s=waiting.work_s + work_s, oldest_s=waiting.oldest_s + age_s)

    assert asked(more, running, policy).start >= asked(waiting, running, policy).start


@settings(deadline=None)
@given(backlogs, policies, st.integers(0, 9))
def test_asking_twice_is_harmless(waiting: Waiting, policy: Policy, running: int) -> None:
    first = asked(waiting, running, policy)

    assert asked(waiting, running, policy) == first
    if first.start:
        assert asked(waiting, running + first.start, policy).start == 0


@settings(deadline=None)
@given(backlogs, policies, st.integers(0, 9))
def test_no_more_run_than_are_allowed_and_the_answer_has_a_reason(
    waiting: Waiting, policy: Policy, running: int
) -> None:
    decision = asked(waiting, running, policy)

    assert 0 <= decision.start <= max(0, policy.max_workers - running)
    assert "inf" not in decision.reason
    assert "nan" not in decision.reason
    assert len(decision.reason) > 5
    if decision.start + running > 1 and decision.start:
        assert waiting.work_s >= (decision.start + running) * policy.worth_s


@settings(deadline=None)
@given(backlogs, policies)
def test_some_day_somebody_starts(waiting: Waiting, policy: Policy) -> None:
    decision = asked(waiting, policy=policy)

    assert decision.start or decision.look_again_s < math.inf or math.isinf(policy.max_wait_s)
