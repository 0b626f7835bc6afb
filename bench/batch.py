"""A batch of short videos: Nightreel against the plain script, and against the time that its GPU stage needs.

python bench/batch.py [--quick] [--rounds N] [--model MODEL]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import sleeper
from common import Table, arguments, count, median, publish, seconds, spread
from workload import BASELINE, NIGHTREEL, Ran, Shape, Workload, make, run

from nightreel_pipelines.encode import check
from nightreel_storage.folder import FolderStore
from nightreel_storage.receipts import Receipts
from nightreel_worker.report import RunReport

SHORT = Shape(videos=20, shots=2, shot_s=1.0, width=640, height=360)
SLEEPING = Shape(videos=20, shots=4, shot_s=0.5, width=640, height=360)
LOAD_S, KEYFRAME_S = 3.0, 0.5  # that the sleeping GPU takes
QUICK = 2  # videos


@dataclass(frozen=True, slots=True)
class Drain:
    """One run of nightreel, from outside and in its own words."""

    ran: Ran
    report: RunReport
    last_receipt: float
    """When the last job ended; seconds since the epoch."""
    digests: dict[str, str]
    """What the videos show, by job."""


@dataclass(frozen=True, slots=True)
class Round:
    """The same batch, made in three ways one after the other."""

    ours: Drain
    loop: Ran
    naive_s: float
    equal_films: int


def main() -> None:
    parser = arguments("Nightreel against a plain script, and against its own GPU stage.")
    parser.add_argument("--model", default="pocket", help="that the first comparison is made with (default: pocket)")
    parser.add_argument("--only", choices=("script", "gpu"), help="one of the two comparisons (default: both)")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    with tempfile.TemporaryDirectory() as name:
        if asked.only != "gpu":
            publish("batch", [against_script(Path(name), _cut(SHORT, asked), asked.model, rounds)], asked)
        if asked.only != "script":
            publish("gpu", against_gpu(Path(name), _cut(SLEEPING, asked), rounds), asked)


def _cut(shape: Shape, asked: argparse.Namespace) -> Shape:
    return Shape(QUICK, 2, 0.5, 320, 180) if asked.quick else shape


# the plain script


def against_script(folder: Path, shape: Shape, model: str, rounds: int) -> Table:
    """Nightreel, a process a video, and the simple loop, in turn, `rounds` times."""
    work = make(folder / "script", shape, model)
    measured = [_round(work, folder / "made") for _ in range(rounds)]
    ours = [each.ours.ran.wall_s for each in measured]
    loop, naive = [each.loop.wall_s for each in measured], [each.naive_s for each in measured]
    films = shape.videos * rounds
    return Table(
        title=f"{shape.videos} videos of {shape.shots} x {shape.shot_s:g} s at {shape.width}x{shape.height}, model {model}",
        columns=("how", "wall time", "against nightreel"),
        rows=(
            ("`nightreel render`", seconds(ours), "1"),
            ("one Python process a video", seconds(naive), spread(_ratios(naive, ours))),
            ("simple loop, loads once", seconds(loop), spread(_ratios(loop, ours))),
        ),
        notes=(_how_read(measured, films), _where_it_went([each.ours for each in measured])),
    )


def _how_read(measured: list[Round], films: int) -> str:
    equal = sum(each.equal_films for each in measured)
    return (
        f"Medians of {count(measured)}, least and greatest in brackets; a ratio above 1 means that nightreel is "
        f"faster. {equal} of the script's {films} films are, frame by frame, those of nightreel. Only nightreel decodes "
        "every film again to check it, makes a poster, stores keyframes, and writes receipts."
    )


def _ratios(others: list[float], ours: list[float]) -> list[float]:
    """Round by round, so that a busy minute of the machine weighs on both."""
    return [other / own for other, own in zip(others, ours, strict=True)]


def _where_it_went(drains: list[Drain]) -> str:
    start = median([drain.ran.loading - drain.ran.began for drain in drains])
    load = median([drain.report.load_s for drain in drains])
    keyframes = median([drain.report.keyframes_s for drain in drains])
    waited = median([drain.report.waited_s for drain in drains])
    held_up = median([drain.report.held_up_s for drain in drains])
    return (
        f"Of nightreel's time: {start:.2f} s until it loads the model, {load:.2f} s loading, {keyframes:.2f} s making "
        f"keyframes, {waited:.2f} s without a job, {held_up:.2f} s until the film stage took the job before."
    )


def _round(work: Workload, folder: Path) -> Round:
    shutil.rmtree(folder, ignore_errors=True)
    ours = drain(work, folder / "ours")
    loop = script(work.models, work.jobs_file(), folder / "loop")
    naive = [script(work.models, work.jobs_file(job), folder / "naive").wall_s for job in work.jobs]
    equal = sum(
        _digest(work, number, folder / "loop") == ours.digests[job.id or ""] for number, job in enumerate(work.jobs)
    )
    return Round(ours, loop, sum(naive), equal)


def script(models: Path, jobs: Path, folder: Path) -> Ran:
    folder.mkdir(parents=True, exist_ok=True)
    return run((*BASELINE, str(models), str(jobs), str(folder)))


def drain(work: Workload, folder: Path) -> Drain:
    """`nightreel render` on a fresh store."""
    ran = run(
        (*NIGHTREEL, "render", str(work.manifest), "--model", work.model),
        NIGHTREEL_STORE=str(folder),
        NIGHTREEL_MODELS=str(work.models),
    )
    [report] = (folder / ".nightreel" / "runs").glob("*.json")
    receipts = list(Receipts(FolderStore(folder)).list("bench"))
    return Drain(
        ran,
        RunReport.model_validate_json(report.read_bytes()),
        max(receipt.ended_at.timestamp() for receipt in receipts if receipt.ended_at),
        {receipt.job: receipt.video.digest for receipt in receipts if receipt.video},
    )


def _digest(work: Workload, number: int, folder: Path) -> str:
    job = work.jobs[number]
    (width, height), fps = job.output.size, job.output.fps
    return check(
        folder / f"{job.id}.mp4",
        width=width,
        height=height,
        fps=fps,
        frames=round(job.duration_s * fps),
        poster=folder / "poster.jpg",
    ).digest


# the time that the GPU stage needs


def against_gpu(folder: Path, shape: Shape, rounds: int) -> tuple[Table, Table]:
    """A model that sleeps stands for a GPU that works while the CPU is free: how much longer than it takes all else?"""
    work = make(folder / "gpu", shape, "gpu", sleeper.SOURCE, seconds_to_load=LOAD_S, seconds_per_keyframe=KEYFRAME_S)
    drains, loops = [], []
    for _ in range(rounds):
        shutil.rmtree(folder / "made", ignore_errors=True)
        drains.append(drain(work, folder / "made" / "ours"))
        loops.append(script(work.models, work.jobs_file(), folder / "made" / "loop"))
    needed_s = LOAD_S + shape.videos * shape.shots * KEYFRAME_S
    return _gpu_ratios(shape, drains, loops, needed_s), _gpu_rest(drains, needed_s)


def _gpu_ratios(shape: Shape, drains: list[Drain], loops: list[Ran], needed_s: float) -> Table:
    def row(how: str, times_s: list[float]) -> tuple[str, ...]:
        return how, seconds(times_s), spread([time_s / needed_s for time_s in times_s], digits=3)

    ours = [each.ran for each in drains]
    return Table(
        title=f"{shape.videos} videos of {shape.shots} x {shape.shot_s:g} s at {shape.width}x{shape.height}, a GPU that sleeps",
        columns=("what is counted", "time", f"against the {needed_s:g} s that the GPU needs"),
        rows=(
            row("`nightreel render`, from its first GPU second to its exit", [ran.ended - ran.loading for ran in ours]),
            row("`nightreel render`, the whole process", [ran.wall_s for ran in ours]),
            row("simple loop, from its first GPU second to its exit", [ran.ended - ran.loading for ran in loops]),
            row("simple loop, the whole process", [ran.wall_s for ran in loops]),
        ),
        notes=(_what_is_needed(shape, drains),),
    )


def _what_is_needed(shape: Shape, drains: list[Drain]) -> str:
    return (
        f"The GPU needs {LOAD_S:g} s to load and {KEYFRAME_S:g} s for each of {shape.videos * shape.shots} keyframes: "
        "sleeps, as configured; nothing else is counted as needed. The first GPU second is when the process says that it "
        "begins to load the model. Wanted: at most 1.030. "
        f"Medians of {count(drains)}, least and greatest in brackets."
    )


def _gpu_rest(drains: list[Drain], needed_s: float) -> Table:
    parts = [_parts(each, needed_s) for each in drains]
    rows = tuple((name, f"{median([part[name] for part in parts]):.3f} s") for name in parts[0])
    return Table("Where nightreel's other seconds went", ("stage", "median"), rows)


def _parts(each: Drain, needed_s: float) -> dict[str, float]:
    """The process's life without the sleeps, cut into parts that add up."""
    report, ran = each.report, each.ran
    gpu_s = report.load_s + report.keyframes_s
    last_keyframe = ran.loading + gpu_s + report.waited_s + report.held_up_s
    return {
        "interpreter, imports, recording the batch": report.started_at.timestamp() - ran.began,
        "renderer's start, until the model begins to load": ran.loading - report.started_at.timestamp(),
        "GPU stage beyond its sleeps: late wake-ups, handing over": gpu_s - needed_s,
        "GPU stage without a job": report.waited_s,
        "GPU stage held up by the film stage": report.held_up_s,
        "last film after its last keyframe, verification, commit": each.last_receipt - last_keyframe,
        "leaving: ack, empty queue, renderer's end": report.ended_at.timestamp() - each.last_receipt,
        "summary and interpreter's end": ran.ended - report.ended_at.timestamp(),
    }


if __name__ == "__main__":
    main()
