"""What runs cost, by day, price and model; what is left of the month's money: `nightreel costs`, `nightreel budget`."""

from __future__ import annotations

import datetime as dt
import json
import sys

from house import House, Run
from hypothesis import given
from hypothesis import strategies as st

from nightreel_storage.receipts import utc_now
from nightreel_worker.costs import Costs, costs, read_reports
from nightreel_worker.estimate import Taken
from nightreel_worker.ledger import Ledger, Share, micro, month_of
from nightreel_worker.report import RunReport, run_name

NIGHTREEL = (sys.executable, "-m", "nightreel")
NIGHT = dt.datetime(2026, 3, 1, 23, 59, tzinfo=dt.UTC)


def taken(model: str, jobs: int, seconds: float) -> Taken:
    return Taken(
        model=model, source="s", revision="r", precision="fp32", device="cpu", keyframe_size="", film_size="64x64",
        motions=("move",), jobs=jobs, film_s=seconds,
    )  # fmt: skip


def report(run: str = "20260301T235900-a", **fields: object) -> RunReport:
    known = {"run": run, "started_at": NIGHT, "ended_at": NIGHT, "why": "", "unavailable": False, "price": "l4"}
    return RunReport.model_validate(known | fields)


dollars = st.integers(0, 10**9).map(lambda amount: amount / 1e6)
rows = st.lists(
    st.builds(taken, st.sampled_from("abc"), st.integers(0, 5), st.floats(0, 1e6)), max_size=4
).map(tuple)  # fmt: skip
histories = st.lists(
    st.builds(
        report,
        started_at=st.sampled_from([NIGHT + dt.timedelta(days=days) for days in range(3)]),
        price=st.sampled_from(("l4", "local")),
        jobs_usd=dollars,
        shared_usd=dollars,
        done=st.integers(0, 30),
        failed=st.integers(0, 3),
        taken=rows,
    ),
    max_size=6,
)


@given(histories)
def test_what_is_shared_out_adds_up_to_the_reports_to_the_millionth(reports: list[RunReport]) -> None:
    found = costs(reports)

    assert sum(row.direct_micro_usd for row in found) == sum(micro(each.jobs_usd) for each in reports)
    assert sum(row.shared_micro_usd for row in found) == sum(micro(each.shared_usd) for each in reports)
    assert sum(row.videos for row in found) == sum(each.done for each in reports)
    assert sum(row.jobs for row in found) == sum(each.done + each.failed for each in reports)
    assert all(min(row.direct_micro_usd, row.shared_micro_usd) >= 0 for row in found)
    assert len({(row.day, row.price, row.model) for row in found}) == len(found)


def test_a_run_with_two_models_is_shared_out_by_the_seconds_that_they_took() -> None:
    mixed = report(
        jobs_usd=0.4, shared_usd=0.2, done=5, failed=1, taken=(taken("flux", 1, 30.0), taken("pocket", 3, 10.0))
    )

    # What nobody tells of, a video that was adopted and a job that failed, goes to the model that took longest
    assert costs([mixed]) == [
        Costs(NIGHT.date(), "l4", "flux", 1, jobs=3, videos=2, direct_micro_usd=300_000, shared_micro_usd=150_000),
        Costs(NIGHT.date(), "l4", "pocket", 1, jobs=3, videos=3, direct_micro_usd=100_000, shared_micro_usd=50_000),
    ]


def test_a_run_that_rendered_nothing_has_its_cost_under_no_model() -> None:
    [row] = costs([report(shared_usd=0.01)])

    assert (row.model, row.usd, row.usd_per_video) == ("-", 0.01, None)


def money(house: House, *arguments: str, **settings: str) -> Run:
    run = house.work(*NIGHTREEL, *arguments, **settings)
    assert run.code == 0, run.err
    return run


def put(house: House, *reports: RunReport) -> None:
    for each in reports:
        house.store.put(run_name(each.run), each.to_bytes())


def test_costs_are_told_in_a_line_for_each_day_price_and_model(house: House) -> None:
    next_day = NIGHT + dt.timedelta(days=1)
    put(
        house,
        report("20260228T120000-a", jobs_usd=9.0, done=9),  # before the first day
        report("20260301T235900-b", jobs_usd=0.5, shared_usd=0.25, done=3, taken=(taken("flux", 3, 5.0),)),
        report("20260302T235900-c", started_at=next_day, price="local", failed=2, shared_usd=0.05),
    )
    house.store.put(run_name("20260302T235900-d"), b"{}")

    told = money(house, "costs", "--since", "2026-03-01")

    assert [line.split() for line in told.out.splitlines()] == [
        ["day", "price", "model", "runs", "jobs", "videos", "direct", "shared", "USD", "a", "video"],
        ["2026-03-01", "l4", "flux", "1", "3", "3", "0.5000", "0.2500", "0.7500", "0.2500"],
        ["2026-03-02", "local", "-", "1", "2", "0", "0.0000", "0.0500", "0.0500", "-"],
        ["in", "all", "2", "5", "3", "0.5000", "0.3000", "0.8000", "0.2667"],
    ]
    assert told.err == "nightreel: 1 reports could not be read, and are left out\n"


def test_costs_for_programs_have_the_same_figures(house: House) -> None:
    put(house, report("20260301T235900-b", jobs_usd=0.5, shared_usd=0.25, done=3, taken=(taken("flux", 3, 5.0),)))

    assert json.loads(money(house, "costs", "--since", "2026-03-01", "--json").out) == [
        {
            "day": "2026-03-01", "price": "l4", "model": "flux", "runs": 1, "jobs": 3, "videos": 3,
            "direct_usd": 0.5, "shared_usd": 0.25, "usd": 0.75, "usd_per_video": 0.25,
        }
    ]  # fmt: skip
    assert money(house, "costs").out.startswith("no run has left a report since ")
    assert read_reports(house.store, dt.date(2026, 3, 2)) == ([], 0)


def reserve(house: House, run: str, usd: float, minutes_ago: float) -> None:
    began = utc_now() - dt.timedelta(minutes=minutes_ago)
    wanted = Share(run=run, micro_usd=micro(usd), since=began, until=began + dt.timedelta(minutes=10))
    Ledger(house.store).reserve(wanted, micro(12.0))


def test_the_months_money_is_told_by_day_and_by_run(house: House) -> None:
    # Given a run that has settled, one that was settled for, one that may live still, and one that cannot
    this = month_of(utc_now())
    reserve(house, "killed", 0.25, minutes_ago=60)
    Ledger(house.store).settle_dead(this)
    reserve(house, "done", 5.0, minutes_ago=0)
    Ledger(house.store).settle(this, "done", micro(1.5))
    reserve(house, "works", 2.0, minutes_ago=5)
    reserve(house, "gone", 0.5, minutes_ago=21)

    head, *_, killed, done, works, gone = map(str.strip, money(house, "budget").out.splitlines())

    assert head == (
        f"{this}, USD: 1.75 spent, 2.00 reserved, 0.50 of runs that are gone, not settled yet, 7.75 left of 12.00"
    )
    assert killed.startswith("killed")
    assert killed.endswith("0.2500  spent, as far as anybody knows: it was killed, and this is what it had reserved")
    assert done.split()[-2:] == ["1.5000", "spent"]
    assert gone.endswith("0.5000  gone, not settled yet: the next run that reserves does it")
    assert "2.0000  reserved, for until " in works

    # And the limit of whoever asks wins over what runs were told
    told = json.loads(money(house, "budget", "--json", monthly_usd="3").out)
    assert [(run["run"], run["state"], run["usd"]) for run in told["runs"]] == [
        ("killed", "lost", 0.25), ("done", "spent", 1.5), ("works", "reserved", 2.0), ("gone", "unsettled", 0.5)
    ]  # fmt: skip
    sums = {name: told[name] for name in ("limit_usd", "spent_usd", "reserved_usd", "unsettled_usd", "left_usd")}
    assert sums == {"limit_usd": 3.0, "spent_usd": 1.75, "reserved_usd": 2.0, "unsettled_usd": 0.5, "left_usd": -1.25}
    assert sum(day["runs"] for day in told["days"]) == 4
    assert sum(micro(day["usd"]) for day in told["days"]) == micro(4.25)


def test_a_month_without_a_ledger_has_nothing_to_tell_and_a_month_that_is_none_is_refused(house: House) -> None:
    told = money(house, "budget", "--month", "2025-01")
    assert told.out == "2025-01, USD: 0.00 spent; NIGHTREEL_MONTHLY_USD is not set\n"

    refused = house.work(*NIGHTREEL, "budget", "--month", "2025-13")
    assert refused.code == 2
    assert refused.err.startswith("nightreel: --month 2025-13: give a year and a month, such as ")
