"""All backends as one launcher: who is asked, who is left alone, and what is remembered."""

from __future__ import annotations

import datetime as dt
import math
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest
from finished import end
from house import job

from nightreel_dispatcher.backend_lines import lines
from nightreel_dispatcher.backends import Backend
from nightreel_dispatcher.board import BackendState, Boards
from nightreel_dispatcher.expenses import Expenses
from nightreel_dispatcher.fleet import Fleet, Member
from nightreel_dispatcher.health import Answer, ask
from nightreel_dispatcher.launchers.base import (
    Execution,
    LauncherError,
    LauncherUnavailable,
    NoneMay,
    NotAllowed,
    QuotaExceeded,
    Refused,
)
from nightreel_dispatcher.routes import Wish
from nightreel_pipelines.models import load_models
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_worker.report import RunReport, run_name

BEGIN = 1_800_000_000.0


@dataclass
class Yard:
    """A launcher whose workers are a list."""

    name: str
    town: Town
    trouble: LauncherError | None = None
    deaf: bool = False
    """It does not answer when it is asked who runs."""
    dies: bool = False
    """Each worker fails at its start."""
    workers: dict[str, Execution] = field(default_factory=dict)
    routes: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    asked: int = 0
    """For workers."""

    def start(self, count: int, wake: str, reason: str) -> Sequence[str]:
        self.asked += 1
        if self.trouble:
            raise self.trouble
        self.routes += [reason] * count
        ids = [f"{self.name}{len(self.workers) + number}" for number in range(count)]
        for id_ in ids:
            self.workers[id_] = Execution(
                id_, "failed" if self.dies else "running", self.town.now, wake, words="no weights"
            )
        return ids

    def executions(self) -> Sequence[Execution]:
        if self.deaf:
            raise LauncherUnavailable("no answer in 15 s")
        return list(self.workers.values())

    def cancel(self, id: str) -> None:
        self.ended.append(id)
        self.leave(id)

    def leave(self, id: str) -> None:
        self.workers[id] = replace(self.workers[id], state="ended", ended_at=self.town.now)

    def works(self) -> None:
        """All workers that are up end a job, report, and leave."""
        for each in list(self.workers.values()):
            if each.is_up:
                self.town.report(self.name, each.wake, done=1)
                self.leave(each.id)


class Town:
    """A store, a clock and two backends, of which the first can be asked how it is."""

    def __init__(self, folder: Path) -> None:
        self.store: Store = open_store(str(folder / "out"))
        self.now = BEGIN
        self.well = True
        self.waiting = 5
        self.local, self.cloud = Yard("local", self), Yard("cloud", self)
        self._wakes = 0

    def fleet(self, *, wish: Wish | None = None, ask_every_s: float = 0, **changes: object) -> Fleet:
        """A dispatcher's. Each call is another dispatcher."""
        local = Backend(name="local", launcher="process", model="testcard", timeout_s=60)
        cloud = Backend(name="cloud", launcher="cloudrun", model="pocket", price="1.5", max_workers=3)
        members = [Member(local.model_copy(update=changes), self.local, self.asked), Member(cloud, self.cloud)]
        expenses = Expenses(lambda: self.store, load_models(), None, clock=lambda: self.now)
        fleet = Fleet(members, Boards(lambda: self.store), expenses, lambda: self.waiting, wish or Wish(),
                      ask_every_s=ask_every_s, now=lambda: self.now)  # fmt: skip
        fleet.executions()
        return fleet

    def asked(self) -> Answer:
        return Answer(self.well, "" if self.well else "http://local/: Connection refused", 0.01)

    def start(self, fleet: Fleet, count: int = 1) -> list[str]:
        self._wakes += 1
        at = dt.datetime.fromtimestamp(self.now, dt.UTC)
        return list(fleet.start(count, f"{at:%Y%m%dT%H%M%S}-{self._wakes}", "night"))

    def report(self, backend: str, wake: str, **figures: object) -> None:
        at = dt.datetime.fromtimestamp(self.now, dt.UTC)
        model = {"local": "testcard", "cloud": "pocket"}[backend]
        told = {"run": f"{at:%Y%m%dT%H%M%S}-{wake[-4:]}{backend}", "wake": wake, "backend": backend, "model": model,
                "started_at": at, "ended_at": at, "why": "the queue is empty", "unavailable": False}  # fmt: skip
        report = RunReport.model_validate(told | figures)
        self.store.put(run_name(report.run), report.to_bytes())

    def state(self, name: str = "local") -> BackendState:
        return Boards(lambda: self.store).read().state(name)

    def later(self, fleet: Fleet, seconds: float) -> None:
        self.now += seconds
        fleet.executions()


@pytest.fixture
def town(tmp_path: Path) -> Town:
    return Town(tmp_path)


def test_workers_are_listed_and_ended_by_their_backends_name(town: Town) -> None:
    fleet = town.fleet()

    assert town.start(fleet, 3) == ["local:local0", "cloud:cloud0", "cloud:cloud1"]
    assert [each.id for each in fleet.executions()] == ["local:local0", "cloud:cloud0", "cloud:cloud1"]
    assert town.local.routes == [""]
    assert set(town.cloud.routes) == {"besides local (testcard), which has no room for more"}

    fleet.cancel("cloud:cloud1")
    assert town.cloud.ended == ["cloud1"]
    for unknown in ("cloud1", "nowhere:x"):
        with pytest.raises(NotAllowed, match="there is no worker"):
            fleet.cancel(unknown)


def test_a_backend_that_lies_does_not_bill_in_a_loop_and_the_next_one_works(town: Town) -> None:
    """It answers well, and each of its workers fails at its start. Looked at every three minutes, for three hours."""
    town.local.dies = True
    fleet = town.fleet()

    for _ in range(60):
        town.start(fleet)
        town.cloud.works()
        town.later(fleet, 180)

    assert len(town.local.workers) == 11, "two are borne, then pauses grow from half a minute to half an hour"
    assert len(town.cloud.workers) == 60 - 11
    assert "its worker failed: no weights" in town.state().breaker.words
    assert town.cloud.routes[-1].startswith(
        "instead of local (testcard): it failed 11 times in a row: its worker failed"
    )


def test_when_all_are_down_nothing_is_started_and_when_one_is_back_one_worker_tries_it(town: Town) -> None:
    town.cloud.trouble = NotAllowed("the job is not there: scripts/deploy")
    town.well = False
    fleet = town.fleet()
    town.later(fleet, 5)

    with pytest.raises(NoneMay) as told:
        town.start(fleet, 3)
    assert "local: local did not answer since 08:00:00 UTC (http://local/: Connection refused)" in str(told.value)
    assert "cloud: it failed once: the job is not there: scripts/deploy; left alone until 08:00:35 UTC" in str(
        told.value
    )
    assert [line.light for line in lines(fleet, fleet.board())] == ["red", "red"]

    # A dispatcher that is started anew knows it all
    town.well = True
    fleet = town.fleet(max_workers=3)
    with pytest.raises(NoneMay, match="local: it failed once"):
        town.start(fleet, 3)

    # When the pause is over, one worker tries it; the others wait for what comes of it
    town.cloud.deaf = True
    town.later(fleet, 40)
    assert town.start(fleet, 3) == ["local:local0"]
    town.later(fleet, 10)
    with pytest.raises(NoneMay, match="one worker tries it"):
        town.start(fleet, 3)
    town.local.works()
    town.later(fleet, 10)
    assert town.state().breaker.opened == 0
    assert len(town.start(fleet, 3)) == 3


def test_a_quota_is_not_asked_for_before_its_time_and_the_next_backend_is_asked_at_once(town: Town) -> None:
    town.local.trouble = QuotaExceeded("no machines", retry_s=300)
    fleet = town.fleet()

    assert town.start(fleet) == ["cloud:cloud0"]
    assert town.cloud.routes == [
        "instead of local (testcard): it failed once: no machines; left alone until 08:05:00 UTC"
    ]
    assert town.state().running == 0


def test_each_backend_is_asked_once_in_a_start_also_one_whose_refusals_are_borne(town: Town) -> None:
    town.local.trouble = Refused("not now")
    fleet = town.fleet(retries=5)

    assert town.start(fleet, 2) == ["cloud:cloud0"], "what is missing the next look asks for"
    assert (town.local.asked, town.cloud.asked) == (1, 1)
    assert town.state().breaker.failures == 1


def test_a_start_that_got_no_answer_counts_as_on_its_way(town: Town) -> None:
    town.local.trouble = LauncherUnavailable("no answer in 15 s")
    fleet = town.fleet(retries=5)

    assert town.start(fleet) == ["cloud:cloud0"]
    assert town.state().running == 1
    town.local.trouble = None
    assert town.start(fleet) == ["cloud:cloud1"], "it has all its workers, as far as is known"
    town.later(fleet, 130)
    assert town.state().running == 0


def test_a_launcher_that_does_not_answer_is_away_and_its_workers_are_not_forgotten(town: Town) -> None:
    fleet = town.fleet()
    town.start(fleet)
    fleet.executions()

    town.local.deaf = True

    assert [each.id for each in fleet.executions()] == ["local:local0"]
    assert town.state().health.words == "no answer in 15 s"
    assert town.state().begun
    town.later(town.fleet(), 200)
    assert town.state().begun, "a dispatcher that was started anew knows of none, and takes that for no end"


def test_a_source_that_is_away_for_good_has_its_workers_leave(town: Town) -> None:
    fleet = town.fleet()
    town.start(fleet)
    town.well = False

    fleet.executions()
    assert town.local.ended == [], "one answer may be missed"
    fleet.executions()
    assert town.local.ended == ["local0"]


def test_a_worker_of_which_nothing_is_heard_in_time_is_ended_and_counts_as_failed(town: Town) -> None:
    fleet = town.fleet()
    town.start(fleet)

    town.later(fleet, 59)
    assert town.state().breaker.failures == 0
    town.later(fleet, 2)
    assert town.state().breaker.words == "its worker left no report within 60 s"
    assert town.local.ended == ["local0"]


def test_who_began_before_the_breaker_opened_says_nothing_new(town: Town) -> None:
    """A worker that is told to leave because its source is away may have ended jobs, or have failed of the same cause."""
    fleet = town.fleet(retries=0)
    town.start(fleet)
    town.well = False
    town.later(fleet, 1)
    assert town.state().breaker.opened == 1

    town.report("local", town.local.workers["local0"].wake, done=1)
    town.later(fleet, 1)

    assert (town.state().breaker.opened, town.state().begun) == (1, ())


def test_the_waker_hears_of_what_may_call_for_another_worker(town: Town) -> None:
    fleet, heard, stop = town.fleet(), list[str](), threading.Event()
    town.start(fleet)

    def changed(news: str) -> None:
        heard.append(news)
        if len(heard) == 2:
            stop.set()
        town.well = True

    tending = threading.Thread(target=fleet.tend, args=(stop, changed))
    tending.start()
    time.sleep(1.5)
    town.well = False
    tending.join(30)

    assert heard == ["backend local does not answer", "backend local answers again"]


def first_of(heard: list[str], stop: threading.Event) -> Callable[[str], None]:
    """Hears one piece of news."""

    def changed(news: str) -> None:
        heard.append(news)
        stop.set()

    return changed


def test_a_worker_that_came_and_went_between_two_looks_is_missed(town: Town) -> None:
    fleet, heard, stop = town.fleet(ask_every_s=3), list[str](), threading.Event()
    tending = threading.Thread(target=fleet.tend, args=(stop, first_of(heard, stop)))
    tending.start()
    time.sleep(0.5)
    [id_] = town.start(fleet)
    town.local.leave(id_.partition(":")[2])
    tending.join(30)
    stop.set()

    assert [words.partition(",")[0] for words in heard] == ["backend local has 0 workers"]


def test_a_backend_whose_workers_shall_leave_is_looked_at_soon_again(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nightreel_dispatcher.fleet.ASK_AGAIN_S", 1.5)
    fleet, heard, stop = town.fleet(ask_every_s=3600, retries=0), list[str](), threading.Event()
    town.start(fleet)
    town.well = False
    assert fleet.check().state("local").running == 1
    tending = threading.Thread(target=fleet.tend, args=(stop, first_of(heard, stop)))
    tending.start()
    tending.join(30)
    stop.set()

    assert [words.partition(",")[0] for words in heard] == ["backend local has 0 workers"]


def test_workers_that_find_nothing_to_do_are_not_started_for_ever(town: Town) -> None:
    fleet = town.fleet(retries=0)
    [id_] = town.start(fleet)
    town.report("local", town.local.workers["local0"].wake)
    town.local.leave("local0")

    fleet.executions()

    assert town.state().breaker.words == "its worker found nothing to do"
    assert id_ == "local:local0"


def test_what_a_backend_has_left_to_others_goes_to_these_until_it_has_ended(town: Town) -> None:
    asked = job("film", "x")
    town.report("local", "before", passed=("b/film",))
    town.waiting = 1
    fleet = town.fleet()

    assert town.start(fleet) == ["cloud:cloud0"]
    assert town.cloud.routes == ["instead of local (testcard): testcard has left what waits to others"]
    end(town.store, asked, "failed", "nobody could")
    assert town.start(fleet) == ["local:local0"]


def test_the_preferred_backend_is_remembered_with_who_said_so(town: Town) -> None:
    town.fleet().prefer("cloud", "ann")

    fleet = town.fleet()
    assert town.start(fleet) == ["cloud:cloud0"]
    said = fleet.board().prefer
    assert said is not None
    assert (said.name, said.by) == ("cloud", "ann")
    assert [line.reason for line in lines(fleet, fleet.board())] == ["preferred", "not needed: cloud will do"]

    fleet.prefer("", "ann")
    assert town.start(fleet) == ["local:local0"]
    with pytest.raises(NotAllowed, match="no backend clod; there are local, cloud"):
        fleet.prefer("clod", "ann")


def test_a_worker_that_somebody_asks_for_is_started_at_that_backend_and_its_receipts_say_so(town: Town) -> None:
    """Also where others would be done in time: these 110 s are enough for the first, and not for the second."""
    fleet = town.fleet(wish=Wish(finish_within_s=110))

    assert fleet.against("cloud") == ""
    assert fleet.start_at("cloud", "20270115T080000-1") == ["cloud:cloud0"]

    assert (town.local.asked, town.cloud.routes) == (0, ["asked for by hand"])
    assert (town.state("cloud").running, town.state("cloud").begun[0].ids) == (1, ("cloud0",))


def test_what_no_wish_overrides_holds_for_who_asks_for_a_worker_too(town: Town) -> None:
    """And no other backend is asked instead."""
    town.well = False
    fleet = town.fleet(wish=Wish(max_video_usd=0.0001))

    for name, reason in (("local", "local did not answer since"), ("cloud", "0.0001 are allowed")):
        assert reason in fleet.against(name)
        with pytest.raises(NoneMay, match=reason):
            fleet.start_at(name, "w")

    assert (town.local.asked, town.cloud.asked) == (0, 0)
    assert town.state("cloud").breaker.failures == 0


def test_a_backend_that_refuses_who_asks_for_a_worker_is_left_alone_and_the_others_are_not(town: Town) -> None:
    town.cloud.trouble = QuotaExceeded("no machines", retry_s=300)
    fleet = town.fleet()

    with pytest.raises(NoneMay, match="it failed once: no machines; left alone until 08:05:00 UTC") as told:
        fleet.start_at("cloud", "w")

    assert told.value.retry_s < 5, "the waker does not wait for it"
    assert "left alone until" in fleet.against("cloud")
    assert town.start(fleet) == ["local:local0"]
    assert (town.cloud.asked, town.local.asked) == (1, 1)


def test_a_glance_tells_how_the_backends_are_and_ends_and_remembers_nothing(town: Town) -> None:
    fleet = town.fleet(retries=0)
    town.start(fleet)
    before = fleet.board()
    town.well = False

    seen = fleet.glance()

    assert (seen.state("local").health.ok, seen.state("local").running) == (False, 1)
    assert (town.local.ended, fleet.board()) == ([], before)


def test_a_backend_of_which_nothing_can_be_asked_is_not_called_well(town: Town) -> None:
    silent = Backend(name="silent", launcher="none", model="testcard")
    expenses = Expenses(lambda: town.store, load_models(), None, clock=lambda: town.now)
    fleet = Fleet([Member(silent, None)], Boards(lambda: town.store), expenses, lambda: 0, Wish())
    fleet.executions()

    for board in (fleet.board(), fleet.check(), fleet.glance()):
        assert [(line.light, line.state) for line in lines(fleet, board)] == [("yellow", "nobody has asked it")]


def test_what_a_video_costs_is_measured_by_the_backends_own_runs(town: Town) -> None:
    fleet = town.fleet()
    guessed = {line.name: line for line in lines(fleet, fleet.board())}
    assert (guessed["cloud"].measured, guessed["local"].video_usd) == (False, 0.0)
    assert guessed["cloud"].video_usd == pytest.approx(guessed["cloud"].video_s * 1.5 / 3600, abs=1e-6)

    town.report("cloud", "w", done=4, usd=0.02)

    fleet = town.fleet(wish=Wish(max_video_usd=0.004))
    measured = {line.name: line for line in lines(fleet, fleet.board())}
    assert (measured["cloud"].measured, measured["cloud"].video_usd) == (True, 0.005)
    assert measured["cloud"].reason == "a video costs 0.0050 USD, 0.0040 are allowed"


def test_the_board_is_written_when_something_changed_and_not_for_each_look(town: Town) -> None:
    fleet = town.fleet()
    written = fleet.board().at

    town.later(fleet, 29)
    assert fleet.board().at == written
    town.later(fleet, 2)
    assert fleet.board().at != written


@pytest.mark.parametrize("address", ["http://127.0.0.1:9/", "http://[nonsense"])
def test_an_address_that_nobody_answers_at_is_told_in_words(address: str) -> None:
    answer = ask(address, timeout_s=2)

    assert not answer.ok
    assert answer.words.startswith(address)
    assert math.isfinite(answer.latency_s)
