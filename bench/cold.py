"""A cold start: from the start of a worker's process to its first claim, its first video and its exit, phase by phase.

python bench/cold.py [--quick] [--rounds N] [--model MODEL]
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from common import Table, arguments, count, median, publish, seconds, spread
from emulators import CLOUD, LOCAL, Place, Worker, emulators, in_the_cloud, on_this_machine, when
from workload import BASELINE, Shape, Workload, make, run

SHAPE = Shape(videos=1, shots=2, shot_s=1.0, width=640, height=360)
QUICK = Shape(videos=1, shots=1, shot_s=0.5, width=320, height=180)
SCRIPT = "plain script"
PHASES: Mapping[str, str] = {
    "start": "interpreter, settings, the first connection",
    "idle": "waiting for the first message",
    "wait": "claiming it, looking what the store has",
    "import": "the renderer's process: interpreter and libraries",
    "load": "loading the model",
    "render": "keyframes",
    "film": "the rest of the film",
    "upload": "verifying, storing, committing",
    "drain": "leaving",
}


@dataclass(frozen=True, slots=True)
class Start:
    """One process, in seconds since its start."""

    claimed_s: float
    rendered_s: float
    exited_s: float
    stages_s: Mapping[str, float]


def main() -> None:
    parser = arguments("A worker's cold start, by phase, beside a plain script's.")
    parser.add_argument("--model", default="pocket", help="model (default: pocket)")
    asked = parser.parse_args()
    rounds = asked.rounds or (1 if asked.quick else 5)
    with tempfile.TemporaryDirectory() as name, emulators(Path(name)):
        work = make(Path(name) / "cold", QUICK if asked.quick else SHAPE, asked.model)
        measured = [_round(work, Path(name)) for _ in range(rounds)]
        publish("cold", (_since_start(measured), _phases(measured)), asked)


def _round(work: Workload, folder: Path) -> dict[str, Start]:
    """Each once, one after the other; what a start leaves in the disk's cache serves all of them."""
    (made := folder / "made").mkdir()
    script = run((*BASELINE, str(work.models), str(work.jobs_file()), str(made)))
    shutil.rmtree(made)
    wall_s = script.wall_s
    plain = Start(script.loading - script.began, wall_s, wall_s, {})
    return {
        SCRIPT: plain,
        LOCAL: _start(work, on_this_machine(folder), folder),
        CLOUD: _start(work, in_the_cloud(), folder),
    }


def _start(work: Workload, place: Place, folder: Path) -> Start:
    """One job waits; a worker comes, makes it, and leaves at once."""
    place.publish(work.jobs)
    began = time.time()
    worker = Worker.start(place, folder, model=work.model, models=work.models, idle_timeout_s=0)
    claimed, ended = when(worker.wait("claimed")), when(worker.wait("job_ended"))
    worker.finish()
    exited = time.time()
    (said,) = worker.read("run_ended")
    return Start(claimed - began, ended - began, exited - began, said["stages_s"])


def _since_start(measured: list[dict[str, Start]]) -> Table:
    ours = [each[LOCAL].rendered_s for each in measured]
    rows = []
    for who in (SCRIPT, LOCAL, CLOUD):
        of = [each[who] for each in measured]
        claimed = "-" if who == SCRIPT else seconds([each.claimed_s for each in of])
        rendered = [each.rendered_s for each in of]
        ratio = "1" if who == LOCAL else spread([a / b for a, b in zip(rendered, ours, strict=True)])
        rows.append((who, claimed, seconds(rendered), seconds([each.exited_s for each in of]), ratio))
    return Table(
        "Seconds since the start of the process",
        ("who", "first job claimed", "first video committed", "exit", f"first video, against {LOCAL}"),
        tuple(rows),
        (
            (
                "Above 1 is slower. One job of two shots waits; the worker leaves when nothing waits any more. Claimed: pulled, "
                "and looked up in the store, for which the renderer's process must have said what its model is. The plain script "
                f"decodes, stores and commits nothing. Medians of {count(measured)}, least and greatest in brackets. Weights "
                "and libraries lie in the disk's cache."
            ),
        ),
    )


def _phases(measured: list[dict[str, Start]]) -> Table:
    rows = [
        (f"{phase}: {words}", *(_phase([each[place].stages_s for each in measured], phase) for place in (LOCAL, CLOUD)))
        for phase, words in PHASES.items()
    ]
    return Table(
        "The same runs by phase, from their reports",
        ("phase", LOCAL, CLOUD),
        tuple(rows),
        ("Each second is booked once, to the phase nearest to the GPU, so that a column adds up to the run.",),
    )


def _phase(stages: list[Mapping[str, float]], phase: str) -> str:
    return f"{median([each.get(phase, 0.0) for each in stages]):.2f} s"


if __name__ == "__main__":
    main()
