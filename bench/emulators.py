"""Places to work at: an SQLite file and a folder, or both emulators; and workers whose log is read while they work.

The emulators are started as the tests start them, on free ports, and end with the benchmark.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import itertools
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.append(str(Path(__file__).parents[1] / "tests"))  # where both emulators are known how to start

from fake_gcs import NEEDED, FakeGcs, find_binary, running
from pubsub_emulator import Emulator, Missing
from workload import NIGHTREEL, clean_environment

from nightreel_queue.base import Message, Queue
from nightreel_queue.connect import open_queue
from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store

PROJECT = "demo"
CLOUD, LOCAL = "emulators", "SQLite and a folder"  # the two kinds of place
PATIENCE_S = 600.0
LOOK_S = 0.01  # between two looks at a worker's log; what is measured are the times that stand in it
_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class Place:
    """Where jobs wait and videos go."""

    queue_url: str
    store_url: str

    @property
    def store(self) -> Store:
        return open_store(self.store_url)

    def publish(self, jobs: Sequence[Job]) -> None:
        with contextlib.closing(self.queue()) as queue:
            queue.publish([Message.of(job) for job in jobs])

    def queue(self) -> Queue:
        return open_queue(self.queue_url)


@contextlib.contextmanager
def emulators(folder: Path) -> Iterator[None]:
    """Google's Pub/Sub emulator and a fake-gcs-server, for this process and those that it starts; logs go to `folder`.

    Exits when one of them is not installed, with what to install.
    """
    if find_binary() is None:
        raise SystemExit(NEEDED)
    try:
        pubsub = Emulator(folder / "pubsub-emulator.log")
    except Missing as exc:
        raise SystemExit(str(exc)) from exc
    with contextlib.ExitStack() as stack:
        stack.callback(pubsub.stop)
        gcs = stack.enter_context(running(FakeGcs()))
        os.environ |= {"PUBSUB_EMULATOR_HOST": pubsub.host, "STORAGE_EMULATOR_HOST": gcs.url}
        yield


def in_the_cloud(options: str = "") -> Place:
    """A new queue and a new bucket on the emulators, made ready as an operator does; `options` go to the queue."""
    from nightreel_queue.pubsub_setup import setup
    from nightreel_storage.gcs_setup import setup_bucket

    number = next(_numbers)
    queue, store = f"pubsub://{PROJECT}/bench{number}", f"gs://bench-{number}/films"
    setup(queue)
    setup_bucket(store, "us-central1", project=PROJECT)
    return Place(queue + options, store)


def on_this_machine(folder: Path, options: str = "") -> Place:
    """A new SQLite file and a new folder below `folder`."""
    home = folder / f"local{next(_numbers)}"
    home.mkdir()
    return Place(f"sqlite:///{home}/queue.db{options}", str(home / "out"))


def dead_letters(queue_url: str) -> int:
    """How many messages wait in the dead letters of a queue on Pub/Sub; takes them away."""
    from nightreel_queue.pubsub import Address, Clients

    address = Address.of(queue_url.partition("?")[0])
    subscription, found = address.subscription(address.dead), 0
    with Clients(address) as clients:
        while received := clients.pull(subscription, 1.0):
            clients.ack(subscription, received.ack_id, 1.0)
            found += 1
    return found


@dataclass(slots=True)
class Worker:
    """A `nightreel work` process, and what its log has said so far."""

    process: subprocess.Popen[bytes]
    log: Path
    said: list[dict[str, Any]] = field(default_factory=list)
    _read: int = 0

    @classmethod
    def start(cls, place: Place, folder: Path, **settings: object) -> Worker:
        """Start one in `folder`; `settings` are environment variables without their prefix, in lower case."""
        log = folder / f"worker{next(_numbers)}.log"
        given = {"queue": place.queue_url, "store": place.store_url, "scratch": folder / "scratch"}
        given |= {"log_format": "json", "log_level": "info"}
        environment = {f"NIGHTREEL_{name.upper()}": str(value) for name, value in (given | settings).items()}
        with log.open("wb") as file:
            process = subprocess.Popen(
                (*NIGHTREEL, "work"), env=clean_environment(**environment), cwd=folder, stdout=file, stderr=file
            )
        return cls(process, log)

    def read(self, event: str, job: str = "") -> list[dict[str, Any]]:
        """What the log says of one kind of event, and of one job if one is named; oldest first."""
        with self.log.open("rb") as file:
            file.seek(self._read)
            whole = file.read().rpartition(b"\n")[0]
        self._read += len(whole) + bool(whole)
        self.said += [json.loads(line) for line in whole.splitlines() if line.startswith(b"{")]
        return [line for line in self.said if line["message"] == event and job in ("", line.get("job"))]

    def wait(self, event: str, job: str = "", times: int = 1) -> dict[str, Any]:
        """Wait until the log has said it so often; returns the last."""
        give_up_at = time.monotonic() + PATIENCE_S
        while len(found := self.read(event, job)) < times:
            if self.process.poll() is not None or time.monotonic() > give_up_at:
                last = b" / ".join(self.log.read_bytes().splitlines()[-3:]).decode(errors="replace")
                raise SystemExit(f"a worker did not say {event} {job}: {last}")
            time.sleep(LOOK_S)
        return found[times - 1]

    def finish(self) -> None:
        """Wait for its end, which must be a good one."""
        if code := self.process.wait(PATIENCE_S):
            raise SystemExit(f"nightreel work ended with exit code {code}")

    def leave(self) -> None:
        """Send it away, whatever it does."""
        self.process.terminate()
        self.process.wait(PATIENCE_S)


def when(line: dict[str, Any]) -> float:
    """The time of a log line, in seconds since the epoch."""
    return dt.datetime.fromisoformat(line["time"]).timestamp()
