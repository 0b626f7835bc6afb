"""Launchers: what all of them promise, and what only one of them has trouble with."""

from __future__ import annotations

import contextlib
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import grpc  # type: ignore[import-untyped]  # has no types
import pytest
from fake_run import FakeRun, Fault, running
from launcher_contract import LauncherContract, ended, listed
from pydantic import ValidationError

from nightreel_dispatcher.launchers.base import LauncherError, LauncherUnavailable, NotAllowed, QuotaExceeded
from nightreel_dispatcher.launchers.cloudrun import CloudRun
from nightreel_dispatcher.launchers.connect import launcher_kind, open_launcher
from nightreel_dispatcher.launchers.process import KEPT_LOGS, Processes
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_worker.settings import Settings

GIVEN = {"NIGHTREEL_MAX_WAIT_S": "900"}
STAND_IN = """
import os, sys, time
folder = sys.argv[1]
own = {name: value for name, value in os.environ.items() if name.startswith("NIGHTREEL_")}
with open(f"{folder}/{os.getpid()}.env.new", "w") as file:
    file.write(repr(own))
os.rename(file.name, file.name.removesuffix(".new"))
while not os.path.exists(f"{folder}/{os.getpid()}.end"):
    time.sleep(0.01)
code = open(f"{folder}/{os.getpid()}.end").read()
if code != "0":
    print("nightreel: no weights", flush=True)
sys.exit(int(code))
"""


@dataclass(slots=True)
class OfProcesses:
    """A folder, with stand-ins for workers that do as a file tells them."""

    folder: Path
    _grounds: list[Processes] = field(default_factory=list)

    def again(self, *command: str) -> Processes:
        stand_in = command or (sys.executable, "-ISc", STAND_IN, str(self.folder))
        self._grounds.append(Processes(self.folder / "logs", {"PATH": os.environ["PATH"], **GIVEN}, stand_in))
        return self._grounds[-1]

    @property
    def launcher(self) -> Processes:
        return self._grounds[0] if self._grounds else self.again()

    def nothing_can_be_started(self) -> None:
        self.again(str(self.folder / "not-there"))

    def pid(self, id: str) -> int:
        note = (self.folder / "logs" / f"{id}.json").read_text()
        return int(note.rpartition(":")[2].strip("}"))

    def end(self, id: str) -> None:
        self._tell(id, "0")

    def fail(self, id: str) -> None:
        self._tell(id, "3")

    def _tell(self, id: str, code: str) -> None:
        path = self.folder / f"{self.pid(id)}.end.new"
        path.write_text(code)
        path.rename(path.with_suffix(""))

    def environment(self, id: str) -> Mapping[str, str]:
        path = self.folder / f"{self.pid(id)}.env"
        until_there(path)
        found = eval(path.read_text())  # the stand-in above wrote it
        assert isinstance(found, dict)
        return found

    def close(self) -> None:
        for ground in self._grounds:
            for each in ground.executions():
                if each.is_up:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(self.pid(each.id), signal.SIGKILL)
            for child in ground._children:
                child.wait()


@dataclass(slots=True)
class OfCloudRun:
    """A server of Cloud Run's."""

    server: FakeRun
    launcher: CloudRun

    def again(self) -> CloudRun:
        return opened(self.server)

    def nothing_can_be_started(self) -> None:
        self.server.faults["RunJob"] = Fault(grpc.StatusCode.PERMISSION_DENIED)

    def end(self, id: str) -> None:
        self.server.end(id)

    def fail(self, id: str) -> None:
        self.server.end(id, failed="The container exited with an error: no weights")

    def environment(self, id: str) -> Mapping[str, str]:
        [container] = self.server.executions[id].template.containers
        return {each.name: each.value for each in container.env}


def opened(server: FakeRun, job: str = "worker") -> CloudRun:
    return CloudRun("demo", "us-central1", job, GIVEN, server.channel)


@pytest.fixture
def run() -> Iterator[FakeRun]:
    with running(FakeRun()) as server:
        yield server


@pytest.fixture
def of_processes(tmp_path: Path) -> Iterator[OfProcesses]:
    ground = OfProcesses(tmp_path)
    yield ground
    ground.close()


class TestProcesses(LauncherContract):
    @pytest.fixture
    def ground(self, of_processes: OfProcesses) -> OfProcesses:
        return of_processes

    def test_a_refusal_is_certain(self, ground: OfProcesses) -> None:  # type: ignore[override]  # needs its own
        """The command is part of the launcher here."""
        with pytest.raises(LauncherError, match="No such file"):
            ground.again("/not/there").start(2, "wake-1", "night")
        assert list(ground.again().executions()) == []


class TestCloudRun(LauncherContract):
    @pytest.fixture
    def ground(self, run: FakeRun) -> OfCloudRun:
        return OfCloudRun(run, opened(run))


# Processes


def until_there(path: Path) -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.01)


def test_a_worker_outlives_a_dispatcher_that_is_killed_and_is_found_again(of_processes: OfProcesses) -> None:
    # Given a dispatcher that is killed as soon as it has started a worker
    program = (
        "import os, signal, sys\nfrom pathlib import Path\n"
        "from nightreel_dispatcher.launchers.process import Processes\n"
        "launcher = Processes(Path(sys.argv[1]) / 'logs', dict(os.environ),"
        " (sys.executable, '-ISc', sys.argv[2], sys.argv[1]))\n"
        "print(*launcher.start(1, 'wake-1', 'night'), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    command = [sys.executable, "-c", program, str(of_processes.folder), STAND_IN]
    result = subprocess.run(command, capture_output=True, text=True, check=False, start_new_session=True)
    assert result.returncode == -signal.SIGKILL, result.stderr
    id_ = result.stdout.strip()

    # Then it is in a session of its own, which no terminal's Control-C reaches
    assert os.getsid(of_processes.pid(id_)) == of_processes.pid(id_)

    # And the next one finds it, sees it end, and does not know its exit code
    later = of_processes.launcher
    assert listed(later, id_).is_up
    of_processes.fail(id_)
    gone = ended(later, id_)
    assert (gone.state, gone.wake) == ("ended", "wake-1")
    assert "no weights" in gone.words


def test_a_worker_whose_starter_was_killed_before_it_wrote_the_pid_counts_as_up(of_processes: OfProcesses) -> None:
    launcher = of_processes.launcher
    [id_] = launcher.start(1, "wake-1", "night")
    pid = of_processes.pid(id_)
    note = of_processes.folder / "logs" / f"{id_}.json"
    note.write_text(note.read_text().replace(str(pid), "0"))

    assert listed(of_processes.again(), id_).is_up
    with pytest.raises(NotAllowed, match="fuser"):
        launcher.cancel(id_)
    os.kill(pid, signal.SIGKILL)
    ended(launcher, id_)


def test_a_pid_that_somebody_else_has_by_now_is_no_worker(of_processes: OfProcesses) -> None:
    # Given a worker that ended, and a stranger with its pid
    launcher = of_processes.launcher
    [id_] = launcher.start(1, "wake-1", "night")
    pid = of_processes.pid(id_)
    of_processes.end(id_)
    ended(launcher, id_)
    note = of_processes.folder / "logs" / f"{id_}.json"
    note.write_text(note.read_text().replace(str(pid), str(os.getpid())))

    # Then it is not up, and cancelling it hurts nobody
    assert not listed(launcher, id_).is_up
    launcher.cancel(id_)


def test_old_logs_are_cleared_away(of_processes: OfProcesses) -> None:
    launcher, logs = of_processes.launcher, of_processes.folder / "logs"
    logs.mkdir()
    for number in range(KEPT_LOGS + 3):
        (logs / f"old-{number:02d}.log").write_text('{"message": "run_ended", "why": "the queue is empty"}\n')
        (logs / f"old-{number:02d}.json").write_text(f'{{"wake": "w", "started_at": {number}.0, "pid": 1}}')

    found = launcher.executions()

    assert {path.stem for path in logs.iterdir()} == {f"old-{number:02d}" for number in range(3, KEPT_LOGS + 3)}
    assert found[-1].words.startswith("the queue is empty (log: ")


# Cloud Run


def codes(*names: str) -> Sequence[grpc.StatusCode]:
    return [getattr(grpc.StatusCode, name) for name in names]


@pytest.mark.parametrize("code", codes("UNAVAILABLE", "DEADLINE_EXCEEDED", "INTERNAL", "UNKNOWN"), ids=str)
def test_an_answer_that_was_lost_is_not_asked_for_again(run: FakeRun, code: grpc.StatusCode) -> None:
    """The execution is there: a second call would start a second worker."""
    run.faults["RunJob"] = Fault(code, after=True)

    with pytest.raises(LauncherUnavailable, match="did not answer"):
        opened(run).start(2, "wake-1", "night")

    assert run.calls["RunJob"] == 1
    [found] = opened(run).executions()
    assert found.wake == "wake-1"


@pytest.mark.parametrize("call", ["RunJob", "ListExecutions"])
def test_a_missing_right_is_told_with_the_role_to_grant(run: FakeRun, call: str) -> None:
    run.faults[call] = Fault(grpc.StatusCode.PERMISSION_DENIED, "Permission 'run.jobs.runWithOverrides' denied")
    role = {"RunJob": "roles/run.jobsExecutorWithOverrides", "ListExecutions": "roles/run.viewer"}[call]

    with pytest.raises(NotAllowed, match=f"grant {role} on the job"):
        opened(run).start(1, "wake-1", "night") if call == "RunJob" else opened(run).executions()


def test_a_quota_that_is_used_up_says_how_long_to_wait(run: FakeRun) -> None:
    run.faults["RunJob"] = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, "NvidiaL4GpuAllocNoZonalRedundancy exceeded")

    with pytest.raises(QuotaExceeded, match="no quota left to start it: NvidiaL4") as caught:
        opened(run).start(1, "wake-1", "night")
    assert caught.value.retry_s >= 60


def test_what_a_quota_leaves_is_started(run: FakeRun) -> None:
    run.faults["RunJob"] = Fault(grpc.StatusCode.RESOURCE_EXHAUSTED, spared=2)

    assert len(opened(run).start(3, "wake-1", "launch day")) == len(run.up) == 2


def test_a_job_that_is_not_there_is_named_with_its_settings(run: FakeRun) -> None:
    with pytest.raises(
        NotAllowed, match=r"no job projects/demo/\S+/jobs/other: deploy it, or set NIGHTREEL_DISPATCHER"
    ):
        opened(run, job="other").start(1, "wake-1", "night")


def test_a_server_that_is_not_there_is_told(run: FakeRun) -> None:
    nowhere = CloudRun("demo", "us-central1", "worker", GIVEN, grpc.insecure_channel("127.0.0.1:9"))

    with pytest.raises(LauncherUnavailable, match="did not answer when asked to see its executions"):
        nowhere.executions()


def test_an_execution_of_somebody_else_is_a_worker_too(run: FakeRun) -> None:
    """`gcloud run jobs execute` gives it no wake."""
    [id_] = opened(run).start(1, "x", "by hand")
    run.executions[id_].template.containers[0].env = []

    found = listed(opened(run), id_)
    assert (found.is_up, found.wake) == (True, "")


# Which one


@pytest.mark.parametrize(
    ("queue", "launcher", "kind"),
    [
        ("", "auto", "process"),
        ("sqlite:///jobs.db", "auto", "process"),
        ("pubsub://demo/films", "auto", "none"),
        ("pubsub://demo/films", "process", "process"),
        ("", "none", "none"),
        ("pubsub://demo/films", "cloudrun", "cloudrun"),
    ],
)
def test_workers_of_a_queue_on_this_machine_are_started_on_it(queue: str, launcher: str, kind: str) -> None:
    policy = PolicySettings.model_validate({"launcher": launcher})

    assert launcher_kind(Settings(queue=queue), policy) == kind


def test_settings_that_do_not_suffice_are_named() -> None:
    queue = Settings(queue="pubsub://demo/films", store="gs://films/x")

    with pytest.raises(NotAllowed, match="needs NIGHTREEL_DISPATCHER_REGION and NIGHTREEL_DISPATCHER_JOB"):
        open_launcher(queue, PolicySettings(launcher="cloudrun"))
    with pytest.raises(NotAllowed, match="set NIGHTREEL_DISPATCHER_LAUNCHER"):
        open_launcher(queue, PolicySettings(nightly="02:00"))
    assert open_launcher(queue, PolicySettings()) is None
    found = open_launcher(queue, PolicySettings(launcher="cloudrun", region="us-central1", job="worker"))
    assert isinstance(found, CloudRun)
    assert found.job == "projects/demo/locations/us-central1/jobs/worker"


def test_workers_get_none_of_the_dispatchers_settings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NIGHTREEL_DISPATCHER_TOKEN", "a secret of sixteen")
    settings = Settings(store=str(tmp_path / "out"), model="testcard")

    found = open_launcher(settings, PolicySettings(max_wait_s=60))

    assert isinstance(found, Processes)
    given = {name: value for name, value in found._environment.items() if name.startswith("NIGHTREEL_")}
    assert given["NIGHTREEL_STORE"] == str(tmp_path / "out")
    assert (given["NIGHTREEL_MODEL"], given["NIGHTREEL_MAX_WAIT_S"]) == ("testcard", "60")
    assert "NIGHTREEL_DISPATCHER_TOKEN" not in given


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"max_wait_s": "inf"}, "would wait for ever: set a nightly hour"),
        ({"zone": "Europe/Atlantis"}, "must be a time zone, such as Europe/Berlin"),
        ({"zone": "Europe"}, "must be a time zone"),
        ({"nightly": "2 o'clock"}, "write HH:MM, such as 02:00"),
        ({"launcher": "kubernetes"}, "'process', 'cloudrun' or 'runpod'"),
    ],
)
def test_a_policy_that_makes_no_sense_is_refused(settings: dict[str, str], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        PolicySettings.model_validate(settings)


def test_whoever_waits_for_the_night_may_wait_for_ever() -> None:
    policy = PolicySettings(max_wait_s=math.inf, nightly="02:00").policy(75.0)

    assert (policy.max_wait_s, policy.collect_s, policy.start_s) == (math.inf, math.inf, 75.0)
