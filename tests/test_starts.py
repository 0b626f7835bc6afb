"""The ledger of starts: what counts as running, what came of a start, and how long the next one waits."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest

from nightreel_dispatcher.launchers.base import Execution, State
from nightreel_dispatcher.looked import Looked, last
from nightreel_dispatcher.starts import APPEAR_S, KEPT_CLOSED, MOST_BACK_OFF_S, Ledger, Start, Starts
from nightreel_storage.errors import Conflict
from nightreel_storage.folder import FolderStore

T = dt.datetime(2026, 3, 2, 12, tzinfo=dt.UTC).timestamp()


def start(count: int = 1, id_: str = "w1", at_s: float = T, **fields: object) -> Start:
    at = dt.datetime.fromtimestamp(at_s, dt.UTC)
    return Start(id=id_, at=at, count=count, why="2 urgent", jobs=2, work_s=80.0).model_copy(update=fields)


def execution(id_: str = "e1", state: State = "running", wake: str = "w1", **fields: float | str) -> Execution:
    return Execution(id_, state, T, wake, **fields)  # type: ignore[arg-type]  # ended_at and words, by name


def after(ledger: Ledger, *executions: Execution, s: float = 0.0, worked: bool = True) -> Ledger:
    """The ledger as of `s` seconds later. worked: did the workers of each start end jobs?"""
    return ledger.updated(executions, T + s, lambda start: worked)


def running(ledger: Ledger, *executions: Execution, s: float = 0.0) -> int:
    return ledger.running(executions, T + s)


# What counts as running


@pytest.mark.parametrize("state", ["decided", "unclear"])
def test_a_start_whose_answer_is_not_known_counts_until_it_would_have_been_listed(state: str) -> None:
    ledger = Ledger(starts=(start(3, state=state),))

    assert running(ledger, s=APPEAR_S - 1) == 3
    assert running(ledger, s=APPEAR_S) == 0


def test_workers_that_are_listed_are_not_counted_twice() -> None:
    ledger = Ledger(starts=(start(3, state="started", ids=("e1", "e2", "e3")),))

    assert running(ledger, s=10) == 3
    assert running(ledger, execution("e1"), execution("e2", "starting"), s=10) == 3
    assert running(ledger, execution("e1"), execution("e2"), s=APPEAR_S) == 2


def test_a_start_that_was_granted_in_part_counts_what_was_granted() -> None:
    assert running(Ledger(starts=(start(3, state="started", ids=("e1",)),))) == 1
    assert running(Ledger(starts=(start(3, state="refused"),))) == 0


def test_workers_are_known_by_their_launchers_name_too() -> None:
    """Should a launcher not tell for which wake an execution was started."""
    ledger = Ledger(starts=(start(2, state="started", ids=("e1", "e2")),))

    assert running(ledger, execution("e1", wake=""), execution("e2", wake="")) == 2


def test_workers_that_somebody_else_started_run_too() -> None:
    assert running(Ledger(), execution("by-hand", wake="")) == 1


def test_a_worker_that_has_left_is_not_on_its_way_again() -> None:
    ledger = after(Ledger(starts=(start(2, state="started", ids=("e1", "e2")),)), execution("e1"), execution("e2"))
    gone = execution("e1", "ended", ended_at=T + 5)

    assert running(after(ledger, gone, execution("e2"), s=6), gone, execution("e2"), s=6) == 1
    assert running(after(ledger, execution("e2"), s=6), execution("e2"), s=6) == 1  # not listed at all any more


# What came of it


def closed(ledger: Ledger, *executions: Execution, s: float, worked: bool) -> Ledger:
    ledger = after(ledger, *executions, s=s, worked=worked)
    assert ledger.starts[-1].outcome
    return ledger


def test_a_start_is_open_while_any_of_its_workers_is_up_or_may_come_up() -> None:
    ledger = Ledger(starts=(start(2, state="started", ids=("e1", "e2")),))
    gone = execution("e1", "failed", ended_at=T + 1)

    assert after(ledger, gone, s=2).starts[0].outcome == ""
    assert after(ledger, gone, execution("e2"), s=APPEAR_S).starts[0].outcome == ""
    assert after(ledger, gone, s=APPEAR_S).starts[0].outcome == "worked"


def test_workers_that_ended_and_had_done_nothing_make_the_next_start_wait() -> None:
    ledger = Ledger(starts=(start(state="started", ids=("e1",)),))
    died = execution("e1", "failed", ended_at=T + 4, words="no weights")

    ledger = closed(ledger, died, s=10, worked=False)

    assert (ledger.starts[0].outcome, ledger.vain, ledger.problem) == ("nothing", 1, "no weights")
    assert ledger.waits_s(T + 10) == 60
    assert ledger.waits_s(T + 70) == 0


def test_the_wait_doubles_up_to_an_hour_and_a_start_that_worked_ends_it() -> None:
    ledger, waits = Ledger(), []
    for number in range(9):
        ledger = ledger.with_start(start(id_=f"w{number}", state="started", ids=(f"e{number}",)))
        ledger = closed(ledger, execution(f"e{number}", "failed", f"w{number}", ended_at=T), s=0, worked=False)
        waits.append(ledger.waits_s(T))
    assert waits == [60, 120, 240, 480, 960, 1920, 3600, 3600, MOST_BACK_OFF_S]

    ledger = ledger.with_start(start(id_="well", state="started", ids=("well",)))
    ledger = closed(ledger, execution("well", "ended", "well", ended_at=T), s=0, worked=True)
    assert (ledger.vain, ledger.waits_s(T), ledger.problem) == (0, 0, "")


def test_each_start_is_judged_once() -> None:
    died = execution("e1", "failed", ended_at=T)
    ledger = closed(Ledger(starts=(start(state="started", ids=("e1",)),)), died, s=0, worked=False)

    assert after(ledger, died, s=30, worked=False) == ledger


def test_a_start_that_the_launcher_was_never_asked_for_is_nobodys_fault() -> None:
    """The dispatcher was killed between recording it and asking: the next start makes that good, at once."""
    ledger = closed(Ledger(starts=(start(state="decided"),)), s=APPEAR_S, worked=False)

    assert (ledger.starts[0].outcome, ledger.vain, ledger.waits_s(T)) == ("never", 0, 0)


def test_a_start_that_got_no_answer_and_no_worker_makes_the_next_one_wait() -> None:
    ledger = closed(Ledger(starts=(start(state="unclear", problem="no answer"),)), s=APPEAR_S, worked=False)

    assert (ledger.starts[0].outcome, ledger.vain, ledger.problem) == ("never", 1, "no answer")


def test_a_refusal_waits_as_long_as_the_launcher_says_and_longer_each_time() -> None:
    ledger = Ledger(starts=(start(),)).answered(start(state="refused", problem="no quota"), T, 300.0)
    assert (ledger.starts[0].outcome, ledger.vain, ledger.waits_s(T)) == ("nothing", 1, 300)

    for number in range(4):
        again = start(id_=f"again-{number}")
        refused = again.model_copy(update={"state": "refused"})
        ledger = ledger.with_start(again).answered(refused, T, 300.0)
    assert ledger.waits_s(T) == 960


def test_an_answer_changes_what_the_launcher_said_and_nothing_else() -> None:
    """Meanwhile another dispatcher may have seen the worker come and go."""
    seen = start(outcome="worked", seen=1)

    ledger = Ledger(starts=(seen,)).answered(start(state="started", ids=("e1",)), T)

    assert ledger.starts[0] == seen.model_copy(update={"state": "started", "ids": ("e1",)})


# The object in the store


def test_starts_that_are_over_are_kept_for_people_and_not_for_ever() -> None:
    over = tuple(start(id_=f"over-{number}", outcome="worked") for number in range(KEPT_CLOSED + 5))
    open_ = start(id_="open", at_s=T - 1, state="started", ids=("e1",))

    kept = after(Ledger(starts=(open_, *over)), execution("e1", wake="open")).starts

    assert [each.id for each in kept] == ["open", *(each.id for each in over[5:])]


def test_of_two_writers_who_read_the_same_the_second_is_told(tmp_path: Path) -> None:
    starts = Starts(FolderStore(tmp_path))
    ledger, generation = starts.read()
    starts.write(ledger.with_start(start()), generation)

    with pytest.raises(Conflict):
        starts.write(ledger.with_start(start(id_="second")), generation)
    assert [each.id for each in starts.read()[0].starts] == ["w1"]


def test_the_last_words_can_be_read_without_the_rest(tmp_path: Path) -> None:
    store = FolderStore(tmp_path)
    assert last(store) is None

    looked = Looked(at=dt.datetime.fromtimestamp(T, dt.UTC), why="tick", words="nothing waits")
    Starts(store).write(Ledger(looked=looked), 0)

    assert last(store) == looked
