"""Many jobs, several workers, and a kill -9 every few seconds: does every job end once, and is nothing left behind?

    python bench/soak.py --jobs 2000 --workers 4 --kill-every 4
    python bench/soak.py --emulators     # on Google's Pub/Sub emulator and a fake-gcs-server, which it starts itself
    python bench/soak.py --queue pubsub://demo/soak --store gs://soak/1   # on what is there

Jobs are tiny and their keyframes drawn (model testcard), so that what is exercised is the machinery: leases, attempts,
stages, the commit. The victim of each kill is a worker, its renderer or an ffmpeg, chosen at random from a seed.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import random
import signal
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common import Table, arguments, publish
from emulators import dead_letters, emulators, in_the_cloud, on_this_machine
from workload import NIGHTREEL

from nightreel_queue.base import Message, Queue
from nightreel_queue.connect import open_queue
from nightreel_queue.job import Job, Output, Render, Shot
from nightreel_storage.attempts import Attempts
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import NotFound
from nightreel_storage.receipts import Receipts

BATCH = "soak"
LEASE_S = 5.0
SUBSCRIPTION_LEASE_S = 60.0  # after which Pub/Sub gives again what a worker was sent in the moment of its death
LOOK_EVERY_S = 2.0  # at what has ended; counting is work for the store, too
GIVE_UP_AFTER_S = 3600.0
MAX_ATTEMPTS = "50"  # kills are the weather here: no job is to be given up for them
KINDS = {"nightreel work": "worker", "nightreel_worker.child": "renderer", "ffmpeg": "ffmpeg"}


@dataclass(slots=True)
class Soak:
    """One run: its folder, its workers, what was killed."""

    folder: Path
    queue_url: str
    store_url: str
    workers: list[subprocess.Popen[bytes]] = field(default_factory=list)
    started: int = 0
    kills: Counter[str] = field(default_factory=Counter)

    def start_worker(self) -> None:
        environment = os.environ | {
            "NIGHTREEL_QUEUE": self.queue_url,
            "NIGHTREEL_STORE": self.store_url,
            "NIGHTREEL_MODEL": "testcard",
            "NIGHTREEL_SCRATCH": str(self.folder / "scratch"),
            "NIGHTREEL_X264_PRESET": "ultrafast",
            "NIGHTREEL_MAX_ATTEMPTS": MAX_ATTEMPTS,
            "NIGHTREEL_RETRY_DELAY_S": "0.1",
            "NIGHTREEL_LOG_LEVEL": "error",
            "NIGHTREEL_IDLE_TIMEOUT_S": "3600",
        }
        with (self.folder / "workers.log").open("ab") as log:
            command = (*NIGHTREEL, "work")
            self.workers.append(subprocess.Popen(command, env=environment, cwd=self.folder, stdout=log, stderr=log))
        self.started += 1

    def keep_workers(self, count: int) -> None:
        self.workers = [worker for worker in self.workers if worker.poll() is None]
        while len(self.workers) < count:
            self.start_worker()

    def kill_somebody(self, chance: random.Random) -> None:
        by_kind: dict[str, list[int]] = {}
        for pid, kind in self.processes():
            by_kind.setdefault(kind, []).append(pid)
        if by_kind:
            kind = chance.choice(sorted(by_kind))
            with contextlib.suppress(ProcessLookupError):
                os.kill(chance.choice(by_kind[kind]), signal.SIGKILL)
                self.kills[kind] += 1

    def processes(self) -> Iterator[tuple[int, str]]:
        """Live processes of this soak: all of them work in its folder."""
        for entry in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (entry / "cwd").readlink() != self.folder:
                    continue
                line = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                for sign, kind in KINDS.items():
                    if sign in line:
                        yield int(entry.name), kind
                        break


def main() -> None:
    asked = _asked()
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder).resolve()
        with emulators(home) if asked.emulators else contextlib.nullcontext():
            table = _soak(home, asked)
    publish("soak-emulators" if asked.emulators else "soak", [table], asked)


def _soak(home: Path, asked: argparse.Namespace) -> Table:
    place = in_the_cloud() if asked.emulators else on_this_machine(home)
    soak = Soak(home, f"{asked.queue or place.queue_url}?lease_s={LEASE_S:g}", asked.store or place.store_url)
    queue, store = open_queue(soak.queue_url), open_store(soak.store_url)
    with contextlib.closing(queue):
        queue.publish([Message.of(tiny_job(number)) for number in range(asked.jobs)])
        seconds = _run(soak, store, asked)
        return _outcome(soak, queue, store, asked, seconds)


def _asked() -> argparse.Namespace:
    parser = arguments("many jobs, several workers, and a kill -9 every few seconds")
    parser.add_argument("--jobs", type=int, help="how many (default: 2000; quick: 80)")
    parser.add_argument("--workers", type=int, help="how many at once (default: 4; quick: 2)")
    parser.add_argument("--kill-every", type=float, default=4.0, help="seconds between two kills")
    parser.add_argument("--emulators", action="store_true", help="on both Google emulators, started for this")
    parser.add_argument("--queue", help="address of an empty queue (default: a new SQLite file)")
    parser.add_argument("--store", help="address of an empty store (default: a new folder)")
    parser.add_argument("--seed", type=int, default=1, help="chooses the victims")
    asked = parser.parse_args()
    asked.jobs = asked.jobs or (80 if asked.quick else 2000)
    asked.workers = asked.workers or (2 if asked.quick else 4)
    return asked


def tiny_job(number: int) -> Job:
    """A job of half a second at 64x64 that no model is needed for, with a picture of its own."""
    job = Job(
        id=f"job{number:05}",
        output=Output(width=64, height=64, fps=8),
        render=Render(megapixels=0.004),
        shots=(Shot(prompt=f"picture {number}", duration=0.5),),
    )
    return job.resolved(model="testcard", batch=BATCH)


def _run(soak: Soak, store: Store, asked: argparse.Namespace) -> float:
    """Kill until every job has a receipt, then ask the workers to leave. Returns seconds."""
    chance = random.Random(asked.seed)
    began = killed_at = looked_at = time.monotonic()
    ended = 0
    while ended < asked.jobs:
        soak.keep_workers(asked.workers)
        if time.monotonic() - killed_at >= asked.kill_every:
            killed_at = time.monotonic()
            soak.kill_somebody(chance)
        if time.monotonic() - looked_at >= LOOK_EVERY_S:
            ended = sum(entry.name.endswith(".json") for entry in store.list(f"{BATCH}/"))
            looked_at = time.monotonic()
        if time.monotonic() - began > GIVE_UP_AFTER_S:
            raise SystemExit(f"{asked.jobs - ended} jobs did not end")
        time.sleep(0.1)
    seconds = time.monotonic() - began
    _settle(soak, asked.quick)
    return seconds


def _settle(soak: Soak, quick: bool) -> None:
    """Let one more worker ack what killed ones had committed, then see everybody off."""
    soak.keep_workers(1)
    lost_s = SUBSCRIPTION_LEASE_S if soak.queue_url.startswith("pubsub:") and not quick else 0.0
    time.sleep(2 * LEASE_S + lost_s)
    for worker in soak.workers:
        worker.terminate()
    for worker in soak.workers:
        worker.wait()


def _outcome(soak: Soak, queue: Queue, store: Store, asked: argparse.Namespace, seconds: float) -> Table:
    receipts = {receipt.job: receipt for receipt in Receipts(store).list(BATCH)}
    states = Counter(receipt.state for receipt in receipts.values())
    attempts = Attempts(store)
    ends = Counter(attempt.end or "never closed" for job in receipts for attempt in attempts.history(BATCH, job, 1))
    kills = ", ".join(f"{count} {kind}" for kind, count in sorted(soak.kills.items())) or "none"
    rows = (
        ("jobs asked for", str(asked.jobs)),
        ("receipts", f"{len(receipts)} ({', '.join(f'{count} {state}' for state, count in sorted(states.items()))})"),
        ("videos whose bytes are what the receipt says", str(sum(_is_true(store, output.name, output.sha256)
                                                                 for receipt in receipts.values()
                                                                 for output in receipt.outputs[:1]))),
        ("killed", f"{sum(soak.kills.values())}: {kills}"),
        ("workers started", str(soak.started)),
        ("attempts", ", ".join(f"{count} {end}" for end, count in sorted(ends.items()))),
        ("messages left in the queue", str(_left_in(queue))),
        ("dead letters", str(_dead(soak.queue_url, queue))),
        ("processes left", str(sum(1 for _ in soak.processes()))),
        ("scratch folders left", str(_scratch_left(soak))),
        ("jobs a second", f"{asked.jobs / seconds:.1f}"),
    )  # fmt: skip
    note = "A scratch folder is left when the very last worker was killed; the next worker on the machine removes it."
    return Table(f"{asked.jobs} jobs, {asked.workers} workers, a kill every {asked.kill_every:g} s", ("what", "count"),
                 rows, (note,))  # fmt: skip


def _left_in(queue: Queue) -> int:
    """Messages that can still be pulled; each is put back."""
    deliveries = []
    while delivery := queue.pull(1.0):
        deliveries.append(delivery)
    for delivery in deliveries:
        delivery.release()
    return len(deliveries)


def _dead(queue_url: str, queue: Queue) -> int:
    return dead_letters(queue_url) if queue_url.startswith("pubsub:") else queue.backlog().dead


def _is_true(store: Store, name: str, sha256: str) -> bool:
    try:
        return hashlib.sha256(store.get(name)[0]).hexdigest() == sha256
    except NotFound:
        return False


def _scratch_left(soak: Soak) -> int:
    scratch = soak.folder / "scratch"
    return len(list(scratch.iterdir())) if scratch.exists() else 0


if __name__ == "__main__":
    main()
