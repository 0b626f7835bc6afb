"""The month's money: whatever runs do, and whatever becomes of them, it is not exceeded, and every cent is accounted for."""

from __future__ import annotations

import datetime as dt
import json
import math
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from nightreel_storage.base import Entry
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreError, StoreUnavailable
from nightreel_storage.folder import FolderStore
from nightreel_worker.ledger import CLOCKS_APART, FOLDER, Ledger, Month, Share, micro, month_name, month_of
from nightreel_worker.meter import Meter
from nightreel_worker.monthly import BLOCK_S, Monthly
from nightreel_worker.prices import Price
from nightreel_worker.report import RunReport, run_name

S = 10**9  # nanoseconds
LEAVING_S = 10.0
LIMIT_USD = 3.0
BEGIN = dt.datetime(2026, 11, 30, 21, tzinfo=dt.UTC)  # a month ends three hours later
CHEAP, DEAR = Price(name="cheap", usd_per_s=0.000103), Price(name="dear", usd_per_s=0.000397)


def months(store: FolderStore) -> list[Month]:
    return [Ledger(store).read(entry.name.removeprefix(FOLDER)[:7]) for entry in store.list(FOLDER)]


def report(run: str, usd: float, state: str = "ended") -> RunReport:
    known = {"run": run, "started_at": BEGIN, "ended_at": BEGIN, "why": "", "unavailable": False}
    return RunReport.model_validate(known | {"state": state, "usd": usd})


class Shaky(FolderStore):
    """Does not answer, or does what it is told and then does not answer, as long as `trouble` says so."""

    trouble = ""

    def get(self, name: str) -> tuple[bytes, Entry]:
        if self.trouble == "down":
            raise StoreUnavailable("no answer")
        return super().get(name)

    def put(self, *args: Any, **options: Any) -> Entry:
        entry = super().put(*args, **options)
        if self.trouble == "deaf":
            raise StoreUnavailable("no answer to that")
        return entry


@dataclass
class Life:
    """One run, from outside."""

    id: str
    meter: Meter
    monthly: Monthly
    refused: bool = False
    gone_usd: float | None = None
    """What it had cost when it was gone."""
    killed: bool = False

    @property
    def usd(self) -> float:
        return self.meter.statement().usd if self.gone_usd is None else self.gone_usd


@dataclass
class World:
    """A store, a clock, and the runs that there were."""

    folder: Path
    ns: int = 0
    runs: list[Life] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.store = Shaky(self.folder)

    def now(self) -> dt.datetime:
        return BEGIN + dt.timedelta(microseconds=self.ns // 1000)

    def begin(self, price: Price, started_s: float, ahead_s: float = 0.0) -> Life:
        """A run that has taken some seconds to start, and whose clock is wrong."""
        ledger = Ledger(self.store, lambda: self.now() + dt.timedelta(seconds=ahead_s))
        meter = Meter(price, lambda: self.ns, age_ns=int(started_s * S))
        name = f"run{len(self.runs):03}"
        run = Life(name, meter, Monthly(ledger, name, LIMIT_USD, meter))
        self.runs.append(run)
        return run

    def end(self, run: Life, settles: bool = True) -> None:
        """It leaves in order; if its last word to the ledger is lost, there is its report."""
        run.gone_usd = run.usd
        if settles:
            run.monthly.settle(run.gone_usd)
        else:
            self.store.put(run_name(run.id), report(run.id, run.gone_usd).to_bytes())

    @property
    def live(self) -> list[Life]:
        return [run for run in self.runs if run.gone_usd is None]


class Months(RuleBasedStateMachine):
    """Runs begin, go on, ask for more, are killed and leave, at any time, with clocks that differ by minutes."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.world = World(Path(self.folder.name))

    def teardown(self) -> None:
        try:
            self.everybody_goes()
        finally:
            self.folder.cleanup()

    @rule(
        price=st.sampled_from((CHEAP, DEAR)),
        started_s=st.floats(0, 20),
        ahead_s=st.floats(-240, 240),
        down=st.booleans(),
    )
    def begin(self, price: Price, started_s: float, ahead_s: float, down: bool) -> None:
        run = self.world.begin(price, started_s, ahead_s)
        self.world.store.trouble = "down" if down and ahead_s > 200 else ""
        try:
            run.monthly.open(math.inf, LEAVING_S)
        except StoreError:
            run.monthly.life_s = 0.0  # the process ends with an error
        self.world.store.trouble = ""
        if run.monthly.life_s == 0.0:
            run.refused = True
            self.world.end(run)

    @precondition(lambda self: self.world.live)
    @rule(data=st.data(), more_s=st.floats(1, 3000), trouble=st.sampled_from(("", "", "down", "deaf")))
    def ask(self, data: st.DataObject, more_s: float, trouble: str) -> None:
        run = data.draw(st.sampled_from(self.world.live))
        self.world.store.trouble = trouble
        had_s = run.monthly.life_s
        got = run.monthly.reach(had_s + more_s, had_s + more_s / 2)
        assert trouble != "down" or not got
        self.world.store.trouble = ""

    @precondition(lambda self: self.world.live)
    @rule(data=st.data(), how=st.sampled_from(("kill", "leave", "leave", "leave unsettled")))
    def go(self, data: st.DataObject, how: str) -> None:
        run = data.draw(st.sampled_from(self.world.live))
        if how == "kill":
            run.gone_usd, run.killed = run.usd, True
        else:
            self.world.end(run, settles=how == "leave")

    @rule(seconds=st.floats(1, 2400))
    def pass_time(self, seconds: float) -> None:
        """Each run leaves when its time is over, at the very last moment."""
        until_ns = self.world.ns + int(seconds * S)
        for run in sorted(self.world.live, key=self.ends_at_ns):
            if self.ends_at_ns(run) <= until_ns:
                self.world.ns = self.ends_at_ns(run)
                self.world.end(run)
        self.world.ns = until_ns

    def ends_at_ns(self, run: Life) -> int:
        return self.world.ns + math.floor((run.monthly.life_s - run.meter.seconds()) * S)

    @invariant()
    def no_month_is_exceeded(self) -> None:
        refused = sum(micro(run.usd) for run in self.world.runs if run.refused)
        for month in months(self.world.store):
            assert month.micro_usd <= micro(LIMIT_USD) + refused

    @invariant()
    def nothing_is_spent_that_no_ledger_holds(self) -> None:
        booked = sum(month.micro_usd for month in months(self.world.store))
        assert sum(micro(run.usd) for run in self.world.runs) <= booked

    def everybody_goes(self) -> None:
        """When all have gone and are settled, the ledgers say what each run cost, to the millionth."""
        for run in self.world.live:
            self.world.end(run)
        self.world.ns += S * 3600 * 24
        ledger = Ledger(self.world.store, self.world.now)
        for month in months(self.world.store):
            ledger.settle_dead(month.month)
        shares = [share for month in months(self.world.store) for share in month.shares]
        assert all(share.state != "reserved" for share in shares)
        for run in self.world.runs:
            mine = [share for share in shares if share.run == run.id]
            booked = sum(share.micro_usd for share in mine)
            if run.killed:  # nobody knows when: what it had reserved
                assert {share.state for share in mine} == {"lost"}
                assert booked >= micro(run.usd)
            else:
                assert {share.state for share in mine} <= {"spent"}
                assert booked == micro(run.usd)


TestMonths = Months.TestCase
TestMonths.settings = settings(max_examples=30, stateful_step_count=25, deadline=None)


# What the rules come to


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path)


def share(run: str, usd: float, what: str = "") -> Share:
    return Share(run=run, what=what, micro_usd=micro(usd), since=BEGIN, until=BEGIN + dt.timedelta(minutes=10))


def test_a_run_gets_a_block_and_then_what_is_left_and_then_nothing(world: World) -> None:
    # Given a month's money for two blocks and a half
    price = Price(name="p", usd_per_s=LIMIT_USD / (2.5 * BLOCK_S))
    first, second, third, fourth = (world.begin(price, started_s=2.0) for _ in range(4))

    for run in (first, second, third, fourth):
        run.monthly.open(math.inf, LEAVING_S)

    assert [round(run.monthly.life_s) for run in (first, second, third, fourth)] == [600, 600, 300, 0]
    assert fourth.monthly.words == "monthly_usd: 3.00 of 3.00 USD of 2026-11 are spent or reserved"

    # And when one settles, what it did not use is there for others
    world.ns = 100 * S
    world.end(first)
    assert fourth.monthly.reach(400.0)
    assert not fourth.monthly.reach(600.0)
    assert fourth.monthly.life_s == pytest.approx(498, abs=0.1)


def test_what_would_not_outlast_leaving_is_left_to_others(world: World) -> None:
    Ledger(world.store, world.now).reserve(share("other", LIMIT_USD - 0.001), micro(LIMIT_USD))
    run = world.begin(DEAR, started_s=2.0)

    run.monthly.open(math.inf, LEAVING_S)

    assert run.monthly.life_s == 0.0
    assert [each.run for each in months(world.store)[0].shares] == ["other"]


def test_a_machine_that_costs_nothing_reserves_nothing(world: World) -> None:
    run = world.begin(Price(name="own", usd_per_s=0.0), started_s=2.0)

    run.monthly.open(math.inf, LEAVING_S)
    world.end(run)

    assert run.monthly.life_s == math.inf
    assert months(world.store) == []


def test_a_run_reserves_no_more_than_its_other_limits_let_it_spend(world: World) -> None:
    run = world.begin(DEAR, started_s=2.0)

    run.monthly.open(100.0, LEAVING_S)

    assert months(world.store)[0].micro_usd == micro(100 * DEAR.usd_per_s)


def test_without_an_answer_nothing_is_granted_and_the_run_says_so(world: World) -> None:
    run = world.begin(DEAR, started_s=2.0)
    run.monthly.open(math.inf, LEAVING_S)
    world.store.trouble = "down"

    assert not run.monthly.reach(2 * BLOCK_S)

    assert run.monthly.life_s == pytest.approx(BLOCK_S, abs=0.01)
    assert run.monthly.words.startswith("monthly_usd: the month's ledger cannot be had, and without it no more may be")


def test_a_grant_whose_answer_was_lost_is_not_paid_for_twice(world: World) -> None:
    run = world.begin(DEAR, started_s=2.0)
    run.monthly.open(math.inf, LEAVING_S)
    world.store.trouble = "deaf"
    assert not run.monthly.reach(2 * BLOCK_S)
    world.store.trouble = ""

    assert run.monthly.reach(2 * BLOCK_S)

    assert months(world.store)[0].micro_usd == math.ceil(2 * BLOCK_S * DEAR.usd_per_s * 1e6)


def test_a_grant_of_the_new_month_whose_answer_was_lost_is_given_back(world: World) -> None:
    # Given a run that began before the month's end, and does not know what it has been granted since
    run = world.begin(DEAR, started_s=2.0)
    run.monthly.open(math.inf, LEAVING_S)
    world.ns = 3 * 3600 * S
    world.store.trouble = "deaf"
    assert not run.monthly.reach(2 * BLOCK_S)
    world.store.trouble = ""
    assert [month.micro_usd > 0 for month in months(world.store)] == [True, True]

    # When it leaves before that
    run.monthly.settle(0.1)

    assert [month.micro_usd for month in months(world.store)] == [micro(0.1), 0]


def test_a_run_over_the_months_end_books_each_block_to_the_month_in_which_it_was_reserved(world: World) -> None:
    # Given a run whose first block is of November and whose second is of December
    run = world.begin(DEAR, started_s=0.0)
    run.monthly.open(math.inf, LEAVING_S)
    world.ns = 3 * 3600 * S
    run.monthly.reach(2 * BLOCK_S)

    # When it leaves in the second
    block = micro(BLOCK_S * DEAR.usd_per_s)
    run.monthly.settle((block + 5) / 1e6)

    assert [(month.month, month.micro_usd) for month in months(world.store)] == [("2026-11", block), ("2026-12", 5)]


def test_a_run_that_could_not_settle_is_settled_by_its_last_report_in_each_month(world: World) -> None:
    # Given a run over a month's end, whose last word the ledger did not hear
    run = world.begin(DEAR, started_s=0.0)
    run.monthly.open(math.inf, LEAVING_S)
    world.ns = 3 * 3600 * S
    run.monthly.reach(2 * BLOCK_S)
    block = micro(BLOCK_S * DEAR.usd_per_s)
    world.store.put(run_name(run.id), report(run.id, (block + 7) / 1e6).to_bytes())

    # When another begins after it cannot live any more
    world.ns += 3600 * S
    world.begin(DEAR, started_s=0.0).monthly.open(math.inf, LEAVING_S)

    found = [month.share(run.id) for month in months(world.store)]
    assert [(share.state, share.micro_usd) for share in found if share] == [("spent", block), ("spent", 7)]


class Beaten(FolderStore):
    """Lets somebody else be faster, once."""

    rival: Callable[[], object] | None = None

    def put(self, *args: Any, **options: Any) -> Entry:
        rival, self.rival = self.rival, None
        if rival:
            rival()
        return super().put(*args, **options)


def test_of_two_that_ask_for_the_last_cent_at_once_one_sees_that_it_is_gone(tmp_path: Path) -> None:
    store = Beaten(tmp_path)
    ledger = Ledger(store, lambda: BEGIN)
    store.rival = lambda: ledger.reserve(share("rival", 0.7), micro(1.0))

    month = ledger.reserve(share("run", 0.7), micro(1.0))

    assert {each.run: each.micro_usd for each in month.shares} == {"rival": micro(0.7), "run": micro(0.3)}
    assert ledger.read(month.month) == month


def test_who_may_still_live_is_not_settled_by_others(world: World) -> None:
    # Given a run that was killed, and whose report is of some seconds before
    killed = world.begin(DEAR, started_s=0.0)
    killed.monthly.open(math.inf, LEAVING_S)
    world.store.put(run_name(killed.id), report(killed.id, 0.01, "running").to_bytes())
    [month] = months(world.store)
    ledger = Ledger(world.store, world.now)

    # Then its block has to run out, and clocks may differ
    world.ns = int((BLOCK_S + CLOCKS_APART.total_seconds() - 1) * S)
    assert ledger.settle_dead(month.month) == month
    world.ns += 2 * S
    [left] = ledger.settle_dead(month.month).shares
    assert (left.state, left.micro_usd) == ("lost", month.micro_usd)


def test_a_service_reserves_a_plain_amount_and_settles_it(world: World) -> None:
    run = world.begin(Price(name="own", usd_per_s=0.0), started_s=0.0).monthly

    assert run.reserve(2.0, "clip one")
    assert run.reserve(2.0, "clip one")  # again: the same
    assert not run.reserve(1.5, "clip two")
    assert months(world.store)[0].micro_usd == micro(2.0)
    run.settle(1.2, "clip one")
    assert run.reserve(1.5, "clip two")

    world.ns = 24 * 3600 * S  # the run has left without a word; the service may have done what it was asked for
    world.store.put(run_name("run000"), report("run000", 0.0).to_bytes())
    Ledger(world.store, world.now).settle_dead("2026-11")
    [month] = months(world.store)
    assert [(each.what, each.state, each.micro_usd) for each in month.shares] == [
        ("clip one", "spent", micro(1.2)),
        ("clip two", "lost", micro(1.5)),
    ]


def test_a_ledger_that_makes_no_sense_stops_everything_and_is_named(world: World) -> None:
    world.store.put(month_name("2026-11"), b"{}")

    with pytest.raises(StoreError, match=r"\.nightreel/ledger/2026-11\.json cannot be read by this version \(month: "):
        world.begin(DEAR, started_s=0.0).monthly.open(math.inf, LEAVING_S)


# Real processes

SPENDER = textwrap.dedent("""
    import os, random, signal, sys, datetime as dt
    from nightreel_storage.connect import open_store
    from nightreel_storage.receipts import utc_now
    from nightreel_worker.ledger import Ledger, Share, month_of
    store, seed, book = sys.argv[1:]
    chance, fate, ledger = random.Random(seed), random.Random(seed), Ledger(open_store(store))
    for life in range(4):
        run, has, spent = f"{seed}-{life}", 0, 0
        now = utc_now()
        for block in range(3):
            wanted = Share(run=run, micro_usd=has + 40_000, since=now, until=now + dt.timedelta(minutes=10))
            share = ledger.reserve(wanted, 1_000_000).share(run)
            has = share.micro_usd if share else 0
            amount = chance.randint(0, has - spent)
            with open(book, "a") as file:
                file.write(f"{run} {amount}\\n")
            spent += amount
            if fate.random() < 0.1:
                os.kill(os.getpid(), signal.SIGKILL)
        if has:
            ledger.settle(month_of(now), run, spent)
""")


def test_processes_that_race_for_the_last_cent_do_not_spend_more_than_there_is(tmp_path: Path, store_url: str) -> None:
    # Given four processes, each a dozen reservations, for which there is not money enough; some are killed
    book = tmp_path / "book"
    command = (sys.executable, "-c", SPENDER, store_url)
    processes = [subprocess.Popen([*command, str(seed), str(book)], env=os.environ) for seed in (3, 5, 8, 13)]

    codes = [process.wait() for process in processes]

    assert set(codes) == {0, -signal.SIGKILL}
    spent: dict[str, int] = {}
    for line in book.read_text().splitlines():
        run, amount = line.split()
        spent[run] = spent.get(run, 0) + int(amount)
    store = open_store(store_url)
    [entry] = list(store.list(FOLDER))
    month = Ledger(store).read(entry.name.removeprefix(FOLDER)[:7])
    assert sum(spent.values()) <= month.micro_usd <= 1_000_000
    for each in month.shares:
        assert spent[each.run] == each.micro_usd if each.state == "spent" else spent[each.run] <= each.micro_usd
    assert json.loads(store.get(entry.name)[0])["limit_micro_usd"] == 1_000_000
    assert month.month in {month_of(each.since) for each in month.shares}
