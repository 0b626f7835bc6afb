"""The work that is measured, and the processes that do it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from nightreel_queue.job import Job
from nightreel_queue.manifest import load_manifest

NIGHTREEL = (sys.executable, "-m", "nightreel")
BASELINE = (sys.executable, str(Path(__file__).with_name("baseline.py")))
LOADING = "loading the model"  # in the line on standard output that nightreel and the script print before they load it
MEGAPIXELS = 0.0576  # 320x180: of keyframes that no model makes
LAST_LINES = 3  # of what a process said that failed

_COLORS = ("red", "yellow", "orange", "white", "green", "blue")
_THINGS = ("sun", "moon", "house", "tree", "boat", "tent")
_PLACES = ("green hills", "golden dunes", "a calm sea")
_TIMES = ("by day", "at night", "at sunset", "in the fog")


@dataclass(frozen=True, slots=True)
class Shape:
    """What the videos of a batch are like: all alike, at 24 fps, with hard cuts and a slow zoom."""

    videos: int
    shots: int
    """Of each video."""
    shot_s: float
    width: int
    height: int


@dataclass(frozen=True, slots=True)
class Workload:
    """Videos to make, as a manifest for Nightreel and as jobs for the script."""

    manifest: Path
    models: Path
    model: str
    jobs: tuple[Job, ...]

    def jobs_file(self, *jobs: Job) -> Path:
        """Write jobs as the script reads them, one a line; all of them when none is given."""
        file = self.manifest.with_name(f"{jobs[0].id if jobs else 'all'}.jobs")
        file.write_text("".join(job.to_json() + "\n" for job in jobs or self.jobs), encoding="utf-8")
        return file


@dataclass(frozen=True, slots=True)
class Ran:
    """One process as seen from outside. Times are seconds since the epoch."""

    began: float
    """Before it was started."""
    loading: float
    """When it said that it begins to load its model; `began` when it never did."""
    ended: float

    @property
    def wall_s(self) -> float:
        return self.ended - self.began


def make(folder: Path, shape: Shape, model: str, source: str = "", **options: float) -> Workload:
    """Write a manifest, and a models file that has `model` made by `source` when there is one."""
    folder.mkdir(parents=True, exist_ok=True)
    models, manifest = folder / "models.toml", folder / "batch.jsonl"
    lines = "".join(f"{name} = {value}\n" for name, value in options.items())
    entry = f'[{model}]\nsource = "{source}"\nmegapixels = {MEGAPIXELS}\n[{model}.options]\n{lines}'
    models.write_text(entry if source else "", encoding="utf-8")
    manifest.write_text(storyboards(shape, model), encoding="utf-8")
    return Workload(manifest, models, model, load_manifest(manifest).resolved(model).jobs)


def storyboards(shape: Shape, model: str) -> str:
    """A JSONL manifest in which no two prompts are equal, so that no keyframe serves twice."""
    head = {
        "batch": "bench",
        "defaults": {
            "render": {"model": model},
            "output": {"width": shape.width, "height": shape.height, "fps": 24},
            "transition": {"type": "cut"},
            "shot": {"duration": shape.shot_s, "motion": {"zoom": [1.0, 1.12]}},
        },
    }
    jobs = [
        {"id": f"v{video:03}", "shots": [prompt(video * shape.shots + shot) for shot in range(shape.shots)]}
        for video in range(shape.videos)
    ]
    return "".join(json.dumps(line) + "\n" for line in (head, *jobs))


def run(command: Sequence[str], **environment: str) -> Ran:
    """Run a process to its end, which must be a good one."""
    with tempfile.TemporaryFile("w+") as complaints:
        began = loading = time.time()
        process = subprocess.Popen(
            command, env=clean_environment(**environment), stdout=subprocess.PIPE, stderr=complaints, text=True
        )
        assert process.stdout is not None
        for line in process.stdout:
            if LOADING in line and loading == began:
                loading = time.time()
        if code := process.wait():
            complaints.seek(0)
            raise SystemExit(f"exit code {code}: {' / '.join(complaints.read().splitlines()[-LAST_LINES:])}")
        return Ran(began, loading, time.time())


def clean_environment(**extra: str) -> dict[str, str]:
    """What every measured process gets: none of the caller's Nightreel settings, and no spinning OpenMP threads.

    Nightreel sets OMP_WAIT_POLICY for its own child; the script that it is compared with gets the same.
    """
    kept = {name: value for name, value in os.environ.items() if not name.startswith("NIGHTREEL_")}
    path = os.pathsep.join((str(Path(__file__).parent), *filter(None, [kept.get("PYTHONPATH")])))  # for sleeper.py
    fixed = {"HF_HUB_OFFLINE": "1", "COLUMNS": "200", "PYTHONPATH": path}
    return {"OMP_WAIT_POLICY": "PASSIVE"} | kept | fixed | extra


def prompt(number: int) -> str:
    """One of 432 that pocket knows how to draw."""
    number, color = divmod(number, len(_COLORS))
    number, thing = divmod(number, len(_THINGS))
    number, place = divmod(number, len(_PLACES))
    return f"a {_COLORS[color]} {_THINGS[thing]} on {_PLACES[place]} {_TIMES[number % len(_TIMES)]}"
