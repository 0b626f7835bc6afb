"""A house for fault tests: a store, a queue and a model that does harm, in one temporary folder; real processes."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from faulty_source import FAULT_IS_OVER
from places import Places
from proc import processes, works_in

from nightreel_queue.base import Message
from nightreel_queue.connect import open_queue
from nightreel_queue.job import Job
from nightreel_queue.pubsub_queue import PubSubQueue
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.attempts import Attempt, Attempts
from nightreel_storage.batches import Asked, Batches
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import Receipt, Receipts, utc_now
from nightreel_worker.estimate import Taken
from nightreel_worker.report import RunReport, run_name

PATIENCE_S = 180.0  # that a test waits for something that is there within a second or two, unless the machine is busy
CALM_LEASE_S = 300.0  # longer than any test
COMES_BACK_S = 150.0  # that a message may take: its lease ends after four, but an emulator is late on a busy machine
WORK = (sys.executable, "-m", "nightreel", "work")
HERE = Path(__file__).parent
_DELIVERIES: dict[type[object], str] = {
    SqliteQueue: "nightreel_queue.sqlite:SqliteDelivery",
    PubSubQueue: "nightreel_queue.pubsub_queue:PubSubDelivery",
}


class House:
    """Everything that a worker needs, and what it leaves behind."""

    batch = "b"

    def __init__(self, folder: Path, places: Places | None = None, **options: str) -> None:
        self.folder = folder
        self.scratch = folder / "scratch"
        self.places = places or Places.on_one_machine(folder)
        self._started: list[subprocess.Popen[str]] = []
        lines = "".join(f'{name} = "{value}"\n' for name, value in ({"folder": str(folder)} | options).items())
        (folder / "models.toml").write_text(
            f'[faulty]\nsource = "faulty_source:FaultySource"\nmegapixels = 0.004\n[faulty.options]\n{lines}'
        )
        self.store = open_store(self.places.store_url)
        self.queue = open_queue(self.places.queue_url)
        self.environment = (
            os.environ
            | self.places.environment
            | {
                "NIGHTREEL_QUEUE": self.places.queue_url,
                "NIGHTREEL_STORE": self.places.store_url,
                "NIGHTREEL_MODELS": str(folder / "models.toml"),
                "NIGHTREEL_MODEL": "faulty",
                "NIGHTREEL_SCRATCH": str(self.scratch),
                "NIGHTREEL_X264_PRESET": "ultrafast",
                "NIGHTREEL_RETRY_DELAY_S": "0.1",
                "NIGHTREEL_CANCEL_CHECK_S": "0.2",
                "PYTHONPATH": os.pathsep.join([str(HERE), *filter(None, [os.environ.get("PYTHONPATH")])]),
            }
        )

    # work to do

    def enqueue(self, *jobs: Job, round_: int = 1) -> None:
        """Record and publish jobs as `nightreel enqueue` does."""
        asked = tuple(
            Asked(id=str(job.id), fingerprint=job.fingerprint, duration_s=job.duration_s, message=job.to_json())
            for job in jobs
        )
        Batches(self.store).record(self.batch, "test", utc_now(), asked)
        self.queue.publish([Message.of(job, round_) for job in jobs])

    def half_a_second_was_measured(self) -> None:
        """Let the store know a run whose keyframes took half a second each."""
        now = utc_now()
        row = Taken(
            model="faulty", source="faulty/1", revision="", precision="", device="cpu", keyframe_size="64x64",
            film_size="64x64", motions=("move",), jobs=10, keyframes=10, evaluations=10, keyframes_s=5.0, frames=40,
            film_s=1.0, verify_s=0.5,
        )  # fmt: skip
        stages_s = {"start": 1.5, "import": 1.5, "render": 5.0, "film": 1.0, "upload": 0.5}
        report = RunReport(run="20260101T000000-0", started_at=now, ended_at=now, why="the queue is empty",
                           unavailable=False, done=10, seconds=9.5, stages_s=stages_s, taken=(row,))  # fmt: skip
        self.store.put(run_name(report.run), report.to_bytes())

    def start(self, *command: str, **settings: str) -> subprocess.Popen[str]:
        """Start `nightreel work`, or another command, as a process of its own."""
        environment = self.environment | {f"NIGHTREEL_{name.upper()}": value for name, value in settings.items()}
        process = subprocess.Popen(
            command or WORK,
            env=environment,
            cwd=self.folder,
            text=True,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        self._started.append(process)
        return process

    def close(self) -> None:
        """Leave no process behind, whatever a failing test did."""
        for process in self._started:
            if process.poll() is None:
                kill(process)
        for pid in self.processes():
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.queue.close()

    def work_all(self, **settings: str) -> Run:
        """Let one worker run until everything has ended, also what killed workers held."""
        return self.work(*WORK, *self.places.stays, **(self.places.patient | settings))

    def work(self, *command: str, **settings: str) -> Run:
        """Let one worker run to its end."""
        return finish(self.start(*command, **settings))

    # faults

    def struck(self, place: str, fault: str, *, after: bool = False, call: int = 1) -> tuple[str, ...]:
        """The command of a worker to which `fault` happens at a step: see struck_worker.

        `Delivery` and `Store` stand for the classes of this house's own queue and store.
        """
        own = {"Delivery.": f"{self.delivery}.", "Store.": f"{_path(type(self.store))}."}
        for name, path in own.items():
            place = path + place.removeprefix(name) if place.startswith(name) else place
        return sys.executable, "-m", "struck_worker", place, "after" if after else "before", str(call), fault

    @property
    def delivery(self) -> str:
        """The class of this house's deliveries."""
        return _DELIVERIES[type(self.queue)]

    @property
    def was_struck(self) -> bool:
        """Was a struck worker's step reached?"""
        return (self.folder / "struck").exists()

    def end_the_fault(self) -> None:
        """Let go on what waits for that."""
        (self.folder / FAULT_IS_OVER).touch()

    def message_back(self) -> None:
        """Wait until what a killed worker held has come back by itself."""
        delivery = self.queue.pull(COMES_BACK_S)
        assert delivery is not None, "the message did not come back"
        delivery.release()

    def work_calmly(self, **settings: str) -> Run:
        """Let a worker run to its end that loses no lease, however busy the machine is."""
        return self.work(**(self.calm | settings))

    @property
    def calm(self) -> dict[str, str]:
        """Settings of such a worker."""
        return {"queue": self.places.with_lease(CALM_LEASE_S).queue_url, "idle_timeout_s": "1"}

    def work_off(self, *jobs: str) -> None:
        """Let workers come until these jobs have ended and nothing waits: a killed worker may have held some."""
        while not (all(map(self.has_ended, jobs)) and self.places.is_empty(self.queue)):
            self.message_back()
            assert self.work_calmly().code == 0

    # what it left

    def receipt(self, job: str) -> Receipt:
        held = Receipts(self.store).read(self.batch, job)
        assert held is not None, f"{job} has no receipt"
        return held.receipt

    def has_ended(self, job: str) -> bool:
        held = Receipts(self.store).read(self.batch, job)
        return held is not None and held.receipt.ended

    def attempts(self, job: str, round_: int = 1) -> tuple[Attempt, ...]:
        return Attempts(self.store).history(self.batch, job, round_)

    def rendered(self) -> list[str]:
        """Prompts of the keyframes that were rendered, in order, by all workers."""
        log = self.folder / "rendered.log"
        return log.read_text().splitlines() if log.exists() else []

    def processes(self, name: str = "") -> list[int]:
        """Live processes of this house: workers, renderers, ffmpegs; `name` is part of the command line."""
        return [pid for pid, line in processes() if name in line and works_in(pid) == self.folder]

    def dead_letters(self) -> list[str]:
        """Reasons of the dead letters since the last call."""
        return self.places.dead_letters(self.queue)

    def leftovers(self) -> list[Path]:
        return [path for path in self.scratch.glob("*") if path.is_dir()] if self.scratch.exists() else []


def verdict(
    house: House,
    *names: str,
    failed: Sequence[str] = (),
    again: Mapping[str, int] | None = None,
    strange: Collection[str] = (),
    rejected: Collection[str] = (),
) -> None:
    """What must hold after every fault, when all workers have left: asserts all of it.

    `names` are all jobs that were asked for; those in `failed` had to fail. `again` counts, by prompt, keyframes that
    may have been rendered once more: those that were lost before they were stored. `strange` are objects that were
    there before, `rejected` the reasons of messages that were no jobs.
    """
    for name in names:
        receipt = house.receipt(name)
        assert receipt.state == ("failed" if name in failed else "done"), (name, receipt.reason)
        for output in receipt.outputs:
            content, entry = house.store.get(output.name)
            assert hashlib.sha256(content).hexdigest() == output.sha256 == entry.sha256, output.name
    # nothing but what receipts speak of
    objects = {entry.name for entry in house.store.list(f"{house.batch}/")}
    told = {output.name for name in names for output in house.receipt(name).outputs}
    assert objects == told | {f"{house.batch}/{name}.json" for name in names} | set(strange)
    # what failed lies among the dead letters, with its reason
    letters = house.dead_letters()
    assert set(letters) == {house.receipt(name).reason for name in failed} | set(rejected), letters
    # no finished keyframe was paid for again
    paid_again = Counter(house.rendered()) - Counter(set(house.rendered()))
    assert not paid_again - Counter(again or {}), paid_again
    # nothing is left behind
    assert house.places.is_empty(house.queue)
    assert house.processes() == []
    assert house.leftovers() == []


def at_once(scenes: Mapping[str, Callable[[], None]]) -> None:
    """Play scenes at the same time, each in a house of its own: they wait most of the time. Raises all that failed."""
    with ThreadPoolExecutor(len(scenes)) as pool:
        played = {name: pool.submit(scene) for name, scene in scenes.items()}
    errors = []
    for name, each in played.items():
        if error := each.exception():
            error.add_note(f"scene: {name}")
            errors.append(error)
    if errors:
        raise BaseExceptionGroup("scenes that went wrong", errors)


class Run:
    """How a process ended, and what it said."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.err.splitlines() if line.startswith("{")]

    def events(self, message: str) -> list[dict[str, Any]]:
        return [line for line in self.log if line["message"] == message]

    @property
    def report(self) -> dict[str, Any]:
        return self.events("run_ended")[-1]


def finish(process: subprocess.Popen[str]) -> Run:
    """Wait for a process to end."""
    try:
        out, err = process.communicate(timeout=PATIENCE_S)
    except subprocess.TimeoutExpired:
        process.kill()
        out, err = process.communicate()
        raise AssertionError(f"still running after {PATIENCE_S} s:\n{out}\n{err}") from None
    return Run(process.returncode, out, err)


def kill(process: subprocess.Popen[str]) -> None:
    """kill -9, and nothing else."""
    process.send_signal(signal.SIGKILL)
    process.communicate()


def until(condition: Callable[[], object], what: str, of: subprocess.Popen[str] | None = None) -> None:
    """Wait for something that should come soon, from a process that should live that long."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        if of is not None and of.poll() is not None:
            raise AssertionError(f"waited for {what}, but the process ended: {of.communicate()}")
        assert time.monotonic() < deadline, f"waited in vain: {what}"
        time.sleep(0.02)


def job(id_: str, *prompts: str, **fields: Any) -> Job:
    """A tiny job: 64x64, 8 frames a second, half a second a shot."""
    return Job.model_validate_json(
        json.dumps(
            {
                "id": id_,
                "batch": House.batch,
                "render": {"model": "faulty"},
                "output": {"width": 64, "height": 64, "fps": 8},
                "transition": {"type": "cut"},
                "shots": [{"prompt": prompt, "duration": 0.5, "motion": "still"} for prompt in prompts],
            }
            | fields
        )
    )


def _path(kind: type[object]) -> str:
    return f"{kind.__module__}:{kind.__qualname__}"
