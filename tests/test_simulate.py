"""`nightreel simulate` as a person types it, and the charts."""

from __future__ import annotations

import datetime as dt
import json
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

from nightreel_dispatcher.chart import HEAD, LEFT, PLOT, ROW, chart, lasting
from nightreel_dispatcher.simulation import Arrival, Outcome
from nightreel_dispatcher.strategies import compare
from nightreel_dispatcher.traces import BUILT_IN
from nightreel_dispatcher.wake import Policy
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Cost, Made, Receipt, Receipts

IMAGES = Path(__file__).parent.parent / "docs" / "images"
MOST_BYTES = 60_000
TRACE = "arrived_s,work_s,urgent\n0,40,\n10,40,\n4000,40,yes\n"
COLUMNS = ["strategy", "$/video", "$", "x clairvoyant", "starts", "GPU h", "idle h", "waiting p50", "p95"]


def nightreel(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    (folder / "t.csv").write_text(TRACE)
    command = [sys.executable, "-m", "nightreel", "simulate", *arguments]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)


# The command


def test_a_table_has_a_row_for_each_strategy(tmp_path: Path) -> None:
    run = nightreel(tmp_path, "t.csv", "--svg", "t.svg")

    assert run.returncode == 0, run.stderr
    head, *rows, said = (re.split(r"  +", line.strip()) for line in run.stdout.splitlines())
    assert " ".join(head) == " ".join(COLUMNS)
    assert [row[0] for row in rows] == [
        "clairvoyant", "nightreel", "5-minute idle", "one execution per job", "always on", "nightly at 02:00",
    ]  # fmt: skip
    # Started at 900 and, for the urgent job, at 4000: two starts of 75 s and three jobs of 40 s are 270 s.
    assert rows[1] == ["nightreel", "0.0355", "0.11", "1.000", "2", "0.1", "0.0", "16 min", "17 min"]
    assert said == ["3 jobs with 0.0 h of work. Cost is metered from a worker's start to its exit."]
    assert ElementTree.fromstring((tmp_path / "t.svg").read_text()).tag.endswith("svg")


def test_programs_get_seconds_and_dollars(tmp_path: Path) -> None:
    flags = ("--start-s", "100", "--max-wait", "50", "--price", "3.6", "--nightly", "00:30", "--zone")
    run = nightreel(tmp_path, "t.csv", "--json", *flags, "Europe/Berlin")

    said = json.loads(run.stdout)
    assert (said["trace"], said["jobs"]) == ("t", 3)
    rows = {row["strategy"]: row for row in said["strategies"]}
    assert list(rows)[-1] == "nightly at 00:30"
    # It idles for 50 s after the first two jobs, and after the last.
    assert rows["nightreel"] == {
        "strategy": "nightreel",
        "usd_per_video": pytest.approx(0.42 / 3),
        "usd": pytest.approx(0.42),
        "times_clairvoyant": pytest.approx(420 / 320),
        "starts": 2,
        "gpu_hours": pytest.approx(420 / 3600),
        "idle_hours": pytest.approx(100 / 3600),
        "waiting_p50_s": 150.0,
        "waiting_p95_s": 180.0,
    }


def test_without_a_trace_the_store_is_replayed(tmp_path: Path) -> None:
    made = Made(model="m", source="s", revision="", precision="", device="cpu")
    cost, now = Cost(seconds=40.0, usd=0.0, price="local"), dt.datetime.now(dt.UTC)
    receipt = Receipt(
        state="done", batch="b", job="j", fingerprint="f", made=made, cost=cost, published_at=now, ended_at=now
    )
    Receipts(FolderStore(tmp_path / "films")).commit(receipt, None)

    run = nightreel(tmp_path, "--store", "films", "--json")

    assert run.returncode == 0, run.stderr
    said = json.loads(run.stdout)
    assert (said["trace"], said["jobs"]) == ("films", 1)
    assert said["strategies"][1]["gpu_hours"] == pytest.approx(115 / 3600)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nowhere.csv", "nowhere.csv: cannot be read: No such file or directory; built-in traces are nightly, office,"),
        ("t.csv --share 0", "--share: 0; must be from 0.001 to 1"),
        ("t.csv --start-s nan", "--start-s: nan; must be from 0.001 to 86,400"),
        ("t.csv --max-workers 0", "--max-workers: 0; must be from 1 to 10,000"),
        ("t.csv --nightly 25:00", "--nightly: '25:00' is no hour such as 02:00"),
        ("t.csv --zone Europe/Berlni", "--zone: 'Europe/Berlni' is no time zone such as Europe/Berlin"),
        ("t.csv --zone Europe", "--zone: 'Europe' is no time zone such as Europe/Berlin"),
        ("t.csv --zone ../etc", "--zone: '../etc' is no time zone such as Europe/Berlin"),
        ("t.csv --svg no/such.svg", "--svg: cannot write no/such.svg: No such file or directory"),
        ("t.csv --store out", "--store goes without a trace: leave one of the two out"),
        ("--store out", "has no receipt that says when its job was published and how long it took"),
    ],
)
def test_bad_input_is_told_in_one_line_with_the_mend(tmp_path: Path, arguments: str, said: str) -> None:
    run = nightreel(tmp_path, *arguments.split())

    assert run.returncode == 2
    assert run.stdout == ""
    (line,) = run.stderr.splitlines()
    assert line.startswith("nightreel: ")
    assert said in line


# The charts


def drawn(text: str) -> ElementTree.Element:
    root = ElementTree.fromstring(text)
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
    return root


def test_lengths_of_time_are_told_in_the_unit_that_fits() -> None:
    seconds = (0, 75, 119, 120, 7199, 7200, 36_000, 172_799, 172_800)

    assert [lasting(each) for each in seconds] == [
        "0 s", "75 s", "119 s", "2 min", "120 min", "2.0 h", "10 h", "48 h", "2 d",
    ]  # fmt: skip


def outcome(name: str, *spans: tuple[float, float]) -> Outcome:
    worker_s = sum(exit_s - began_s for began_s, exit_s in spans)
    return Outcome(name, 10, len(spans), worker_s, worker_s, 0.0, [1.0] * 10, spans)


def test_the_ink_of_a_row_is_its_worker_seconds() -> None:
    rows = (outcome("a", (0, 1000)), outcome("b", (0, 500), (100, 400), (350, 1000)), outcome("c", (999, 1000)))
    root = drawn(chart("t", [Arrival(0, 1)] * 10, rows, 1.0))

    areas = [each.attrib["d"] for each in root.iter("path") if re.match(r"M186 \d+H", each.attrib["d"])]
    inks = [area_of(path) for path in areas]
    scale = PLOT * ROW / 1000 / 3  # px² a second of a worker: there are three at most
    assert len(inks) == 3
    assert inks[0] == pytest.approx(1000 * scale, rel=0.01)
    assert inks[1] == pytest.approx(1450 * scale, rel=0.01)
    assert inks[2] < 10 * scale


def area_of(path: str) -> float:
    x, ink, high, bottom = float(LEFT), 0.0, 0.0, float(path.split("H")[0].split()[1])
    for step in re.findall(r"[HV][\d.]+", path):
        value = float(step[1:])
        if step[0] == "H":
            ink += (value - x) * high
            x = value
        else:
            high = bottom - value
    return ink


def test_names_are_text_and_never_markup() -> None:
    root = drawn(chart('<b>&"', [Arrival(0, 1)], (outcome("<i>", (0, 10)),), 1.0))

    texts = [each.text for each in root.iter("text")]
    assert '<b>&"' in texts
    assert "<i>" in texts


@pytest.mark.parametrize("jobs", [[], [Arrival(5, 0)], [Arrival(1e9, 1, True)] * 3])
def test_the_smallest_traces_have_a_chart_too(jobs: list[Arrival]) -> None:
    text = chart("small", jobs, compare(jobs, Policy(75.0)), 1.42)

    drawn(text)
    assert "nan" not in text
    assert "inf" not in text


@pytest.mark.parametrize("name", BUILT_IN)
def test_the_charts_of_the_docs_are_whole_and_small(name: str) -> None:
    text = (IMAGES / f"waking-{name}.svg").read_text(encoding="utf-8")

    assert len(text.encode()) <= MOST_BYTES
    root = drawn(text)
    width, height = (float(root.attrib[side]) for side in ("width", "height"))
    for each in root.iter("text"):
        assert 0 <= float(each.attrib["x"]) <= width
        assert HEAD / 4 <= float(each.attrib["y"]) <= height


@pytest.mark.parametrize("name", ["nightly", "office", "poisson"])  # launch takes a while; bench/simulate.py draws it
def test_the_charts_of_the_docs_are_those_that_the_command_draws(name: str) -> None:
    jobs = BUILT_IN[name]()

    drawn_now = chart(f"{name}: {len(jobs):,} jobs", jobs, compare(jobs, Policy(75.0, max_workers=5)), 1.42)
    assert drawn_now == (IMAGES / f"waking-{name}.svg").read_text(encoding="utf-8")
