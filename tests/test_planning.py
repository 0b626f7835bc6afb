"""`nightreel plan`: what a manifest will take, before anything of it runs."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from house import House, Run

from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_queue.manifest import load_manifest
from nightreel_storage.base import Entry
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Receipts, utc_now
from nightreel_worker.forecast import Forecast, forecast
from nightreel_worker.prices import Price
from nightreel_worker.report import RunReport

NIGHTREEL = (sys.executable, "-m", "nightreel")
HEAVY = ("PIL", "cv2", "google", "imageio_ffmpeg", "numpy", "torch")
HEAD = """
batch: films
defaults: {output: {width: 64, height: 64, fps: 8}, transition: {type: cut}, shot: {duration: 0.5, motion: still}}
"""
FILMS = f"""{HEAD}
jobs:
  - {{id: harbour, shots: [an intro, half a second a harbour]}}
  - {{id: moon, shots: [an intro, half a second a moon]}}
  - {{id: walk, shots: [{{prompt: hills, duration: 2.0, motion: {{walk: {{seed: 3}}}}}}]}}
"""


def write(house: House, text: str, name: str = "films.yaml") -> str:
    (house.folder / name).write_text(text)
    return name


def planned(house: House, *arguments: str, code: int = 0, **settings: str) -> dict[str, Any]:
    run = house.work(*NIGHTREEL, "plan", *arguments, "--json", **settings)
    assert run.code == code, run.err
    found: dict[str, Any] = json.loads(run.out)
    return found


def by_job(plan: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    return {row["job"]: row for row in plan["jobs"]}


def last_run(house: House) -> RunReport:
    *_, last = sorted(entry.name for entry in house.store.list(".nightreel/runs/"))
    return RunReport.from_bytes(house.store.get(last)[0], last)


def test_a_plan_counts_what_a_manifest_needs_and_a_shared_keyframe_once(house: House) -> None:
    plan = planned(house, write(house, FILMS))

    jobs = by_job(plan)
    assert list(jobs) == ["harbour", "moon", "walk"]
    assert [(row["shots"], row["keyframes"], row["keyframes_there"]) for row in jobs.values()] == [
        (2, 2, 0),
        (2, 1, 1),
        (1, 5, 0),
    ]
    assert [row["evaluations"] for row in jobs.values()] == [8, 4, 20]
    assert [(row["frames"], row["video_s"]) for row in jobs.values()] == [(8, 1.0), (8, 1.0), (16, 2.0)]
    assert {row["basis"] for row in jobs.values()} == {"guessed"}
    assert plan["runs"] == 0
    assert plan["batch"] == "films"
    # And nothing was enqueued, rendered or stored
    assert list(house.store.list("")) == []
    assert house.queue.backlog().total == 0
    assert house.processes() == []


def test_the_parts_of_a_plan_add_up_to_the_whole(house: House) -> None:
    plan = planned(house, write(house, FILMS), "--price", "3600")

    assert sum(row["seconds"] for row in plan["jobs"]) == pytest.approx(plan["seconds"], abs=0.01)
    assert sum(row["usd"] for row in plan["jobs"]) == pytest.approx(plan["usd"], abs=0.01)
    assert plan["usd"] == pytest.approx(plan["seconds"], abs=0.01)
    assert sum(row["stored_bytes"] for row in plan["jobs"]) == plan["stored_bytes"]
    assert plan["price"] == "3600 USD an hour"
    assert 0 < plan["around_s"] < plan["seconds"]


def test_a_plan_is_read_from_what_runs_in_this_store_took(house: House) -> None:
    # Given a manifest that was rendered
    name = write(house, FILMS)
    assert house.work(*NIGHTREEL, "render", name).code == 0

    # When it is planned again, then everything is there
    again = planned(house, name)
    assert (again["videos_there"], again["jobs"], again["seconds"], again["usd"]) == (3, [], 0.0, 0.0)

    # And others like it take what these took, pictures in the store left out
    other = planned(house, write(house, FILMS.replace("films", "others").replace("a moon", "the sea"), "others.yaml"))
    jobs = by_job(other)
    assert other["runs"] == 1
    assert {row["basis"] for row in jobs.values()} == {"measured"}
    assert [(row["keyframes"], row["keyframes_there"]) for row in jobs.values()] == [(0, 2), (1, 1), (0, 5)]
    still = next(row for row in last_run(house).taken if row.motions == ("still",))
    assert jobs["moon"]["keyframes_s"] == pytest.approx(still.keyframes_s / still.evaluations * 4, abs=0.001)
    assert jobs["moon"]["keyframes_s"] > 0.3
    text = house.work(*NIGHTREEL, "plan", "others.yaml").out
    assert "From what the last run in this store took." in text


def test_a_plan_for_a_person_is_a_table_and_a_few_sentences(house: House) -> None:
    run = house.work(*NIGHTREEL, "plan", write(house, FILMS), price="cloudrun-l4")

    assert run.code == 0
    lines = run.out.splitlines()
    assert lines[0].split() == ["job", "shots", "keyframes", "frames", "video", "seconds", "USD"]
    assert lines[2].split()[:6] == ["moon", "2", "1", "(+1)", "8", "1"]
    assert "3 jobs, 4 s of video: 8 keyframes to render, 1 is there or shared." in lines
    assert any(line.startswith("About ") and "on one worker" in line for line in lines)
    assert any("USD at 1.42 an hour (cloudrun-l4, list of 2026-11-21)." in line for line in lines)
    assert any(line.startswith("Partly a guess: ") for line in lines)


def test_a_long_plan_shows_its_first_jobs(house: House) -> None:
    rows = "".join(f"  - {{id: j{number}, shots: [picture {number}]}}\n" for number in range(30))

    run = house.work(*NIGHTREEL, "plan", write(house, f"{HEAD}jobs:\n{rows}"))

    assert "j19 " in run.out
    assert "j20 " not in run.out
    assert "and 10 more; --json tells all" in run.out


def test_a_batch_that_would_cost_too_much_is_told_by_the_exit_code(house: House) -> None:
    name = write(house, FILMS)

    dear = house.work(*NIGHTREEL, "plan", name, "--price", "3600", "--max-cost", "0.5")
    cheap = house.work(*NIGHTREEL, "plan", name, "--price", "3600", "--max-cost", "500")

    assert (dear.code, cheap.code) == (1, 0)
    assert dear.err.startswith("nightreel: about ")
    assert dear.err.endswith(" USD, and --max-cost is 0.5\n")
    assert dear.out


def test_jobs_over_their_own_limits_are_named_before_a_worker_refuses_them(house: House) -> None:
    limits = [
        "max_seconds: 0.1",
        "max_cost_usd: 0.0001",
        "not_after: 2026-03-01T06:00:00Z",
        "max_seconds: 500",
    ]
    rows = "".join(
        f"  - {{id: j{number}, limits: {{{each}}}, shots: [picture {number}]}}\n" for number, each in enumerate(limits)
    )
    name = write(house, f"{HEAD}jobs:\n{rows}")

    plan = planned(house, name, "--price", "3600", code=1)

    over = [row["over"] for row in plan["jobs"]]
    assert over[0].startswith("limits.max_seconds: it may take 0.1 s; it would take about ")
    assert over[1].startswith("limits.max_cost_usd: it may cost 0.0001 USD; it would take about ")
    assert over[2] == "limits.not_after: it was to begin by 2026-03-01T06:00:00+00:00, and that has passed"
    assert over[3] == ""
    text = house.work(*NIGHTREEL, "plan", name).out
    assert "over its limit j0: limits.max_seconds" in text


def test_a_service_is_paid_by_the_second_of_video(house: House) -> None:
    plan = planned(house, write(house, FILMS), "--price", "gemini-veo")

    assert plan["usd"] == pytest.approx(4.0 * 0.40)
    assert [row["usd"] for row in plan["jobs"]] == pytest.approx([0.4, 0.4, 0.8])
    text = house.work(*NIGHTREEL, "plan", "films.yaml", price="gemini-veo").out
    assert "About 1.60 USD at 0.4 a second of video (gemini-veo, list of 2026-11-21)." in text


@pytest.mark.parametrize(
    ("flags", "settings", "complaint"),
    [
        (("--price", "cheap"), {}, "nightreel: no price 'cheap': Give US dollars an hour, or one of "),
        (("--model", "pockt"), {}, "no model pockt; did you mean pocket?"),
        ((), {"prices": "none.toml"}, "nightreel: cannot use prices file none.toml"),
    ],
)
def test_what_is_not_there_is_told_in_one_line(
    house: House, flags: tuple[str, ...], settings: dict[str, str], complaint: str
) -> None:
    run: Run = house.work(*NIGHTREEL, "plan", write(house, FILMS), *flags, **settings)

    assert run.code == 2
    assert complaint in run.err
    assert "Traceback" not in run.err


class Counting(FolderStore):
    """Counts what it is asked."""

    calls = 0

    def get(self, name: str) -> tuple[bytes, Entry]:
        self.calls += 1
        return super().get(name)

    def head(self, name: str) -> Entry | None:
        self.calls += 1
        return super().head(name)

    def list(self, prefix: str = "") -> Iterator[Entry]:
        self.calls += 1
        return super().list(prefix)


def forecast_of(house: House, text: str) -> tuple[Forecast, int]:
    file = house.folder / write(house, text, "large.jsonl")
    store = Counting(house.folder / "out")
    batch = load_manifest(file).resolved("faulty")
    models: Mapping[str, ModelSpec] = load_models(house.folder / "models.toml")
    return forecast(batch.jobs, store, models, Price(name="x", usd_per_s=1.0), utc_now()), store.calls


def test_a_manifest_of_two_thousand_rows_asks_the_store_no_more_than_one_of_two(house: House) -> None:
    assert house.work(*NIGHTREEL, "render", write(house, FILMS)).code == 0
    assert len(list(Receipts(house.store).list("films"))) == 3

    small, few = forecast_of(house, rows(2))
    large, many = forecast_of(house, rows(2000))

    assert (len(small.jobs), len(large.jobs)) == (2, 2000)
    assert few == many == 4  # keyframes, videos, runs, one run


def rows(jobs: int) -> str:
    return "".join(json.dumps({"id": f"j{number}", "shots": [f"picture {number}"]}) + "\n" for number in range(jobs))


def test_pictures_of_others_are_not_taken_for_each_other(house: House) -> None:
    """What they show is not known before they are fetched: two addresses count as two pictures."""
    shots = [{"prompt": "x", "seed": 1, "init": {"image": f"gs://pictures/{name}.png"}} for name in "aab"]
    text = "".join(json.dumps({"id": f"j{number}", "shots": [shot]}) + "\n" for number, shot in enumerate(shots))

    found, _ = forecast_of(house, text)

    assert [each.estimate.keyframes for each in found.jobs] == [1, 0, 1]


def test_planning_needs_nothing_but_the_light_client() -> None:
    program = "import nightreel.plan, sys; print(*[name for name, module in sys.modules.items() if getattr(module, '__file__', None)])"
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout

    assert {name.partition(".")[0] for name in said.split()}.isdisjoint(HEAVY)


def test_each_model_starts_once_and_jobs_keep_their_order(house: House, tmp_path: Path) -> None:
    models = ("faulty", "testcard", "faulty")
    text = "".join(
        json.dumps({"id": f"j{number}", "render": {"model": model}, "shots": [f"picture {number}"]}) + "\n"
        for number, model in enumerate(models)
    )

    mixed, _ = forecast_of(house, text)
    alone, _ = forecast_of(house, text.replace("testcard", "faulty"))

    assert [str(each.job.id) for each in mixed.jobs] == ["j0", "j1", "j2"]
    assert mixed.around_s == pytest.approx(2 * alone.around_s)
