"""What a run cost: its report and the receipts of its jobs add up, whatever became of them. Real workers."""

from __future__ import annotations

import json
import signal
import sys
import time
from collections.abc import Callable

import pytest
from house import House, finish, job, kill, until

from nightreel_storage.keyframes import Keyframes
from nightreel_storage.receipts import Receipts
from nightreel_worker.history import History
from nightreel_worker.report import RunReport

NIGHTREEL = (sys.executable, "-m", "nightreel")
PRICE = "1.42"  # an hour
CLOSE_S = 0.5  # that the start of a process as its parent sees it may lie before what the system says


def check(house: House, report: RunReport, began: float) -> None:
    """Receipts and report add up, to the millionth; and the report's seconds are those of the process."""
    costs = [receipt.cost for receipt in Receipts(house.store).list("b") if receipt.run == report.run and receipt.cost]
    assert micro(report.usd) == sum(micro(cost.usd) for cost in costs) + micro(report.shared_usd)
    assert micro(report.jobs_usd) == sum(micro(cost.usd) for cost in costs)
    assert report.jobs_s == pytest.approx(sum(cost.seconds for cost in costs), abs=0.001 * (1 + len(costs)))
    assert report.usd == pytest.approx(report.seconds * float(PRICE) / 3600, abs=2e-6)
    assert report.seconds == pytest.approx(sum(report.stages_s.values()), abs=0.01)
    assert report.seconds == pytest.approx(report.ended_at.timestamp() - began, abs=CLOSE_S)
    assert {cost.price for cost in costs} <= {report.price} == {"1.42 USD an hour"}


def micro(usd: float) -> int:
    return round(usd * 1e6)


def last_run(house: House) -> RunReport:
    return History.read(house.store).runs[-1]


def test_a_run_with_every_kind_of_end_adds_up(house: House) -> None:
    # Given jobs that are made, that fail, that are called off, and that are cut short
    house.enqueue(
        job("made", "half a second a"),
        job("refused", "refuse"),
        job("crashed", "kill the child"),
        job("shared", "half a second a", "half a second b"),
        job("called-off", "slow 1"),
        job("cut-short", "slow 2"),
    )
    began = time.time()
    process = house.start(price=PRICE, max_attempts="1", stall_s="60")
    until(lambda: house.has_ended("shared") and house.attempts("called-off"), "the first four", process)
    time.sleep(0.5)  # so that there is something to lose
    assert house.work(*NIGHTREEL, "cancel", "b", "called-off").code == 0
    until(lambda: house.attempts("called-off")[-1].end and house.attempts("cut-short"), "the last job", process)
    time.sleep(0.5)
    process.send_signal(signal.SIGTERM)
    run = finish(process)

    assert run.code == 0, run.err
    report = last_run(house)
    check(house, report, began)
    assert (report.done, report.failed, report.cancelled, report.returned) == (2, 2, 1, 1)
    # And every stage that a run can be in had its time, and what has no receipt is lost
    assert {"start", "import", "render", "film", "upload", "drain"} <= report.stages_s.keys()
    assert report.lost_s > 0.5
    assert report.jobs_s + report.lost_s < report.seconds
    for name in ("made", "shared", "crashed"):
        cost = house.receipt(name).cost
        assert cost is not None
        assert cost.seconds > 0
    assert house.receipt("called-off").cost is None


def test_the_run_after_a_killed_one_has_its_own_costs_alone(house: House) -> None:
    house.enqueue(job("film", "first", "slow once"))
    killed = house.start(price=PRICE)
    slow_begun = house.folder / "slow-once.done"
    until(lambda: Keyframes(house.store).fingerprints() and slow_begun.exists(), "a stored keyframe", killed)
    kill(killed)
    began = time.time()

    assert house.work_all(price=PRICE).code == 0

    report = last_run(house)
    assert len(History.read(house.store).runs) == 1
    check(house, report, began)
    made = house.receipt("film").made
    assert made is not None
    assert made.reused >= 1


def test_a_video_that_is_adopted_costs_what_looking_at_it_took(house: House) -> None:
    house.enqueue(job("film", "x"))
    struck = house.work(*house.struck("nightreel_worker.commit:Committer._put", "kill_worker", after=True), price=PRICE)
    assert struck.code != 0
    began = time.time()

    assert house.work_all(price=PRICE).code == 0

    report = last_run(house)
    check(house, report, began)
    assert house.receipt("film").outputs[0].adopted
    assert house.receipt("film").made is None
    assert house.receipt("film").cost is not None
    assert "render" not in report.stages_s
    assert "upload" in report.stages_s
    assert report.taken == ()


def test_a_load_that_outlives_its_job_ends_all_the_same(make_house: Callable[..., House]) -> None:
    """Else everything that follows would be booked to it."""
    house = make_house(load="after the fault")
    house.enqueue(job("called-off", "x"), job("film", "half a second y"))
    process = house.start(price=PRICE)
    until(lambda: house.attempts("called-off"), "the first job", process)
    until(lambda: house.attempts("film"), "the second one to be in line", process)
    assert house.work(*NIGHTREEL, "cancel", "b", "called-off").code == 0
    until(lambda: house.attempts("called-off")[-1].end, "the first job's end", process)
    house.end_the_fault()
    assert finish(process).code == 0

    report = last_run(house)
    assert report.stages_s["load"] > 0
    assert report.stages_s["render"] >= 0.5
    cost = house.receipt("film").cost
    assert cost is not None
    assert 0.5 <= cost.seconds < report.seconds - report.stages_s["load"]


def test_a_job_that_goes_to_a_new_renderer_does_not_pay_for_its_start(make_house: Callable[..., House]) -> None:
    # Given a model that kills its renderer while it loads: the job is handed to a second one
    house = make_house(load="die")
    house.enqueue(job("film", "x"))

    assert house.work(price=PRICE).code == 3

    report = last_run(house)
    assert report.renderer_restarts == 2
    assert report.lost_s < report.stages_s["import"] / 4


def test_a_worker_does_not_start_at_a_price_that_is_no_machines(house: House) -> None:
    house.enqueue(job("film", "x"))

    service = house.work(price="gemini-veo")
    misspelt = house.work(price="cloudrun-l5")

    assert (service.code, misspelt.code) == (2, 2)
    assert service.err == (
        "nightreel: price gemini-veo: is a service's, by the second of video; a worker needs its machine's (NIGHTREEL_PRICE)\n"
    )
    assert misspelt.err.startswith(
        "nightreel: no price 'cloudrun-l5': did you mean cloudrun-l4? Give US dollars an hour"
    )
    assert house.queue.backlog().ready == 1


def test_the_canonical_line_of_a_run_tells_its_costs(house: House) -> None:
    house.enqueue(job("film", "half a second x"))

    run = house.work_calmly(price=PRICE)

    kept = json.loads(last_run(house).to_bytes())
    assert {name: kept[name] for name in ("usd", "jobs_usd", "stages_s")} == {
        name: run.report[name] for name in ("usd", "jobs_usd", "stages_s")
    }
    assert kept["stages_s"]["render"] >= 0.5  # the first job's, too, begins when the model is loaded
    assert "taken" not in run.report
    assert [row["keyframes"] for row in kept["taken"]] == [1]
