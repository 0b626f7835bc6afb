"""How near plans come: a batch is rendered, another one of other shapes is planned from it, then rendered too.

python bench/plan.py [--quick] [--rounds N] [--model MODEL]
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sleeper
from common import Table, arguments, count, median, publish, spread
from workload import NIGHTREEL, Shape, clean_environment, make, prompt, run

from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Receipt, Receipts
from nightreel_worker.report import RunReport

MOTIONS: Mapping[str, object] = {
    "move": {"zoom": [1.0, 1.12]},
    "walk": {"walk": {"seed": 5}},
    "feedback": {"feedback": {}},
}
ON_GPU = {"move": MOTIONS["move"]}  # the sleeping GPU draws nothing else
LOAD_S, KEYFRAME_S = 3.0, 0.5  # that it takes
WANTED = 0.2  # how far a plan may be off
MANY = 10_000  # jobs of the large manifest


@dataclass(frozen=True, slots=True)
class Batch:
    """What the videos of a batch are like: so many of each motion, at 24 fps."""

    videos: int
    shots: int
    shot_s: float
    width: int
    height: int
    megapixels: float


MEASURED = Batch(videos=3, shots=2, shot_s=1.5, width=320, height=180, megapixels=0.015)
PLANNED = Batch(videos=4, shots=3, shot_s=2.0, width=480, height=270, megapixels=0.02)
SLEPT = Batch(videos=8, shots=3, shot_s=0.5, width=320, height=180, megapixels=0.0576)
SLEEPING = Batch(videos=12, shots=5, shot_s=0.8, width=400, height=224, megapixels=0.0576)
QUICK = Batch(videos=1, shots=1, shot_s=0.5, width=64, height=64, megapixels=0.004)


@dataclass(frozen=True, slots=True)
class Round:
    """A plan, and what came of it."""

    planned: Mapping[str, Any]
    """What `nightreel plan --json` printed."""
    receipts: Mapping[str, Receipt]
    """By job."""
    report: RunReport


def main() -> None:
    parser = arguments("Plans against what receipts and reports say afterwards.")
    parser.add_argument("--model", default="pocket", help="that draws both batches (default: pocket)")
    parser.add_argument("--only", choices=("model", "gpu"), help="one of the two comparisons (default: both)")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    with tempfile.TemporaryDirectory() as name:
        first, second = (QUICK, QUICK) if asked.quick else (MEASURED, PLANNED)
        if asked.only != "gpu":
            drawn = [one_round(Path(name) / str(number), first, second, asked.model) for number in range(rounds)]
            publish("plan", [against_receipts(drawn, first, second, MOTIONS), many(Path(name) / "0", asked)], asked)
        if asked.only != "model":
            first, second = (QUICK, QUICK) if asked.quick else (SLEPT, SLEEPING)
            slept = [on_gpu(Path(name) / f"gpu-{number}", first, second) for number in range(rounds)]
            publish("plan-gpu", [against_receipts(slept, first, second, ON_GPU)], asked)


def on_gpu(folder: Path, first: Batch, second: Batch) -> Round:
    """The same with a model that sleeps, for which programs beside it are no matter."""
    options = {"seconds_to_load": LOAD_S, "seconds_per_keyframe": KEYFRAME_S}
    models = make(folder / "model", Shape(1, 1, 1.0, 64, 64), "gpu", sleeper.SOURCE, **options).models
    return one_round(folder / "made", first, second, "gpu", ON_GPU, NIGHTREEL_MODELS=str(models))


def one_round(
    folder: Path, first: Batch, second: Batch, model: str, motions: Mapping[str, object] = MOTIONS, **settings: str
) -> Round:
    """Render, plan, render: in a store of its own."""
    folder.mkdir()
    places = {"NIGHTREEL_STORE": str(folder / "out"), "NIGHTREEL_MODEL": model} | settings
    for name, batch in (("first", first), ("second", second)):
        (folder / f"{name}.jsonl").write_text(manifest(name, batch, motions), encoding="utf-8")
    run((*NIGHTREEL, "render", str(folder / "first.jsonl")), **places)
    planned = plan(folder / "second.jsonl", **places)
    run((*NIGHTREEL, "render", str(folder / "second.jsonl")), **places)
    store = FolderStore(folder / "out")
    receipts = {receipt.job: receipt for receipt in Receipts(store).list("second")}
    last = max(store.list(".nightreel/runs/"), key=lambda entry: entry.name)
    return Round(planned, receipts, RunReport.from_bytes(store.get(last.name)[0], last.name))


def manifest(name: str, batch: Batch, motions: Mapping[str, object]) -> str:
    """JSONL; no two prompts are equal, in both batches together."""
    head = {
        "batch": name,
        "defaults": {
            "render": {"megapixels": batch.megapixels},
            "output": {"width": batch.width, "height": batch.height, "fps": 24},
            "transition": {"type": "cut"},
            "shot": {"duration": batch.shot_s},
        },
    }
    lines: list[Mapping[str, object]] = [head]
    for motion, form in motions.items():
        for video in range(batch.videos):
            number = 100 * len(lines) + (50 if name == "second" else 0)
            shots = [{"prompt": prompt(number + shot), "motion": form} for shot in range(batch.shots)]
            lines.append({"id": f"{motion}-{video}", "shots": shots})
    return "".join(json.dumps(line) + "\n" for line in lines)


def plan(file: Path, **environment: str) -> Mapping[str, Any]:
    said = subprocess.run(
        (*NIGHTREEL, "plan", str(file), "--json"),
        env=clean_environment(**environment),
        capture_output=True,
        text=True,
        check=True,
    )
    found: Mapping[str, Any] = json.loads(said.stdout)
    return found


# the comparison


def against_receipts(rounds: Sequence[Round], first: Batch, second: Batch, motions: Mapping[str, object]) -> Table:
    """Planned against actual, by motion and in all."""
    rows = []
    for motion in motions:
        rows += [_row(f"{motion}: {what}", "s", [each[what] for each in _jobs(rounds, motion)]) for what in _SECONDS]
        rows.append(_row(f"{motion}: stored", "MB", [each["stored"] for each in _jobs(rounds, motion)]))
    rows.append(_row("in all: stored", "MB", [_sums(each, "")["stored"] for each in rounds]))
    rows.append(
        _row("in all: seconds of the run", "s", [(each.planned["seconds"], each.report.seconds) for each in rounds])
    )
    return Table(
        title=f"{len(motions) * second.videos} videos, planned and then made{'' if len(motions) > 1 else ', a GPU that sleeps'}",
        columns=("what", "planned", "actual", "planned to actual"),
        rows=tuple(rows),
        notes=(
            (
                f"{_words(first)} measured; then {_words(second)} planned and made. Medians of {count(rounds)}, least and"
                f" greatest in brackets. Wanted: {1 - WANTED:g} to {1 + WANTED:g}."
            ),
        ),
    )


_SECONDS = ("keyframes", "film")


def _jobs(rounds: Sequence[Round], motion: str) -> list[Mapping[str, tuple[float, float]]]:
    return [_sums(each, motion) for each in rounds]


def _sums(each: Round, motion: str) -> Mapping[str, tuple[float, float]]:
    """Planned and actual, of the jobs whose name begins with `motion`."""
    planned = [job for job in each.planned["jobs"] if job["job"].startswith(motion)]
    actual = [receipt for name, receipt in each.receipts.items() if name.startswith(motion)]
    made = [receipt.made for receipt in actual if receipt.made]
    stored = sum(receipt.outputs[0].size_bytes for receipt in actual) + sum(each.kept_bytes for each in made)
    return {
        "keyframes": (sum(job["keyframes_s"] for job in planned), sum(each.keyframes_s for each in made)),
        "film": (sum(job["film_s"] for job in planned), sum(each.film_s for each in made)),
        "stored": (sum(job["stored_bytes"] for job in planned) / 1e6, stored / 1e6),
    }


def _row(what: str, unit: str, pairs: Sequence[tuple[float, float]]) -> tuple[str, ...]:
    planned, actual = [pair[0] for pair in pairs], [pair[1] for pair in pairs]
    ratios = [mine / real if real else 1.0 for mine, real in pairs]
    return what, f"{median(planned):.2f} {unit}", f"{median(actual):.2f} {unit}", spread(ratios)


def _words(batch: Batch) -> str:
    return (
        f"{batch.videos} videos of each motion, {batch.shots} x {batch.shot_s:g} s at {batch.width}x{batch.height},"
        f" keyframes of {batch.megapixels:g} megapixels,"
    )


# a large manifest

_MEASURE = """
import resource, runpy, sys, time
began = time.monotonic()
sys.argv = ["nightreel", *sys.argv[1:]]
try:
    runpy.run_module("nightreel", run_name="__main__")
finally:
    print(time.monotonic() - began, time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, file=sys.stderr)
"""


def many(folder: Path, asked: Any) -> Table:
    """Plan a manifest of many jobs against a store that has runs and keyframes."""
    jobs = 100 if asked.quick else MANY
    lines = [
        {"id": f"j{number}", "shots": [{"prompt": prompt(number)}, {"prompt": f"{number} boats"}]}
        for number in range(jobs)
    ]
    file = folder / "many.jsonl"
    file.write_text("".join(json.dumps(line) + "\n" for line in [{"batch": "many"}, *lines]), encoding="utf-8")
    places = {"NIGHTREEL_STORE": str(folder / "out"), "NIGHTREEL_MODEL": asked.model}
    said = subprocess.run(
        (sys.executable, "-c", _MEASURE, "plan", str(file)),
        env=clean_environment(**places),
        capture_output=True,
        text=True,
        check=True,
    )
    taken_s, cpu_s, peak_mib = map(float, said.stderr.splitlines()[-1].split())
    return Table(
        title=f"Planning {jobs:,} jobs",
        columns=("what", "figure"),
        rows=(
            ("time, start of Python included", f"{taken_s:.1f} s"),
            ("CPU time", f"{cpu_s:.1f} s"),
            ("peak memory", f"{peak_mib:.0f} MiB"),
        ),
        notes=("Two shots each, into a store that has runs and keyframes.",),
    )


if __name__ == "__main__":
    main()
