"""The dispatcher's entrances: single jobs over HTTP, and a manifest of thousands of rows dropped into a folder.

    python bench/dispatcher.py [--quick] [--rounds N]

The dispatcher is a real `nightreel serve` with SQLite and a folder; who asks is a process beside it on the same machine.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import socket
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
from common import Table, arguments, count, median, publish

ASKERS = (1, 8)
PATIENCE_S = 600.0


@dataclass(frozen=True, slots=True)
class Answers:
    """What came of asking for a while."""

    per_s: float
    p50_ms: float
    p99_ms: float


def main() -> None:
    asked = arguments("The dispatcher's entrances.").parse_args()
    rounds = range(asked.rounds or (1 if asked.quick else 3))
    with tempfile.TemporaryDirectory() as folder:
        tables = (_http(Path(folder), asked, rounds), _drop(Path(folder), asked, rounds))
    publish("dispatcher", tables, asked)


def _http(folder: Path, asked: argparse.Namespace, rounds: range) -> Table:
    jobs = 40 if asked.quick else 2000
    found: dict[int, list[Answers]] = {askers: [] for askers in ASKERS}
    for round_ in rounds:
        for askers in ASKERS:
            with serving(folder / f"http-{round_}-{askers}") as url:
                found[askers].append(_ask(url, jobs, askers))
    rows = tuple(
        (
            f"{askers} at a time",
            f"{median([each.per_s for each in answers]):.0f}",
            f"{median([each.p50_ms for each in answers]):.1f} ms",
            f"{median([each.p99_ms for each in answers]):.1f} ms",
        )
        for askers, answers in found.items()
    )
    note = (
        f"`POST /jobs` with {jobs:,} different jobs of one shot, {count(rounds)}: each is checked, recorded as a batch of its"
        " own (two durable files) and published to SQLite before it is answered. Who asks takes part of the same cores."
    )
    return Table("Single jobs over HTTP", ("who asks", "answers a second", "median", "p99"), rows, (note,))


def _ask(url: str, jobs: int, askers: int) -> Answers:
    """Every asker keeps one connection, and asks again as soon as it was answered."""
    clients = threading.local()

    def one(number: int) -> float:
        if not hasattr(clients, "client"):
            clients.client = httpx.Client(base_url=url, timeout=60)
        begun = time.perf_counter()
        answer = clients.client.post("/jobs", json={"shots": [f"a boat on a calm sea, number {number}"]})
        answer.raise_for_status()
        return time.perf_counter() - begun

    with ThreadPoolExecutor(askers) as pool:
        list(pool.map(one, range(-askers, 0)))  # connections and imports
        begun = time.perf_counter()
        took = sorted(pool.map(one, range(jobs)))
        wall_s = time.perf_counter() - begun
    return Answers(jobs / wall_s, took[len(took) // 2] * 1000, took[int(len(took) * 0.99)] * 1000)


def _drop(folder: Path, asked: argparse.Namespace, rounds: range) -> Table:
    size = 200 if asked.quick else 10_000
    text = "id,prompt,seed\n" + "".join(f"v{n},a red sun over blue hills,{n}\n" for n in range(size))
    took = []
    for round_ in rounds:
        home = folder / f"drop-{round_}"
        with serving(home, "--watch", "inbox"):
            begun = time.perf_counter()
            (home / "inbox/films.csv").write_text(text, encoding="utf-8")
            _until(partial(_has_all, home, size))
            took.append(time.perf_counter() - begun)
    row = (f"{size:,} rows, CSV", f"{median(took):.1f} s")
    note = (
        f"{count(rounds)}. From the file's last byte to the last job in the queue, the second included for which a file must"
        " stay as it is."
    )
    return Table("A manifest dropped into a watched folder", ("manifest", "to the last job"), (row,), (note,))


def _has_all(home: Path, size: int) -> bool:
    with contextlib.suppress(sqlite3.Error), contextlib.closing(sqlite3.connect(home / "queue.db")) as db:
        return bool(db.execute("SELECT count(*) FROM messages").fetchone()[0] == size)
    return False


@contextlib.contextmanager
def serving(home: Path, *flags: str) -> Iterator[str]:
    home.mkdir(exist_ok=True)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = (sys.executable, "-m", "nightreel", "serve", "--port", str(port), "--model", "testcard", *flags)
    environment = os.environ | {"NIGHTREEL_QUEUE": "sqlite:///queue.db", "NIGHTREEL_LOG_LEVEL": "error"}
    process = subprocess.Popen(command, cwd=home, env=environment)
    url = f"http://127.0.0.1:{port}"
    try:
        _until(lambda: _answers(url))
        yield url
    finally:
        process.terminate()
        process.wait()


def _answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(f"{url}/health").status_code == 200
    return False


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit("waited in vain for the dispatcher")
        time.sleep(0.02)


if __name__ == "__main__":
    main()
