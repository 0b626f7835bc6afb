"""From a manifest of thousands of rows to a queue, beside a script of a dozen lines.

    python bench/manifests.py [--quick] [--rounds N]

Both sides run in processes of their own, one right after the other, on the same file.
"""

from __future__ import annotations

import argparse
import csv
import json
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from common import Table, arguments, count, median, publish, spread

from nightreel.common import settings_with
from nightreel.submit import read
from nightreel_dispatcher.submit import submit
from nightreel_queue.job import Job
from nightreel_storage.connect import open_store

FORMS = ("csv", "jsonl", "yaml")
HEADER = "id,prompt,duration,seed,output.aspect,motion.zoom,labels.client\n"
OURS, PLAIN = "nightreel", "plain"


@dataclass(frozen=True, slots=True)
class Cost:
    """What one process took, its imports left out."""

    wall_s: float
    cpu_s: float
    peak_mib: float
    """Of the whole process."""


def main() -> None:
    if sys.argv[1:2] == ["--child"]:
        _child(*sys.argv[2:])
        return
    asked = arguments("Manifests of thousands of rows.").parse_args()
    with tempfile.TemporaryDirectory() as folder:
        table = measure(Path(folder), asked)
    publish("manifests", (table,), asked)


def measure(folder: Path, asked: argparse.Namespace) -> Table:
    sizes = (200,) if asked.quick else (10_000, 100_000)
    rounds = range(asked.rounds or (1 if asked.quick else 3))
    costs: dict[tuple[int, str], list[dict[str, Cost]]] = {}
    for round_ in rounds:
        for rows in sizes:
            for form in FORMS:
                file = folder / f"{rows}.{form}"
                file.write_text("".join(_lines(form, rows)), encoding="utf-8")
                both = {side: _run(side, file, folder / f"{round_}-{rows}-{form}-{side}") for side in (OURS, PLAIN)}
                costs.setdefault((rows, form), []).append(both)
    return _table(costs, rounds)


def _table(costs: dict[tuple[int, str], list[dict[str, Cost]]], rounds: range) -> Table:
    rows = tuple(
        (
            f"{size:,} rows, {form.upper()}",
            *(f"{median([each[side].wall_s for each in runs]):.1f} s" for side in (OURS, PLAIN)),
            spread([each[OURS].cpu_s / each[PLAIN].cpu_s for each in runs], 1),
            *(f"{median([each[side].peak_mib for each in runs]):.0f} MiB" for side in (OURS, PLAIN)),
        )
        for (size, form), runs in costs.items()
    )
    columns = ("manifest", "enqueue", "plain script", "CPU time, ratio", "peak memory", "plain script's")
    notes = (
        (
            f"One shot a row, seven fields; medians of {count(rounds)}, least and greatest ratio in brackets. `nightreel enqueue` "
            "without its start: read, check every field, compare all ids, record the batch in a folder, publish to SQLite."
        ),
        (
            "The plain script reads the file (`csv.DictReader`, `json.loads`, `yaml.load` with the C loader), makes a `Job` of "
            "each row, which checks the same fields, and puts its JSON into an SQLite table, one transaction at the end. It "
            "knows no line of a mistake and stops at the first one; it guesses no encoding and no separator, lays no defaults "
            "under, sees no job that is there twice, makes no fingerprint, keeps no record that `status` and `retry` could read, "
            "and run again it inserts everything again."
        ),
    )
    return Table("From a manifest to the queue", columns, rows, notes)


def _run(side: str, file: Path, folder: Path) -> Cost:
    folder.mkdir()
    command = (sys.executable, str(Path(__file__).resolve()), "--child", side, str(file), str(folder))
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return Cost(**json.loads(said.splitlines()[-1]))


def _child(side: str, file: str, folder: str) -> None:
    sides: dict[str, Callable[[Path, Path], None]] = {OURS: _ours, PLAIN: _plain}
    wall, cpu = time.perf_counter(), time.process_time()
    sides[side](Path(file), Path(folder))
    took = {"wall_s": time.perf_counter() - wall, "cpu_s": time.process_time() - cpu, "peak_mib": _peak_mib()}
    print(json.dumps(took))


def _ours(file: Path, folder: Path) -> None:
    settings = settings_with(queue=f"sqlite:///{folder / 'queue.db'}", store=str(folder / "out"), model="testcard")
    submit(read(file), settings, open_store(settings.store))


def _plain(file: Path, folder: Path) -> None:
    with sqlite3.connect(folder / "queue.db") as db:
        db.execute("CREATE TABLE messages (id INTEGER PRIMARY KEY, body TEXT)")
        for row in _plain_rows(file):
            job = Job.model_validate(row)
            db.execute("INSERT INTO messages (body) VALUES (?)", (json.dumps(job.model_dump(mode="json")),))
    db.close()


def _plain_rows(file: Path) -> Iterator[Any]:
    with file.open(encoding="utf-8", newline="") as lines:
        if file.suffix == ".yaml":
            for job in yaml.load(lines, yaml.CSafeLoader)["jobs"]:
                yield _with_tuples(job)
        elif file.suffix == ".jsonl":
            for line in lines:
                yield _with_tuples(json.loads(line))
        else:
            for row in csv.DictReader(lines):
                first, last = row["motion.zoom"].split()
                zoom = [float(first), float(last)]
                yield _job(
                    row["id"], row["prompt"], int(row["seed"]), float(row["duration"]), zoom, row["labels.client"]
                )


def _with_tuples(job: Any) -> Any:
    """What the strict model wants in place of lists."""
    shots = [shot | {"motion": {"zoom": tuple(shot["motion"]["zoom"])}} for shot in job["shots"]]
    return job | {"shots": tuple(shots)}


def _job(name: str, prompt: str, seed: int, duration: float, zoom: list[float], client: str) -> Any:
    shot = {"prompt": prompt, "duration": duration, "motion": {"zoom": tuple(zoom)}}
    return {"id": name, "seed": seed, "output": {"aspect": "9:16"}, "shots": (shot,), "labels": {"client": client}}


def _lines(form: str, rows: int) -> Iterator[str]:
    yield {"csv": HEADER, "jsonl": "", "yaml": "jobs:\n"}[form]
    for number in range(rows):
        name, prompt, client = f"v{number}", f"a red sun over blue hills, number {number}", f"client-{number % 50}"
        if form == "csv":
            yield f'{name},"{prompt}",3,{number},9:16,1 1.2,{client}\n'
        else:
            text = json.dumps(_job(name, prompt, number, 3, [1, 1.2], client))
            yield f"{'- ' if form == 'yaml' else ''}{text}\n"


def _peak_mib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) / 1024
    raise AssertionError("Linux says the peak of a process's memory in VmHWM")


if __name__ == "__main__":
    main()
