"""What a worker holds over many jobs, and what its GPU waits for."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import sleeper
from common import Table, count, spread
from emulators import CLOUD, LOCAL, Place, Worker, in_the_cloud, on_this_machine
from soak import tiny_job
from workload import Shape, make

from nightreel_worker.report import RunReport

IDLE_S = 3  # that a worker waits at the end of a queue
WANTED_IDLE = 0.01  # most of the GPU stage's time that it may wait
FILM = (0.5, 320, 180)  # of the jobs whose GPU sleeps: seconds, width, height


# memory


def memory(folder: Path, marks: Sequence[int]) -> tuple[Table, ...]:
    """Resident memory of one worker's two Python processes over many jobs."""
    since = 1 if len(marks) > 2 else 0  # by the first mark not everything is loaded
    rows = []
    for name, place in ((CLOUD, in_the_cloud()), (LOCAL, on_this_machine(folder))):
        parent, renderer = _resident(place, folder, marks)
        for what, sizes in (("parent", parent), ("renderer", renderer)):
            cells = [f"{size:.1f} MiB" for size in sizes]
            growth_kib = (sizes[-1] - sizes[since]) * 1024 / (marks[-1] - marks[since])
            rows.append((f"{what}, {name}", *cells, f"{growth_kib:+.2f} KiB"))
    return (
        Table(
            f"One worker's memory over {marks[-1]:,} jobs",
            ("process", *(f"after {mark:,}" for mark in marks), f"a job, from {marks[since]:,} on"),
            tuple(rows),
            ("Resident (RSS), pages shared with other processes included. The same tiny jobs as above, once each.",),
        ),
    )


def _resident(place: Place, folder: Path, marks: Sequence[int]) -> tuple[list[float], list[float]]:
    """MiB of parent and renderer when so many jobs have ended."""
    place.publish([tiny_job(number) for number in range(marks[-1] + 4)])  # the last mark, too, is met at work
    worker = Worker.start(place, folder, model="testcard", idle_timeout_s=IDLE_S)
    parent, renderer = [], []
    for mark in marks:
        worker.wait("job_ended", times=mark)
        parent.append(_rss_mib(worker.process.pid))
        renderer.append(_rss_mib(int(worker.read("renderer_started")[-1]["pid"])))
    worker.finish()
    return parent, renderer


def _rss_mib(pid: int) -> float:
    line = next(
        line for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines() if "VmRSS" in line
    )
    return int(line.split()[1]) / 1024


# a GPU that sleeps


@dataclass(frozen=True, slots=True)
class Idleness:
    """Time without work for the GPU stage, as shares of its time, and the longest pause."""

    reported: float
    """By the run's report: waited and held up, against keyframes."""
    seen: float
    """By the sleeper's own log: what is no sleep, from its first beginning to its last end."""
    longest_s: float


def gpu(folder: Path, shapes: Sequence[tuple[float, int]], rounds: int) -> tuple[Table, ...]:
    """Does a GPU wait for queue, bucket or anything else? Each shape: seconds a job, and how many jobs."""
    seen: dict[tuple[float, int, str], list[Idleness]] = {}
    for _ in range(rounds):
        for seconds, many in shapes:
            for name, place in ((CLOUD, in_the_cloud()), (LOCAL, on_this_machine(folder))):
                seen.setdefault((seconds, many, name), []).append(_idleness(place, folder, seconds, many))
    rows = [
        (
            f"{seconds:g} s, {name}",
            str(many),
            spread([100 * idle.reported for idle in each]),
            spread([100 * idle.seen for idle in each]),
            f"{max(idle.longest_s for idle in each) * 1000:.0f} ms",
        )
        for (seconds, many, name), each in seen.items()
    ]
    return (
        Table(
            "How long a GPU waits that sleeps for each job",
            ("GPU a job, place", "jobs", "% by the run's report", "% by its own log", "longest pause"),
            tuple(rows),
            (
                (
                    "By the run's report: `waited_s` and `held_up_s` against `keyframes_s`. By its own log: all that is no "
                    f"sleep between its first beginning and its last end. Wanted: under {WANTED_IDLE:.0%}. One keyframe a "
                    f"job, films of {FILM[0]:g} s at {FILM[1]}x{FILM[2]}. Medians of {count(range(rounds))}, least and "
                    "greatest in brackets."
                ),
            ),
        ),
    )


def _idleness(place: Place, folder: Path, seconds: float, many: int) -> Idleness:
    home = folder / "gpu"
    shutil.rmtree(home, ignore_errors=True)
    shape = Shape(many, 1, *FILM)
    work = make(home, shape, "gpu", sleeper.SOURCE, seconds_to_load=0, seconds_per_keyframe=seconds)
    log = home / "sleeps"
    with work.models.open("a", encoding="utf-8") as models:
        models.write(f"log = {json.dumps(str(log))}\n")
    place.publish(work.jobs)
    Worker.start(place, folder, model="gpu", models=work.models, idle_timeout_s=IDLE_S).finish()
    store = place.store
    [entry] = store.list(".nightreel/runs/")
    report = RunReport.model_validate_json(store.get(entry.name)[0])
    assert report.done == many, report
    sleeps = [(float(began), float(ended)) for began, ended in map(str.split, log.read_text().splitlines())]
    pauses = [after[0] - before[1] for before, after in itertools.pairwise(sleeps)]
    waits = (report.waited_s + report.held_up_s) / report.keyframes_s
    return Idleness(waits, sum(pauses) / (sleeps[-1][1] - sleeps[0][0]), max(pauses))
