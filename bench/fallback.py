"""How soon the next backend's worker is started when one dies: `nightreel serve` with two, of processes on this machine.

    python bench/fallback.py [--quick] [--rounds N]

The first backend's source is a web server that is killed, or its worker is, by kill -9, while it has jobs in hand.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from common import Table, arguments, count, publish, spread

from nightreel_queue.base import Message
from nightreel_queue.connect import open_queue
from nightreel_queue.job import Job
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import Receipts

LEAST_JOBS = 12
JOB_S = 2.0  # that the first backend takes for one
PATIENCE_S = 240.0
LOOK_S = 0.02
MODELS = """
[painter]
source = "testcard"
megapixels = 0.004
[sketcher]
source = "testcard"
megapixels = 0.004
stands_in_for = ["painter"]
options = {seconds_per_keyframe = 2}
"""
BACKENDS = """
[local]
launcher = "process"
model = "sketcher"
retries = 0
health = "http://127.0.0.1:{port}/"
[cloud]
launcher = "process"
model = "painter"
"""


@dataclass(frozen=True, slots=True)
class Fall:
    """One death, in seconds after it."""

    started_s: float
    """The next backend's worker was started."""
    ended_s: float
    """It ended its first job."""


class House:
    """A dispatcher with two backends, and jobs that keep the first one busy."""

    def __init__(self, folder: Path, ask_every_s: float) -> None:
        self._folder, self._store = folder, open_store(str(folder / "out"))
        ports = [_free_port(), _free_port()]
        jobs = max(LEAST_JOBS, round(3 * ask_every_s / JOB_S))  # it must not be done before anybody asks how it is
        (folder / "models.toml").write_text(MODELS)
        (folder / "backends.toml").write_text(BACKENDS.format(port=ports[0]))
        settings = {
            "STORE": folder / "out", "MODELS": folder / "models.toml", "MODEL": "painter", "X264_PRESET": "ultrafast",
            "DISPATCHER_BACKENDS": folder / "backends.toml", "DISPATCHER_MAX_WAIT_S": 0,
            "DISPATCHER_ASK_EVERY_S": ask_every_s,
        }  # fmt: skip
        environment = os.environ | {f"NIGHTREEL_{name}": str(value) for name, value in settings.items()}
        start = partial(subprocess.Popen, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=folder)
        self.source = start([sys.executable, "-m", "http.server", str(ports[0])])
        _until(lambda: _answers(ports[0]), "the source")
        with contextlib.closing(open_queue(f"sqlite:///{folder}/out/.nightreel/queue.db")) as queue:
            queue.publish([Message.of(_job(number)) for number in range(jobs)])
        command = [sys.executable, "-m", "nightreel", "serve", "--port", str(ports[1])]
        self._serve = start(command, env=environment)

    def fall(self, kill: Callable[[House], None]) -> Fall:
        """Let something die while the first backend works, and wait for the next one."""
        _until(lambda: self._ended("local"), "a film of the first backend")
        kill(self)
        died_at = time.monotonic()
        _until(lambda: self.workers("cloud"), "a worker of the next backend")
        started_s = time.monotonic() - died_at
        _until(lambda: self._ended("cloud"), "its first film")
        return Fall(started_s, time.monotonic() - died_at)

    def workers(self, backend: str) -> list[int]:
        """Process ids of the workers that were started there."""
        notes = sorted((self._folder / "out/.nightreel/workers" / backend).glob("*.json"))
        return [int(json.loads(note.read_text())["pid"]) for note in notes]

    def close(self) -> None:
        self._serve.send_signal(signal.SIGTERM)
        self._serve.wait()
        self.source.kill()
        self.source.wait()
        for pid in [*self.workers("local"), *self.workers("cloud")]:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)

    def _ended(self, backend: str) -> bool:
        return any(receipt.route.startswith(backend) for receipt in Receipts(self._store).list("b"))


def measure(ask_every_s: float, rounds: int) -> Table:
    """Both deaths, in turn."""
    falls: dict[str, list[Fall]] = {"its source": [], "its worker": []}
    for _ in range(rounds):
        falls["its source"].append(_fall(_kill_source, ask_every_s))
        falls["its worker"].append(_fall(_kill_worker, ask_every_s))
    rows = tuple(
        (what, spread([each.started_s for each in found], 1), spread([each.ended_s for each in found], 1))
        for what, found in falls.items()
    )
    note = (
        f"Seconds after kill -9 of the one or the other, {count(range(rounds))}: medians, least and greatest in brackets. The"
        f" source is asked every {ask_every_s:g} s, and one missed answer is enough (`retries = 0`); its worker is told to leave"
        " then. While the leases of a killed worker's jobs last, which is"
        " 15 s, the dispatcher takes them for a worker that is up."
    )
    return Table("When a backend dies", ("what dies", "next worker started, s", "its first film, s"), rows, (note,))


def _fall(kill: Callable[[House], None], ask_every_s: float) -> Fall:
    with tempfile.TemporaryDirectory() as folder, _house(Path(folder), ask_every_s) as house:
        return house.fall(kill)


@contextlib.contextmanager
def _house(folder: Path, ask_every_s: float) -> Iterator[House]:
    house = House(folder, ask_every_s)
    try:
        yield house
    finally:
        house.close()


def _kill_source(house: House) -> None:
    house.source.kill()


def _kill_worker(house: House) -> None:
    os.kill(house.workers("local")[-1], signal.SIGKILL)


def _job(number: int) -> Job:
    shot = {"prompt": f"picture {number}", "duration": 0.5, "motion": "still"}
    fields = {"id": f"j{number}", "batch": "b", "render": {"model": "painter"}, "shots": [shot]}
    return Job.model_validate_json(json.dumps(fields | {"output": {"width": 64, "height": 64, "fps": 8}}))


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


def _answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def _until(condition: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if time.monotonic() > deadline:
            raise SystemExit(f"waited in vain: {what}")
        time.sleep(LOOK_S)


def main() -> None:
    asked = arguments(__doc__).parse_args()
    rounds = asked.rounds or (1 if asked.quick else 3)
    publish("fallback", [measure(2.0 if asked.quick else 30.0, rounds)], asked)


if __name__ == "__main__":
    main()
