"""Starting workers in earnest: lag, races, failures. The launcher is that of Cloud Run, against a local server."""

from __future__ import annotations

import datetime as dt
import json
import math
import re
import signal
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # has no types
import pytest
from fake_run import FakeRun, Fault, running
from house import House, job, until
from places import Places
from serving import HEAD, Served, manifest, serving

from nightreel_dispatcher.clock import look_by_the_clock
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.launchers.cloudrun import CloudRun
from nightreel_dispatcher.looked import Looked, last
from nightreel_dispatcher.monitoring import Monitoring
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_dispatcher.starts import APPEAR_S, Ledger, Start, Starts
from nightreel_dispatcher.waker import CALM_S, STEP_S, Waker
from nightreel_queue.base import Message
from nightreel_queue.pubsub import Address
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batches
from nightreel_storage.errors import StoreUnavailable
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import utc_now
from nightreel_worker.ledger import Ledger as Spending
from nightreel_worker.ledger import Share
from nightreel_worker.report import RunReport, run_name
from nightreel_worker.settings import Settings

NIGHTREEL = (sys.executable, "-m", "nightreel")
AT_ONCE = PolicySettings(max_wait_s=0)


@dataclass(slots=True)
class Office:
    """A store, a queue, Cloud Run, and a clock that can be put forward."""

    settings: Settings
    run: FakeRun
    policy: PolicySettings = AT_ONCE
    ahead_s: float = 0.0
    desk: Desk = field(init=False)

    def __post_init__(self) -> None:
        self.desk = Desk(self.settings, DispatcherSettings())
        self.run.now = self.now

    def now(self) -> float:
        return time.time() + self.ahead_s

    def waker(self, figures: Monitoring | None = None) -> Waker:
        """A dispatcher's. Each call is another dispatcher."""
        launcher = CloudRun("demo", "us-central1", "worker", channel=self.run.channel)
        return Waker(self.desk, launcher, self.policy, figures, self.now)

    def look(self, figures: Monitoring | None = None, *, again: bool = False) -> Looked:
        return self.waker(figures).look("test", again=again)

    def publish(self, *bodies: str, urgent: bool = False) -> None:
        self.desk.queue.publish([Message(body.encode(), urgent=urgent) for body in bodies])

    def ledger(self) -> Ledger:
        return Starts(self.desk.store).read()[0]

    def works(self, done: int = 1) -> None:
        """The last worker renders what waits, reports, and leaves."""
        self.reports(done)
        for id_ in self.run.up:
            self.run.end(id_)
        while done and (delivery := self.desk.queue.pull()):
            delivery.ack()

    def reports(self, done: int) -> None:
        if starts := self.ledger().starts:
            leave_report(self.desk.store, starts[-1].id, done, self.now())

    @property
    def asked_for(self) -> int:
        return self.run.calls["RunJob"]


def leave_report(store: Store, wake: str, done: int, at: float) -> None:
    """What a worker of a start leaves behind."""
    now = dt.datetime.fromtimestamp(at, dt.UTC)
    report = RunReport(
        run=f"{now:%Y%m%dT%H%M%S}-{uuid.uuid4().hex[:8]}",
        wake=wake,
        started_at=now,
        ended_at=now,
        why="the queue is empty",
        unavailable=False,
        done=done,
    )
    store.put(run_name(report.run), report.to_bytes())


@pytest.fixture
def run() -> Iterator[FakeRun]:
    with running(FakeRun()) as server:
        yield server


@pytest.fixture
def office(run: FakeRun, tmp_path: Path) -> Iterator[Office]:
    office = Office(Settings(store=str(tmp_path / "out"), model="testcard"), run)
    yield office
    office.desk.close()


# A day without trouble


def test_what_waits_starts_a_worker_once_and_what_comes_later_another(office: Office) -> None:
    office.publish("a", "b")

    first = office.look()
    assert (first.started, first.jobs, first.running) == (1, 2, 0)
    second = office.look()
    assert (second.started, second.running, second.words) == (0, 1, "1 running will take it")

    office.works()
    assert office.look().words == "nothing waits"
    office.publish("c")
    assert office.look().started == 1
    assert office.asked_for == 2
    assert [start.outcome for start in office.ledger().starts] == ["worked", ""]


def test_patience_is_told_with_the_moment_at_which_it_ends(office: Office) -> None:
    office.policy = PolicySettings(max_wait_s=500)
    office.publish("a")

    looked = office.look()

    assert looked.started == 0
    assert looked.look_again_s == pytest.approx(500, abs=30)
    assert "of 500 s" in looked.words


def test_a_worker_that_somebody_else_started_takes_what_waits(office: Office) -> None:
    """It holds a job, and no launcher knows of it: `nightreel work` in another terminal."""
    office.publish("a", "b")
    assert office.desk.queue.pull() is not None

    assert office.look().words == "1 running will take it"


def test_a_hold_starts_nobody(office: Office) -> None:
    office.publish("a")
    Holds(office.desk.store).put("the bill", utc_now())

    assert office.look().words == "on hold: the bill"
    assert office.asked_for == 0


def test_a_month_whose_money_is_spent_starts_nobody(office: Office) -> None:
    """A worker would look at the ledger and leave, again and again."""
    now = utc_now()
    spending = Spending(office.desk.store)
    wanted = Share(run="r", micro_usd=5_000_000, since=now, until=now + dt.timedelta(hours=1))
    spending.reserve(wanted, limit_micro_usd=5_000_000)
    office.publish("a")

    assert office.look().words == f"monthly_usd: all 5.00 USD of {now:%Y-%m} are spent or reserved"
    assert office.asked_for == 0

    # And what was only reserved, and is given back, may be spent again
    spending.settle(f"{now:%Y-%m}", "r", 4_000_000)
    assert office.look().started == 1


def test_a_delayed_retry_is_looked_at_when_it_is_due(office: Office) -> None:
    office.publish("a")
    delivery = office.desk.queue.pull()
    assert delivery is not None
    delivery.release(40)

    looked = office.look()
    assert looked.words == "nothing waits"
    assert looked.look_again_s == pytest.approx(40, abs=10)


def test_a_dry_run_says_what_would_be_done_and_changes_nothing(office: Office) -> None:
    office.publish("a")

    assert office.waker().look("test", dry_run=True).started == 1
    assert office.asked_for == 0
    assert office.ledger() == Ledger()


def test_a_nightly_hour_that_nobody_looked_at_is_made_up_for_by_the_next_look(office: Office) -> None:
    # Given a nightly hour at which the scheduler was down; what came after it waits for the next night
    five_ago = dt.datetime.fromtimestamp(office.now() - 300, dt.UTC)
    office.policy = PolicySettings(max_wait_s=math.inf, nightly=f"{five_ago:%H:%M}", zone="UTC")
    office.publish("after the hour")
    assert office.look().started == 0
    office.works()

    # But a job that came before makes the next look start a worker, once
    earlier = SqliteQueue(Path(office.settings.store) / ".nightreel/queue.db", clock=lambda: time.time() - 600)
    earlier.publish([Message(b"before the hour")])
    assert "and jobs from before wait" in office.look().words
    assert office.look().started == 0
    assert office.asked_for == 1
    earlier.close()


def test_a_look_that_tells_nothing_new_is_written_once_a_minute(office: Office) -> None:
    """One object takes about one write a second, and whatever comes in makes somebody look."""
    office.look()
    _, first = Starts(office.desk.store).read()
    office.look()
    assert Starts(office.desk.store).read()[1] == first

    office.ahead_s += STEP_S
    office.look()
    assert Starts(office.desk.store).read()[1] != first


# Somebody asks for a worker


def test_a_worker_that_somebody_asks_for_is_recorded_and_started_whatever_the_rule_says(office: Office) -> None:
    office.policy = PolicySettings(max_wait_s=9000)
    office.publish("a")
    assert office.look().started == 0
    recorded: list[str] = []

    def ask(start: Start) -> list[str]:
        [known] = office.ledger().starts
        recorded.append(f"{known.id} {known.state}")
        return ["mine"]

    looked = office.waker().start_one("asked for by hand", ask)

    [start] = office.ledger().starts
    assert recorded == [f"{start.id} decided"], "a dispatcher that is killed now leaves its start in the books"
    assert (start.state, start.ids, start.why, looked.started) == ("started", ("mine",), "asked for by hand", 1)
    assert office.look().words == "1 running will take it"
    assert office.asked_for == 0


def test_nobody_gets_a_worker_by_asking_that_would_leave_at_once_or_be_one_too_many(office: Office) -> None:
    def said(against: str = "") -> str:
        looked = office.waker().start_one("by hand", against=lambda: against)
        assert looked.started == 0
        return looked.words

    assert "nothing waits" in said()
    office.publish("a")
    assert said("its breaker is open") == "by hand: none is started: its breaker is open"

    Holds(office.desk.store).put("the bill", utc_now())
    assert "on hold: the bill" in said()
    Holds(office.desk.store).lift(utc_now())

    now, spending = utc_now(), Spending(office.desk.store)
    share = Share(run="r", micro_usd=5_000_000, since=now, until=now + dt.timedelta(hours=1))
    spending.reserve(share, limit_micro_usd=5_000_000)
    assert "all 5.00 USD" in said()
    spending.settle(f"{now:%Y-%m}", "r", 0)

    office.run.faults["RunJob"] = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "quota", times=1)
    assert office.look().started == 0
    assert "the last start came to nothing" in said()

    assert office.look(again=True).started == 1
    assert "1 of 1 workers are up" in said()
    assert len(office.run.up) == 1


# More than one who looks


def test_two_ticks_are_as_good_as_one(office: Office) -> None:
    office.publish("a")
    waker = office.waker()

    waker.poke("tick")
    waker.poke("tick")
    office.waker().poke("tick of another dispatcher")

    assert office.asked_for == 1


def test_a_crowd_of_events_is_looked_at_together(office: Office) -> None:
    """And the clock looks at what came in meanwhile."""
    waker = office.waker()
    assert waker.is_due
    for number in range(50):
        office.publish(str(number))
        waker.poke("a job")
    assert office.run.calls["ListExecutions"] == 1
    assert not waker.is_due

    deadline = time.monotonic() + 60
    while not waker.is_due:
        assert time.monotonic() < deadline
        time.sleep(CALM_S / 10)


def test_a_decision_is_made_again_when_somebody_else_decided_meanwhile(office: Office) -> None:
    """The list that it was made by is older than the other one's start."""
    office.publish("a")
    office.run.meanwhile = office.look

    assert office.look().words == "1 running will take it"
    assert office.asked_for == 1


DECIDE = """
import json, sys, time
import grpc
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.launchers.cloudrun import CloudRun
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_dispatcher.waker import Waker
from nightreel_worker.logs import configure
from nightreel_worker.settings import Settings
port, store = sys.argv[1:]
launcher = CloudRun("demo", "us-central1", "worker", channel=grpc.insecure_channel(f"127.0.0.1:{port}"))
settings = Settings(store=store, model="testcard", log_level="error")
configure(settings)
desk = Desk(settings, DispatcherSettings())
waker = Waker(desk, launcher, PolicySettings(max_wait_s=0))
for line in sys.stdin:
    time.sleep(max(0.0, float(line) - time.time()))
    print(waker.look("race").started, flush=True)
"""


def test_of_two_dispatchers_that_decide_at_once_one_starts_workers(office: Office) -> None:
    command = [sys.executable, "-c", DECIDE, str(office.run.port), office.settings.store]
    others = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    for round_ in range(50):
        office.publish(f"job {round_}")
        for other in others:
            assert other.stdin is not None
            other.stdin.write(f"{time.time() + 0.02}\n")
            other.stdin.flush()
        started = [int(other.stdout.readline()) for other in others if other.stdout]
        assert sum(started) == 1, f"round {round_}: {started}"
        assert len(office.run.up) == 1
        office.works()
    for other in others:
        other.communicate()
        assert other.returncode == 0
    assert office.asked_for == 50
    assert office.ledger().vain == 0


KILLED = """
import os, signal, sys
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_dispatcher.waker import Waker
from nightreel_worker.settings import Settings


class Killed:
    name = "killed"

    def executions(self):
        return []

    def start(self, count, wake, reason):
        os.kill(os.getpid(), signal.SIGKILL)


desk = Desk(Settings(store=sys.argv[1], model="testcard"), DispatcherSettings())
Waker(desk, Killed(), PolicySettings(max_wait_s=0)).look("test")
"""


def test_a_dispatcher_that_is_killed_between_record_and_launch_is_made_good_after_a_while_and_not_before(
    office: Office,
) -> None:
    office.publish("a")
    office.desk.store  # noqa: B018  # makes the folder
    result = subprocess.run([sys.executable, "-c", KILLED, office.settings.store], check=False)
    assert result.returncode == -signal.SIGKILL

    # Then the recorded start counts as running, for it may have happened
    assert office.look().words == "1 running will take it"
    office.ahead_s += APPEAR_S - 10
    assert office.look().started == 0

    # And when it would have been listed, the start is made good, without any further wait
    office.ahead_s += 11
    assert office.look().started == 1
    assert office.asked_for == 1


# Trouble with the launcher


def test_nobody_is_started_while_it_cannot_be_seen_who_runs(office: Office) -> None:
    office.publish("a")
    office.run.faults["ListExecutions"] = Fault(grpc.StatusCode.UNAVAILABLE, "try later")

    looked = office.look()
    assert looked.trouble
    assert "cannot see which workers run, so none is started: Cloud Run did not answer" in looked.words
    assert last(office.desk.store) == looked
    assert office.asked_for == 0

    office.run.faults.clear()
    assert office.look().started == 1


def test_a_start_whose_answer_was_lost_is_found_in_the_list(office: Office) -> None:
    office.publish("a")
    office.run.faults["RunJob"] = Fault(grpc.StatusCode.UNAVAILABLE, after=True)

    assert "gave no answer" in office.look().words
    office.ahead_s += APPEAR_S + 1
    assert office.look().words == "1 running will take it"
    assert office.asked_for == len(office.run.executions) == 1


def test_a_start_that_was_never_done_is_tried_again_when_that_is_clear(office: Office) -> None:
    office.publish("a")
    office.run.faults["RunJob"] = Fault(grpc.StatusCode.UNAVAILABLE)
    assert office.look().trouble
    office.run.faults.clear()

    # Not while the worker might still appear; then a pause, for the API was down
    office.ahead_s += APPEAR_S - 5
    assert office.look().words == "1 running will take it"
    office.ahead_s += 10
    assert "the last start came to nothing (Cloud Run did not answer" in office.look().words
    office.ahead_s += 60
    assert office.look().started == 1
    assert office.asked_for == 2


def looks_for(office: Office, s: float, each: Callable[[], None] = lambda: None) -> list[float]:
    """Look once a minute for so long; returns when Cloud Run was asked to start something, in seconds from the begin."""
    begin_s, asked = office.ahead_s, []
    while office.ahead_s - begin_s < s:
        before = office.asked_for
        office.look()
        each()
        if office.asked_for > before:
            asked.append(office.ahead_s - begin_s)
        office.ahead_s += STEP_S
    return asked


def test_a_quota_that_is_used_up_is_not_hammered_and_the_first_free_place_is_taken(office: Office) -> None:
    office.publish("a")
    office.run.faults["RunJob"] = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "no L4 is free")

    asked = looks_for(office, 3600)

    assert asked == [0, 300, 600, 900, 1380, 2340]
    looked = last(office.desk.store)
    assert looked is not None
    assert "no L4 is free" in looked.words
    assert looked.trouble

    # When one is free, the next try gets it, and all is forgotten once it has worked
    office.run.faults.clear()
    assert len(looks_for(office, 3600)) == 1
    office.works()
    office.look()
    assert office.ledger().vain == 0


def test_executions_that_die_at_their_start_do_not_bill_in_a_loop(office: Office) -> None:
    """Weights that are missing, say: each start would be paid for."""
    office.publish("a")
    office.run.dies = "exit code 3: no weights"

    asked = looks_for(office, 2400)

    gaps = [after - before for before, after in pairwise(asked)]
    assert gaps == [120, 180, 300, 540, 1020]
    assert office.look().words.endswith("UTC; when that is mended: nightreel wake --again")
    assert "the last 6 starts came to nothing (exit code 3: no weights" in office.look().words

    # Who has mended it need not wait; and once a worker has worked, the next trouble starts from the beginning
    office.run.dies = ""
    assert office.look(again=True).started == 1
    office.works()
    assert office.look().jobs == 0
    assert (office.ledger().vain, office.ledger().not_before) == (0, None)


def test_what_another_worker_did_says_nothing_of_a_start(office: Office) -> None:
    office.publish("a")
    office.run.dies = "exit code 3: no weights"
    office.look()
    leave_report(office.desk.store, "", 5, office.now())
    leave_report(office.desk.store, "another-start", 5, office.now())

    assert "the last start came to nothing (exit code 3: no weights" in office.look().words


def test_workers_that_find_nothing_to_do_are_not_started_for_ever(office: Office) -> None:
    """They look at another queue than the dispatcher, say."""
    office.publish("a")

    asked = looks_for(office, 3600, lambda: office.works(done=0))

    assert len(asked) == 6


# Pub/Sub, its figures minutes late


@pytest.fixture
def cloud_office(cloud: Callable[[], Places], run: FakeRun) -> Iterator[Office]:
    """On Google's emulator and a bucket."""
    places = cloud()
    office = Office(Settings(queue=places.queue_url, store=places.store_url, model="testcard"), run)
    yield office
    office.desk.close()


def test_on_pubsub_nothing_is_started_twice_for_figures_that_lag_and_nothing_is_left(cloud_office: Office) -> None:
    office, run = cloud_office, cloud_office.run
    office.ahead_s = -1000
    address = Address.of(office.settings.queue_url)
    figures = Monitoring("demo", address.name, f"{address.name}-urgent", run.channel)

    # Given jobs that somebody published by gcloud: no record speaks of them, and the figures do after three minutes
    office.publish("a", "b")
    assert office.look(figures).words == "nothing waits"
    run.samples = {address.name: (office.now() - 170, 2, 10)}
    assert office.look(figures).started == 1

    # When the worker has done them and left, the figures say for three more minutes that two wait: nobody is started
    office.works()
    for seen_s in (1, 60, 120, 160):
        office.ahead_s = -1000 + seen_s
        run.samples = {address.name: (office.now() - 180, 2, 400)}
        assert office.look(figures).words == "nothing waits"
    assert office.asked_for == 1

    # And what is taken in now counts at once, though no sample has seen it
    office.ahead_s = 0
    run.samples = {address.name: (office.now() - 180, 0, 0)}
    asked = job("late", "x")
    record = Asked(id="late", fingerprint=asked.fingerprint, duration_s=1.0, message=asked.to_json())
    Batches(office.desk.store).record("b", "test", utc_now(), [record])
    assert office.look(figures).started == 1
    assert office.asked_for == 2


def test_figures_that_may_not_be_read_are_told_and_work_goes_on(cloud_office: Office) -> None:
    office = cloud_office
    figures = Monitoring("demo", "films", "films-urgent", office.run.channel)
    office.run.faults["ListTimeSeries"] = Fault(grpc.StatusCode.PERMISSION_DENIED)

    looked = office.look(figures)

    assert (looked.started, looked.trouble) == (0, True)
    assert looked.words.startswith("nothing waits; Cloud Monitoring of demo may not be read")
    assert office.waker(figures).waiting() == 0


def test_the_clock_looks_when_a_look_is_due_and_goes_on_after_trouble(office: Office) -> None:
    looks: list[str] = []
    stop = threading.Event()

    class Looker:
        is_due = True

        def look(self, why: str) -> None:
            looks.append(why)
            if len(looks) == 3:
                stop.set()
            raise StoreUnavailable("gone for a moment")

    look_by_the_clock(Looker(), stop, poll_s=0.01)

    assert looks == ["the clock"] * 3


# From outside


def test_serving_starts_workers_that_leave_by_themselves_and_no_second_one_for_the_same_work(house: House) -> None:
    urgent = {"defaults": HEAD | {"priority": "urgent"}}
    with serving(house) as served:
        for name in ("early", "late"):
            # When an urgent job comes in, a worker is started for it, renders it, and leaves
            served.post(manifest(name, batch=House.batch, **urgent)).raise_for_status()
            until(partial(house.has_ended, name), f"the video of {name}")
            until(lambda: not house.processes("nightreel work"), "the worker's exit")
            until(lambda: is_over(served, house), "a look at what came of it")

        # Then it is told, and the dispatcher has started two workers in all
        assert [start.outcome for start in Starts(house.store).read()[0].starts] == ["worked", "worked"]
        assert served.client.get("/").json()["looked"]["words"] == "nothing waits"
        assert "Nothing waits (looked" in served.client.get("/console/").text
        logs = list((house.folder / "out/.nightreel/workers").glob("*.log"))
        assert len(logs) == 2

    # And whoever asks without a dispatcher is told the same
    status = house.work(*NIGHTREEL, "status")
    assert re.search(r"^workers: none started at \S+ \S+ UTC: nothing waits$", status.out, re.MULTILINE)
    found = json.loads(house.work(*NIGHTREEL, "workers", "--json").out)
    assert [(each["state"], "the queue is empty" in each["words"]) for each in found] == [("ended", True)] * 2


def is_over(served: Served, house: House) -> bool:
    """Ticks until the dispatcher has seen its last start end."""
    served.client.post("/tick").raise_for_status()
    return Starts(house.store).read()[0].starts[-1].outcome != ""


def test_wake_looks_once_and_says_why(house: House) -> None:
    house.enqueue(job("a", "x"))

    run = house.work(*NIGHTREEL, "wake", "--dry-run")
    assert (run.code, run.out.startswith("nothing to start: for ")) == (0, True)
    run = house.work(*NIGHTREEL, "wake", "--json", dispatcher_max_wait_s="0", dispatcher_launcher="none")
    assert (run.code, run.out) == (2, "")
    assert "set NIGHTREEL_DISPATCHER_LAUNCHER" in run.err
