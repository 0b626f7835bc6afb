"""One real run as its operator sees it: the lines of its log, its metrics while it renders, and its page afterwards."""

from __future__ import annotations

import contextlib
import json
import re
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from finished import nightreel
from house import House, Run, finish, job, kill, until
from proxy import free_port

from nightreel_dispatcher.looking import call_off
from nightreel_storage.batches import Batches
from nightreel_storage.connect import open_store
from nightreel_worker.history import History
from nightreel_worker.metrics import METRICS
from nightreel_worker.pages import page_name

LABELS, OPERATION = "logging.googleapis.com/labels", "logging.googleapis.com/operation"
BY_LABEL = {"client": "acme", "job": "theirs"}


@dataclass(frozen=True, slots=True)
class Observed:
    """A run that made three videos and one failure, and found a job called off; scraped while the third was under way."""

    house: House
    scraped: str
    run: Run
    page: str


@pytest.fixture(scope="module")
def observed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Observed]:
    with contextlib.closing(House(tmp_path_factory.mktemp("observed"))) as house:
        jobs = [job("one", "x", labels=BY_LABEL), job("bad", "refuse"), job("two", "y"), job("regretted", "z")]
        house.enqueue(*jobs, job("three", "after the fault"))
        head = Batches(house.store).read("b")
        assert head is not None
        call_off(house.store, "b", next(asked for asked in head.jobs if asked.id == "regretted"))
        port = free_port()
        house.environment |= {"OTEL_EXPORTER_PROMETHEUS_PORT": str(port)}
        process = house.start(**(house.calm | {"metrics": "prometheus", "price": "3600"}))
        until(lambda: 'nightreel_jobs_total{state="done"} 2.0' in scrape(port), "two videos", process)
        scraped = scrape(port)
        house.end_the_fault()
        run = finish(process)
        page = house.store.get(page_name(run.report["run"]))[0].decode()
        yield Observed(house, scraped, run, page)


def scrape(port: int) -> str:
    try:
        with urllib.request.urlopen(f"http://localhost:{port}/metrics", timeout=30) as answer:
            return str(answer.read().decode())
    except OSError:
        return ""  # not yet


# The log


def lines_of(observed: Observed, name: str) -> list[dict[str, Any]]:
    return [line for line in observed.run.log if line.get(OPERATION, {}).get("id") == f"b/{name}"]


def test_the_lines_of_a_jobs_life_are_one_operation_from_its_claim_to_its_end(observed: Observed) -> None:
    lines = lines_of(observed, "two")

    assert [line["message"] for line in lines] == ["claimed", "job_ended"]
    assert lines[0][OPERATION] == {"id": "b/two", "producer": "nightreel", "first": True}
    assert lines[1][OPERATION] == {"id": "b/two", "producer": "nightreel", "last": True}


def test_each_line_has_the_run_and_those_of_a_job_its_names_and_its_own_labels(observed: Observed) -> None:
    run = observed.run.report["run"]

    assert {line[LABELS]["run"] for line in observed.run.log} == {run}
    own = {f"label.{key}": value for key, value in BY_LABEL.items()}
    for line in lines_of(observed, "one"):
        assert line[LABELS] == {"run": run, "batch": "b", "job": "one"} | own
    assert all(isinstance(value, str) for line in observed.run.log for value in line[LABELS].values())


def test_a_job_that_failed_is_a_warning_and_one_that_did_not_is_none(observed: Observed) -> None:
    severities = {line["job"]: line["severity"] for line in observed.run.events("job_ended")}

    assert severities == {"one": "INFO", "two": "INFO", "three": "INFO", "regretted": "INFO", "bad": "WARNING"}


def test_the_line_of_the_run_has_no_lists_of_jobs(observed: Observed) -> None:
    assert not {"taken", "batches", "endings", "slowest", "shown"} & observed.run.report.keys()


# The metrics


def test_a_prometheus_server_can_fetch_a_worker_while_it_renders(observed: Observed) -> None:
    values = dict(re.findall(r"^(nightreel_\S+?(?:\{.*\})?) (\S+)$", observed.scraped, re.MULTILINE))

    assert float(values['nightreel_jobs_total{state="failed"}']) == 1
    assert float(values['nightreel_jobs_total{state="cancelled"}']) == 1
    assert float(values['nightreel_keyframes_total{origin="rendered"}']) == 2
    assert float(values['nightreel_queue_messages{state="leased"}']) == 1
    assert float(values['nightreel_run_time_seconds_total{stage="render"}']) > 0
    assert float(values["nightreel_run_cost_total"]) == pytest.approx(
        sum(float(value) for name, value in values.items() if name.startswith("nightreel_run_time_")), rel=0.01
    )
    assert float(values["nightreel_run_cold_start_seconds"]) > 0
    assert f'service_instance_id="{observed.run.report["run"]}"' in observed.scraped


def test_every_metric_of_the_table_is_on_the_page_but_for_a_gpu_that_is_not_there(observed: Observed) -> None:
    found = set(re.findall(r"^# TYPE (?!target_info)(\S+) (?:counter|gauge)$", observed.scraped, re.MULTILINE))

    wanted = {metric.name.replace(".", "_") for metric in METRICS if not metric.name.startswith("hw.gpu.")}
    assert {name.removesuffix("_total").removesuffix("_seconds") for name in found} == wanted


# The page


def test_the_page_lies_in_the_store_and_the_log_says_where(observed: Observed) -> None:
    [line] = observed.run.events("page_kept")

    assert line["page"] == observed.house.store.url(page_name(observed.run.report["run"]))
    assert Path(line["page"]).read_text(encoding="utf-8") == observed.page


def test_the_page_tells_what_was_made_and_what_not_and_how_to_run_that_again(observed: Observed) -> None:
    page = observed.page

    assert "<h1>3 made, 1 failed, 1 called off, for $" in page
    assert "shots[0].prompt: refused, as asked" in page
    assert "nightreel retry b bad</pre>" in page
    assert "cancelled by hand" in page
    assert page.count('<img src="data:image/jpeg;base64,/9j/') == 3
    for name in ("one", "two", "three"):
        assert f'<a href="../b/{name}.mp4">' in page
    assert f"export NIGHTREEL_STORE={observed.house.folder / 'out'}" in page


def test_the_command_makes_the_same_page_again_and_a_text_of_it(observed: Observed) -> None:
    house = observed.house
    name = page_name(observed.run.report["run"])
    before = house.store.head(name)
    assert before is not None
    house.store.delete(name, generation=before.generation)

    again = nightreel(house, "report", queue=house.calm["queue"])
    text = nightreel(house, "report", observed.run.report["run"], "--text")
    file = nightreel(house, "report", "--html", str(house.folder / "page.html"))

    assert (again.code, again.out) == (0, f"{house.store.url(name)}\n")
    assert house.store.get(name)[0].decode() == observed.page
    assert "3 made, 1 failed, 1 called off, for $" in text.out
    assert "1 failed: shots[0].prompt: refused, as asked\n  bad, of b\n     nightreel retry b bad\n" in text.out
    assert file.code == 0
    elsewhere = (house.folder / "page.html").read_text(encoding="utf-8")
    assert f'<a href="{Path(house.store.url("b/one.mp4")).as_uri()}">' in elsewhere


def test_a_run_that_was_killed_has_a_page_all_the_same(house: House) -> None:
    # Given a run that made one job, and was killed at the next
    house.enqueue(job("one", "x"), job("two", *(f"slow {number}" for number in range(20))))
    program = "import nightreel_worker.reports as r; r.KEEP_EVERY_S = 0.2; r.Reports.__init__.__defaults__ = (0.2,)"
    process = house.start(sys.executable, "-c", f"{program}; from nightreel.main import main; main()", "work")
    until(lambda: any(each.done for each in History.read(house.store).runs), "its report", process)
    kill(process)

    page = nightreel(house, "report")

    assert page.code == 0, page.err
    written = Path(page.out.strip()).read_text(encoding="utf-8")
    assert "running, or killed after" in written
    assert "<strong>one</strong>" in written


def test_a_run_without_work_leaves_no_page(house: House) -> None:
    run = house.work(idle_timeout_s="0")

    assert run.code == 0
    assert run.events("page_kept") == []
    assert not list(house.store.list("reports/"))


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("report",), "no run has left a report yet: render something first"),
        (("report", "2026"), "no run begins with 2026; see: nightreel runs"),
    ],
)
def test_a_page_of_no_run_is_refused_in_a_line(house: House, arguments: tuple[str, ...], complaint: str) -> None:
    run = nightreel(house, *arguments)

    assert (run.code, run.err) == (2, f"nightreel: {complaint}\n")


def test_a_file_that_is_no_page_is_not_replaced(observed: Observed) -> None:
    house = observed.house
    (house.folder / "mine.html").write_text("mine")
    name = page_name(observed.run.report["run"])
    entry = house.store.head(name)
    open_store(str(house.folder / "out")).put(name, b"theirs", generation=entry.generation if entry else 0)

    file, kept = nightreel(house, "report", "--html", "mine.html"), nightreel(house, "report")

    assert "mine.html is there already and is no page of a run" in file.err
    assert (house.folder / "mine.html").read_text() == "mine"
    assert "is no page of this run" in kept.err
    assert house.store.get(name)[0] == b"theirs"
    assert json.loads(house.store.get(f".nightreel/runs/{observed.run.report['run']}.json")[0])["done"] == 3
