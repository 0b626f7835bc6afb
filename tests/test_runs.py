"""Reports of runs: kept while a run works, shown by `nightreel runs`. Real workers."""

from __future__ import annotations

import datetime as dt
import json
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from house import House, Run, job, kill, until

from nightreel_storage.base import Entry
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreError
from nightreel_storage.folder import FolderStore
from nightreel_worker.history import Earlier, History
from nightreel_worker.report import RunReport, run_name
from nightreel_worker.reports import Reports

NIGHTREEL = (sys.executable, "-m", "nightreel")


def report(run: str = "a", **fields: object) -> RunReport:
    begun = dt.datetime(2026, 3, 1, 2, tzinfo=dt.UTC)
    known = {
        "run": run,
        "started_at": begun,
        "ended_at": begun + dt.timedelta(minutes=5),
        "why": "",
        "unavailable": False,
    }
    return RunReport.model_validate(known | fields)


def runs(house: House, *arguments: str) -> Run:
    return house.work(*NIGHTREEL, "runs", *arguments)


def put(house: House, *reports: RunReport) -> None:
    for each in reports:
        house.store.put(run_name(each.run), each.to_bytes())


# While a run works


def test_a_report_is_kept_again_and_again_and_the_last_one_stays(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    calls = 0

    def now() -> RunReport:
        nonlocal calls
        calls += 1
        return report(state="running", done=calls)

    with Reports(store, now, every_s=0.02) as reports:
        until(lambda: calls > 3, "some reports")
        reports.keep_last(report(why="the end", done=99))
        threading.Event().wait(0.1)

    [kept] = History.read(store).runs
    assert (kept.state, kept.why, kept.done) == ("ended", "the end", 99)


class Deaf(FolderStore):
    """Puts what it is given, and says the first time that it could not."""

    puts = 0

    def put(self, *args: Any, **options: Any) -> Entry:
        entry = super().put(*args, **options)
        self.puts += 1
        if self.puts == 1:
            raise StoreError("no answer")
        return entry


def test_an_answer_that_was_lost_does_not_keep_the_last_report_out(tmp_path: Path) -> None:
    store = Deaf(tmp_path)
    reports = Reports(store, report)

    reports.keep_last(report(why="one"))
    reports.keep_last(report(why="two"))

    assert [each.why for each in History.read(store).runs] == ["two"]


def test_a_run_does_not_take_its_own_report_for_an_earlier_runs(tmp_path: Path) -> None:
    store = open_store(str(tmp_path))
    for run in ("a", "b"):
        store.put(run_name(run), report(run, state="running").to_bytes())

    assert [each.run for each in Earlier(store, "b").read().runs] == ["a"]


def test_a_run_that_is_killed_leaves_what_it_had_done(house: House) -> None:
    # Given a run that has made one job and works for long on the next
    house.enqueue(job("one", "x"), job("two", *(f"slow {number}" for number in range(20))))
    process = house.start(price="3600")
    until(lambda: house.has_ended("one"), "the first job", process)
    until(lambda: History.read(house.store).runs, "its report", process)

    kill(process)

    [left] = History.read(house.store).runs
    assert (left.state, left.done) == ("running", 1)
    assert left.stages_s["render"] > 0
    assert left.usd == pytest.approx(left.seconds, abs=0.01)
    assert [row.jobs for row in left.taken] == [1]
    assert "running, or killed after" in runs(house).out


# The page


def test_the_last_runs_are_told_in_a_line_each(house: House) -> None:
    assert runs(house).out == "no run has left a report yet\n"
    stages = {"start": 1.0, "import": 2.0, "load": 3.0, "render": 40.0, "film": 5.0, "idle": 7.0}
    put(
        house,
        report("20260301T020000-a", stages_s=stages, seconds=58.0, usd=0.25, done=3, why="the queue is empty"),
        report("20260302T020000-b", state="running", failed=1, returned=2),
    )

    lines = runs(house).out.splitlines()

    assert lines[1].split() == [
        "20260301T020000-a", "2026-03-01", "02:00", "3", "made", "58", "45", "6", "7", "0.2500", "the", "queue", "is", "empty"
    ]  # fmt: skip
    assert "1 failed, 2 given back" in lines[2]
    assert lines[2].rstrip().endswith("running, or killed after 02:05:00")


def test_one_run_is_told_whole_with_a_bar_for_each_stage(house: House) -> None:
    stages = {"drain": 1.0, "load": 10.0, "render": 20.0}
    put(house, report("20260301T020000-a", stages_s=stages, seconds=31.0, usd=0.31, jobs_usd=0.2, shared_usd=0.11,
                      done=2, lost_s=1.5, price="cloudrun-l4", why="the queue is empty"))  # fmt: skip

    out = runs(house, "20260301").out

    assert "    load       10.0 s  32.3%  " + "#" * 20 + "\n" in out
    assert "  render       20.0 s  64.5%  " + "#" * 40 + "\n" in out
    assert out.index("load") < out.index("render") < out.index("drain")
    assert "0.310000 USD at cloudrun-l4\n" in out
    assert "0.200000 on receipts, 0.110000 shared" in out
    assert "0.155000 a video, all shared out; 15.5 s a video" in out
    assert "1.5 s went to jobs that got no receipt from this run" in out


def test_programs_get_the_reports(house: House) -> None:
    put(house, report("a1", done=3), report("a2"))

    assert [each["run"] for each in json.loads(runs(house, "--json").out)] == ["a1", "a2"]
    assert json.loads(runs(house, "a1", "--json").out)["done"] == 3


def test_a_run_that_is_not_there_or_not_the_only_one_is_refused_in_a_line(house: House) -> None:
    put(house, report("a1"), report("a2"))

    none, two = runs(house, "b"), runs(house, "a")

    assert (none.code, none.err) == (2, "nightreel: no run begins with b; see: nightreel runs\n")
    assert (two.code, two.err) == (2, "nightreel: 2 runs begin with a; see: nightreel runs\n")
