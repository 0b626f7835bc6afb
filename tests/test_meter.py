"""The meter: each nanosecond of a run is booked once, and receipts and the rest add up to the whole, in any order."""

from __future__ import annotations

import itertools
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nightreel_storage.receipts import Cost
from nightreel_worker import wire
from nightreel_worker.meter import OF_JOBS, STAGES, Meter, Phase, Stage
from nightreel_worker.prices import Price

S = 10**9  # nanoseconds
DOLLAR_A_SECOND = Price(name="dear", usd_per_s=1.0)


@dataclass
class Clock:
    """Stands still unless it is told to go on."""

    ns: int = 0

    def __call__(self) -> int:
        return self.ns


@dataclass
class Shadow:
    """The rule in its plainest form: a list of what is open, in order, and who has a bill in hand."""

    open: list[tuple[Stage, int]] = field(default_factory=list)
    phase: Phase = "start"
    stages: Counter[str] = field(default_factory=Counter)
    spent: Counter[int] = field(default_factory=Counter)
    bills: dict[int, tuple[Cost, int]] = field(default_factory=dict)
    paid: int = 0
    receipts: list[Cost] = field(default_factory=list)
    on_receipts_ns: int = 0
    lost_ns: int = 0

    def pass_(self, ns: int) -> None:
        stage, key = min(self.open, key=lambda each: STAGES.index(each[0]), default=(self.phase, -1))
        self.stages[stage] += ns
        if stage in OF_JOBS:
            self.spent[key] += ns

    def enter(self, stage: Stage, key: int) -> None:
        if (stage, key) not in self.open:
            self.open.append((stage, key))

    def leave(self, stage: Stage, key: int) -> None:
        if (stage, key) in self.open:
            self.open.remove((stage, key))

    def bill(self, key: int, cost: Cost) -> None:
        self.bills[key] = (cost, self.spent[key])

    def close(self, key: int, written: bool) -> None:
        self.open = [each for each in self.open if each[1] != key]
        if written and key in self.bills:
            cost, ns = self.bills[key]
            self.receipts.append(cost)
            self.on_receipts_ns += ns
        elif not written:
            self.lost_ns += self.spent[key]
        self.spent.pop(key, None)
        self.bills.pop(key, None)


Step = Callable[[Meter, Shadow], None]
keys = st.integers(0, 3)


def enter(stage: Stage, key: int) -> Step:
    def step(meter: Meter, shadow: Shadow) -> None:
        meter.enter(stage, key)
        shadow.enter(stage, key)

    return step


def leave(stage: Stage, key: int) -> Step:
    def step(meter: Meter, shadow: Shadow) -> None:
        meter.leave(stage, key)
        shadow.leave(stage, key)

    return step


def bill(key: int) -> Step:
    return lambda meter, shadow: shadow.bill(key, meter.bill(key))


def close(key: int, written: bool) -> Step:
    def step(meter: Meter, shadow: Shadow) -> None:
        meter.close(key, billed=written)
        shadow.close(key, written)

    return step


def pay(key: int, micro_usd: int) -> Step:
    def step(meter: Meter, shadow: Shadow) -> None:
        meter.pay(key, micro_usd)
        shadow.paid += micro_usd

    return step


def phase(name: Phase) -> Step:
    def step(meter: Meter, shadow: Shadow) -> None:
        meter.phase(name)
        shadow.phase = name

    return step


steps = st.one_of(
    st.builds(enter, st.sampled_from(STAGES), keys),
    st.builds(leave, st.sampled_from(STAGES), keys),
    st.builds(bill, keys),
    st.builds(close, keys, st.booleans()),
    st.builds(pay, keys, st.integers(0, 5_000_000)),
    st.builds(phase, st.sampled_from(("idle", "drain"))),
)


@given(
    st.lists(st.tuples(st.integers(0, 10**13), steps), max_size=60),
    st.floats(0, 0.01),
    st.integers(0, 10**11),
)
def test_in_any_order_each_nanosecond_is_booked_once_and_all_adds_up(
    course: list[tuple[int, Step]], usd_per_s: float, age_ns: int
) -> None:
    clock, shadow = Clock(), Shadow()
    meter = Meter(Price(name="some", usd_per_s=usd_per_s), clock, age_ns)
    shadow.stages["start"] += age_ns
    for gap_ns, step in course:
        clock.ns += gap_ns
        shadow.pass_(gap_ns)
        step(meter, shadow)

    spent = meter.statement()

    # Stages and phases are what the plain rule says, and add up to the run's time
    assert {name: ns(each) for name, each in spent.stages_s.items()} == +shadow.stages
    assert ns(spent.seconds) == sum(shadow.stages.values()) == clock.ns + age_ns
    # Receipts, what was lost and the run's own seconds add up to it
    assert ns(spent.jobs_s) == shadow.on_receipts_ns
    assert ns(spent.lost_s) == shadow.lost_ns + shadow.spent.total()
    assert spent.jobs_s + spent.lost_s <= spent.seconds + 1e-6
    # And so do the dollars, to a millionth
    told = spent.figures()
    assert sum(micro(cost.usd) for cost in shadow.receipts) + micro(told["shared_usd"]) == micro(told["usd"])
    assert micro(told["clips_usd"]) == shadow.paid >= sum(micro(cost.clips_usd) for cost in shadow.receipts)
    assert micro(told["usd"]) - shadow.paid == pytest.approx(spent.seconds * usd_per_s * 1e6, abs=1)
    assert told["shared_usd"] >= 0


def ns(seconds: float) -> int:
    return round(seconds * S)


def micro(usd: float) -> int:
    return round(usd * 1e6)


def test_a_second_in_which_two_jobs_advance_belongs_to_the_one_on_the_gpu() -> None:
    clock = Clock()
    meter = Meter(DOLLAR_A_SECOND, clock)
    meter.enter("film", "a")
    clock.ns += 2 * S
    meter.enter("render", "b")
    clock.ns += 3 * S
    meter.leave("render", "b")
    clock.ns += S

    assert (meter.spent_s("a"), meter.spent_s("b")) == (3.0, 3.0)
    assert meter.bill("a") == Cost(seconds=3.0, usd=3.0, price="dear")


def test_loading_and_importing_are_the_runs_own_even_while_a_job_waits_for_them() -> None:
    clock = Clock()
    meter = Meter(DOLLAR_A_SECOND, clock)
    meter.enter("wait", "a")
    meter.renderer_is("import")
    clock.ns += 4 * S
    meter.renderer_is(None)
    meter.hear("a", wire.Started("a", 0.0, 0.0))
    meter.renderer_is("load")
    clock.ns += 5 * S
    meter.renderer_is(None)
    clock.ns += S

    assert meter.statement().stages_s == {"import": 4.0, "load": 5.0, "render": 1.0}
    assert meter.spent_s("a") == 1.0


def test_a_clip_stands_on_the_receipt_of_the_job_that_it_was_bought_for() -> None:
    clock = Clock()
    meter = Meter(DOLLAR_A_SECOND, clock)
    meter.enter("film", "a")
    clock.ns += S
    meter.pay("a", 1_600_000)
    meter.pay("lost", 600_000)

    assert meter.bill("a") == Cost(seconds=1.0, usd=2.6, price="dear", clips_usd=1.6)
    meter.close("a", billed=True)
    meter.close("lost", billed=False)
    spent = meter.statement()
    assert (spent.usd, spent.clips_usd, spent.jobs_usd, spent.shared_usd) == (3.2, 2.2, 2.6, 0.6)


@pytest.mark.parametrize(
    "last", [wire.Filmed("a", "x.mp4", 1.0), wire.Failed("a", True, "no"), wire.Dropped("a"), None], ids=str
)
def test_whatever_ends_a_job_in_the_renderer_ends_its_stages(last: wire.Line | None) -> None:
    clock = Clock()
    meter = Meter(DOLLAR_A_SECOND, clock)
    for line in (wire.Filming("a", 0), wire.Started("a", 0.0, 0.0)):
        meter.hear("a", line)
    clock.ns += S
    meter.hear("a", last)
    clock.ns += S

    assert meter.spent_s("a") == 1.0


def test_film_goes_on_after_the_last_keyframe() -> None:
    clock = Clock()
    meter = Meter(DOLLAR_A_SECOND, clock)
    meter.hear("a", wire.Started("a", 0.0, 0.0))
    meter.hear("a", wire.Filming("a", 0))
    clock.ns += S
    meter.hear("a", wire.KeyframesDone("a", 1.0))
    clock.ns += S

    assert meter.statement().stages_s == {"render": 1.0, "film": 1.0}


def test_of_two_bills_the_last_one_counts_and_what_comes_after_it_is_the_runs_own() -> None:
    clock = Clock()
    meter = Meter(DOLLAR_A_SECOND, clock)
    meter.enter("upload", "a")
    clock.ns += S
    assert meter.bill("a").seconds == 1.0
    clock.ns += S
    assert meter.bill("a").seconds == 2.0
    clock.ns += S
    meter.close("a", billed=True)

    spent = meter.statement()
    assert (spent.jobs_s, spent.lost_s, spent.seconds) == (2.0, 0.0, 3.0)
    assert (spent.jobs_usd, spent.shared_usd) == (2.0, 1.0)


@pytest.mark.parametrize("billed", [True, False])
def test_what_a_job_without_a_receipt_took_is_lost(billed: bool) -> None:
    clock = Clock()
    meter = Meter(DOLLAR_A_SECOND, clock)
    meter.enter("render", "a")
    clock.ns += S
    if billed:
        meter.bill("a")  # for a receipt that somebody else was faster to write
    clock.ns += S
    meter.close("a", billed=False)

    spent = meter.statement()
    assert (spent.jobs_s, spent.lost_s) == (0.0, 2.0)
    assert (spent.jobs_usd, spent.shared_usd) == (0.0, 2.0)


def test_parts_of_a_millionth_never_make_receipts_cost_more_than_the_run() -> None:
    clock = Clock()
    meter = Meter(Price(name="cheap", usd_per_s=0.6e-6), clock)
    for key in range(100):
        meter.enter("render", key)
        clock.ns += S
        meter.bill(key)
        meter.close(key, billed=True)

    spent = meter.statement()
    assert (spent.usd, spent.jobs_usd, spent.shared_usd) == (60e-6, 0.0, 60e-6)


def test_threads_that_enter_leave_and_bill_at_once_lose_no_tick() -> None:
    # Given a clock that goes on by one with each look at it
    ticks = itertools.count()
    meter = Meter(Price(name="round", usd_per_s=1000.0), ticks.__next__)
    bills: list[Cost] = []

    def deliver(number: int) -> None:
        for round_ in range(50):
            key = (number, round_)
            for stage in STAGES:
                meter.enter(stage, key)
            for stage in STAGES:
                meter.leave(stage, key)
            bills.append(meter.bill(key))
            meter.close(key, billed=True)

    threads = [threading.Thread(target=deliver, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    spent = meter.statement()
    assert ns(spent.seconds) == next(ticks) - 1
    assert sum(micro(each.usd) for each in bills) == micro(spent.jobs_usd)
    assert ns(spent.jobs_s) <= ns(spent.seconds)
    assert ns(spent.lost_s) == 0


def test_a_process_knows_how_old_it_is() -> None:
    before = time.monotonic()
    program = "import time; time.sleep(0.3); from nightreel_worker.meter import process_age_ns; print(process_age_ns())"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)

    assert 0.3 <= int(said.stdout) / S <= time.monotonic() - before + 0.02  # the system counts in hundredths
