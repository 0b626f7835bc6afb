"""Backends that die, with real workers and a server that speaks ComfyUI's protocol: the next goes on, and each job ends once."""

from __future__ import annotations

import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from comfy_process import Comfy
from fake_runpod import KEY, FakeRunPod
from house import House, job, until, verdict
from places import Places

from nightreel_dispatcher.board import BackendState
from nightreel_dispatcher.breaker import Breaker
from nightreel_dispatcher.opening import open_fleet
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_queue.job import Job
from nightreel_worker.settings import Settings

MODELS = """
[painter]
source = "testcard"
megapixels = 0.004
[sketcher]
source = "comfyui"
megapixels = 0.004
stands_in_for = ["painter"]
"""

LOCAL = """
[local]
launcher = "process"
model = "sketcher"
retries = 0
pause_s = 12
env = {{NIGHTREEL_COMFYUI_SERVERS = "{server}"}}
"""

CLOUD = """
[cloud]
launcher = "process"
model = "painter"
price = "1.5"
"""

PODS = """
[pods]
launcher = "runpod"
model = "painter"
"""


@dataclass
class Office:
    """A dispatcher with two backends: the first one draws with ComfyUI, whose server can be killed."""

    house: House
    comfy: Comfy
    second: str
    """The other backend, as the file has it."""
    asked: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        folder = self.house.folder
        (folder / "models.toml").write_text(MODELS)
        (folder / "backends.toml").write_text(LOCAL.format(server=self.comfy.url) + self.second)
        settings = Settings(
            queue=self.house.places.queue_url,
            store=self.house.places.store_url,
            models=folder / "models.toml",
            model="painter",
        )
        policy = PolicySettings(max_wait_s=0, ask_every_s=1, backends=folder / "backends.toml")
        self.desk, self.waker, self.fleet = open_fleet(settings, DispatcherSettings(), policy, None)

    def enqueue(self, *names: str) -> None:
        self.asked += names
        self.house.enqueue(*(wanted(name) for name in names))

    def until(self, condition: Callable[[], object], what: str) -> None:
        """Look as `nightreel serve` would, until something has happened."""

        def look() -> object:
            self.waker.look("test")
            time.sleep(0.1)
            return condition()

        until(look, what)

    def all_ended(self) -> bool:
        return all(self.house.has_ended(name) for name in self.asked) and not any(
            each.is_up for each in self.fleet.executions()
        )

    def state(self, name: str) -> BackendState:
        return self.fleet.board().state(name)

    def routes(self) -> dict[str, str]:
        return {name: self.house.receipt(name).route for name in self.asked}

    def workers(self, backend: str) -> list[int]:
        """Pids of all that this machine started there, newest last."""
        notes = sorted((self.house.folder / "out/.nightreel/workers" / backend).glob("*.json"))
        return [int(json.loads(note.read_text())["pid"]) for note in notes]

    def close(self) -> None:
        self.comfy.kill()
        for backend in ("local", "cloud"):
            for pid in self.workers(backend):
                with suppress(ProcessLookupError):
                    os.killpg(pid, signal.SIGKILL)
        self.desk.close()


@pytest.fixture
def open_office(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Office]]:
    """Opens one; what it starts finds this test's settings in the environment."""
    with ExitStack() as stack:

        def open_one(second: str, places: Places | None = None) -> Office:
            house = House(tmp_path, places)
            stack.callback(house.close)
            for name in ("MODELS", "SCRATCH", "X264_PRESET", "RETRY_DELAY_S", "CANCEL_CHECK_S"):
                monkeypatch.setenv(f"NIGHTREEL_{name}", house.environment[f"NIGHTREEL_{name}"])
            office = Office(house, Comfy(tmp_path / "comfy"), second)
            stack.callback(office.close)
            return office

        yield open_one


def wanted(name: str) -> Job:
    return job(name, f"a picture of {name}", render={"model": "painter"})


def test_a_backend_whose_source_or_worker_is_killed_is_followed_by_the_next_and_gets_its_work_back(
    open_office: Callable[..., Office],
) -> None:
    office = open_office(CLOUD)
    office.comfy.start().control(step_s=0.25)
    office.enqueue("a", "b", "c", "d", "e", "f")
    office.until(lambda: office.house.has_ended("a"), "the first film")

    # When its server dies, its worker is told to leave, and the next backend goes on
    office.comfy.kill()
    office.until(office.all_ended, "the films of both")

    routes = office.routes()
    assert routes["a"] == "local (sketcher) for painter"
    assert routes["f"].startswith("cloud (painter) instead of local (sketcher): local did not answer since ")
    assert {route.partition(" ")[0] for route in routes.values()} == {"local", "cloud"}
    assert office.state("local").breaker.opened == 1
    assert office.state("cloud").breaker.failures == 0
    assert len(office.workers("local")) == len(office.workers("cloud")) == 1

    # When it answers again, one worker tries it, and closes its breaker
    office.comfy.start()
    office.until(lambda: office.state("local").health.ok, "a good answer")
    until(lambda: office.state("local").breaker.state(time.time()) == "half-open", "the end of its pause")
    office.enqueue("g")
    office.until(office.all_ended, "a film of the first again")
    assert office.routes()["g"] == "local (sketcher) for painter"
    assert office.state("local").breaker == Breaker()

    # When its worker is killed, what that had is made by the next backend
    office.enqueue("h", "i", "j", "k")
    office.until(lambda: office.house.has_ended("h"), "another film of the first")
    os.kill(office.workers("local")[-1], signal.SIGKILL)
    office.until(office.all_ended, "the last films")
    failed = "cloud (painter) instead of local (sketcher): it failed once: its worker failed: "
    assert office.routes()["k"].startswith(failed)
    assert (len(office.workers("local")), len(office.workers("cloud"))) == (3, 2)

    verdict(office.house, *office.asked)
    assert [attempt.end for attempt in office.house.attempts("a")] == ["done"]


def test_what_a_dead_backend_leaves_is_made_by_a_pod_that_then_takes_itself_away(
    open_office: Callable[..., Office], cloud: Callable[[], Places], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with FakeRunPod([sys.executable, "-m", "nightreel"], tmp_path) as runpod:
        for name, value in {"API_KEY": KEY, "ENDPOINT": runpod.url, "IMAGE": "worker"}.items():
            monkeypatch.setenv(f"NIGHTREEL_RUNPOD_{name}", value)
        office = open_office(PODS, cloud())
        office.comfy.start().control(step_s=0.25)
        office.enqueue("a", "b", "c", "d", "e", "f")
        office.until(lambda: office.house.has_ended("a"), "the first film")

        office.comfy.kill()
        office.until(office.all_ended, "the films of both")
        until(lambda: not runpod.pods, "the end of the pod")

    routes = office.routes()
    assert routes["a"] == "local (sketcher) for painter"
    assert routes["f"].startswith("pods (painter) instead of local (sketcher): local did not answer since ")
    assert len(runpod.starts) == 1
    report = office.house.receipt("f")
    assert report.cost is not None
    assert report.cost.usd > 0
    verdict(office.house, *office.asked)
