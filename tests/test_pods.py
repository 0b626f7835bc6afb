"""Pods: who is at work and who is silent, `nightreel pods`, and what runs inside a pod. Real HTTP, real processes."""

from __future__ import annotations

import datetime as dt
import json
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from fake_gcs import FakeGcs
from fake_runpod import KEY, RTX_3090, Card, FakeRunPod, Fault, until
from typer.testing import CliRunner, Result

from nightreel.main import app
from nightreel_dispatcher.launchers.runpod_api import RunPodApi
from nightreel_dispatcher.launchers.runpod_order import GOOGLE_KEY, prefix
from nightreel_dispatcher.own_pod import NoPod, OwnPod
from nightreel_dispatcher.pod_start import Outcome, PodStart
from nightreel_dispatcher.pods import find_silent, look, sweep
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreUnavailable
from nightreel_storage.gcs_setup import setup_bucket
from nightreel_worker.history import History
from nightreel_worker.report import RunReport, run_name

NOW = dt.datetime(2026, 11, 22, 3, tzinfo=dt.UTC)


@pytest.fixture
def runpod() -> Iterator[FakeRunPod]:
    with FakeRunPod() as server:
        yield server


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "out"))


@pytest.fixture
def ours(tmp_path: Path) -> str:
    """How the names of this test's own pods begin."""
    return prefix(str(tmp_path / "out"))


def ago(minutes: float, now: dt.datetime = NOW) -> str:
    return (now - dt.timedelta(minutes=minutes)).isoformat()


def put_run(
    store: Store, machine: str, began_min: float, heard_min: float, now: dt.datetime = NOW, **fields: Any
) -> None:
    began, heard = (now - dt.timedelta(minutes=each) for each in (began_min, heard_min))
    known = {"state": "running", "why": "", "unavailable": False} | fields
    run = f"{began:%Y%m%dT%H%M%S}-{machine}"
    report = RunReport(run=run, machine=machine, started_at=began, ended_at=heard, **known)
    store.put(run_name(run), report.to_bytes())


# Who is silent


@pytest.mark.parametrize(
    ("age_min", "run", "silent"),
    [
        (14, None, ""),
        (16, None, "no sign of a worker in 960 s"),
        (300, {"began_min": 299, "heard_min": 9}, ""),
        (300, {"began_min": 299, "heard_min": 11}, "last sign of its worker 660 s ago"),
        (300, {"began_min": 299, "heard_min": 9, "state": "ended"}, ""),
        (300, {"began_min": 299, "heard_min": 11, "state": "ended"}, "worker gone 660 s ago"),
        (16, {"began_min": 200, "heard_min": 100}, "no sign of a worker in 960 s"),
    ],
)
def test_a_pod_is_silent_when_its_worker_has_given_no_sign_for_long(
    runpod: FakeRunPod, store: Store, ours: str, age_min: float, run: dict[str, Any] | None, silent: str
) -> None:
    id = runpod.put(f"{ours}pod-w-1", createdAt=ago(400), startedAt=ago(age_min))
    if run:
        put_run(store, id, **run)

    found = find_silent(look(RunPodApi(KEY, runpod.url), store, ours), NOW, 900, 600)

    assert [each.why for each in found] == ([silent] if silent else [])


def test_of_several_runs_on_a_pod_the_last_one_counts(runpod: FakeRunPod, store: Store, ours: str) -> None:
    """Given a worker that was killed, and the one that was started after it, then the pod is not silent."""
    id = runpod.put(f"{ours}pod-w-1", createdAt=ago(90), startedAt=ago(90))
    put_run(store, id, 85, 60)
    put_run(store, id, 59, 0)

    seen = look(RunPodApi(KEY, runpod.url), store, ours)

    assert find_silent(seen, NOW, 900, 600) == []


@pytest.mark.parametrize(
    ("status", "silent"), [("PROVISIONING", 1), ("STARTING", 1), ("ERROR", 1), ("NEW", 1), ("EXITED", 0)]
)
def test_whatever_may_cost_is_swept_and_nothing_else(
    runpod: FakeRunPod, store: Store, ours: str, status: str, silent: int
) -> None:
    runpod.put(f"{ours}pod-w-1", status=status, createdAt=ago(60), startedAt=None)

    assert len(find_silent(look(RunPodApi(KEY, runpod.url), store, ours), NOW, 900, 600)) == silent


def test_reports_that_cannot_be_read_are_no_silence(runpod: FakeRunPod, ours: str, tmp_path: Path) -> None:
    """Given a store that cannot be listed, nobody is called silent."""

    class Away:
        def list(self, prefix: str) -> Iterator[Any]:
            raise StoreUnavailable("away")

    runpod.put(f"{ours}pod-w-1", createdAt=ago(60))

    with pytest.raises(StoreUnavailable):
        look(RunPodApi(KEY, runpod.url), Away(), ours)  # type: ignore[arg-type]  # a part of a store is enough


def test_of_two_sweeps_at_once_each_finds_the_pod_stopped(runpod: FakeRunPod, store: Store, ours: str) -> None:
    for number in range(3):
        runpod.put(f"{ours}pod-w-{number}", createdAt=ago(60), startedAt=ago(60))
    api = RunPodApi(KEY, runpod.url)
    silent = find_silent(look(api, store, ours), NOW, 900, 600)

    swept: list[str] = []
    threads = [
        threading.Thread(target=lambda: swept.extend(each.problem for each in sweep(api, silent))) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert swept == [""] * 6
    assert {pod["status"] for pod in runpod.pods.values()} == {"EXITED"}


# Starting


class Patience:
    """Looks at a starting pod, minute by minute."""

    def __init__(self, runpod: FakeRunPod, store: Store) -> None:
        self.said: list[str] = []
        self.id = runpod.put("pod", status="PROVISIONING", createdAt=ago(0), startedAt=None)
        api = RunPodApi(KEY, runpod.url)
        self._start = PodStart(api, store, self.id, 900, NOW, self.said.append)

    def look(self, minute: float) -> Outcome | None:
        return self._start.look(NOW + dt.timedelta(minutes=minute))


def test_a_pod_is_ready_with_the_first_sign_of_its_worker(runpod: FakeRunPod, store: Store) -> None:
    patience = Patience(runpod, store)

    assert patience.look(1) is None
    runpod.pods[patience.id] |= {"status": "RUNNING", "startedAt": ago(-2)}
    assert patience.look(3) is None
    assert patience.look(4) is None
    put_run(store, patience.id, -3, -4.5)
    outcome = patience.look(5)

    assert outcome is not None
    assert outcome.ready
    assert (outcome.paid_s, round(outcome.usd, 4)) == (180.0, 0.023)
    assert patience.said == [f"{patience.id}: provisioning", f"{patience.id}: up, waiting for its worker"]


def test_a_pod_that_never_gets_ready_is_stopped_and_what_it_cost_is_told(runpod: FakeRunPod, store: Store) -> None:
    patience = Patience(runpod, store)
    runpod.pods[patience.id] |= {"status": "RUNNING", "startedAt": ago(0)}

    assert patience.look(14) is None
    outcome = patience.look(15)

    assert outcome is not None
    assert (outcome.ready, outcome.words) == (False, "no sign of its worker in 900 s: stopped")
    assert (outcome.paid_s, round(outcome.usd, 3)) == (900.0, 0.115)
    assert runpod.pods[patience.id]["status"] == "EXITED"


def test_a_pod_with_an_error_is_given_up_at_once(runpod: FakeRunPod, store: Store) -> None:
    patience = Patience(runpod, store)
    runpod.pods[patience.id]["status"] = "ERROR"

    outcome = patience.look(1)

    assert outcome is not None
    assert (outcome.ready, outcome.words) == (False, "error: stopped")
    assert runpod.pods == {}  # RunPod stops none that is in error


def test_a_worker_that_has_done_everything_and_deleted_its_pod_was_ready(runpod: FakeRunPod, store: Store) -> None:
    patience = Patience(runpod, store)
    put_run(store, patience.id, -1, -2, state="ended", why="the queue is empty")
    del runpod.pods[patience.id]

    outcome = patience.look(3)

    assert outcome is not None
    assert outcome.ready
    assert outcome.words.endswith("has ended: the queue is empty")


def test_an_api_that_is_away_for_a_while_is_waited_for_and_then_told(runpod: FakeRunPod, store: Store) -> None:
    patience = Patience(runpod, store)
    assert patience.look(1) is None
    runpod.faults += [Fault("GET", 503, "away"), Fault("GET", 503, "away"), Fault("POST", 503, "away")]

    assert patience.look(2) is None
    outcome = patience.look(16)

    assert outcome is not None
    assert "NOT STOPPED, it goes on costing" in outcome.words
    assert f"nightreel pods stop {patience.id}" in outcome.words


# The verbs


@pytest.fixture
def nightreel(runpod: FakeRunPod, tmp_path: Path) -> Callable[..., Result]:
    def run(*arguments: str, **settings: str) -> Result:
        known = {"STORE": str(tmp_path / "out"), "RUNPOD_API_KEY": KEY, "RUNPOD_ENDPOINT": runpod.url}
        environment = {f"NIGHTREEL_{name}": value for name, value in (known | settings).items()}
        return CliRunner().invoke(app, ["pods", *arguments], env=environment)

    return run


def test_list_tells_what_each_pod_does_and_costs(
    nightreel: Callable[..., Result], runpod: FakeRunPod, store: Store, ours: str
) -> None:
    now = dt.datetime.now(dt.UTC)
    at_work = runpod.put(
        f"{ours}pod-w-1", createdAt=ago(61, now), startedAt=ago(60, now), runtime={"uptime": 5, "gpus": [{"util": 97}]}
    )
    taken = runpod.put(f"{ours}spot-w-1", createdAt=ago(30, now), status="EXITED", cost=0.0)
    put_run(store, at_work, 59, 0, now, done=7, failed=1, usd=0.4)
    put_run(store, taken, 29, 20, now, done=2)

    rows = json.loads(nightreel("list", "--json").stdout)["pods"]
    table = nightreel("list").stdout

    assert [row["pod"] for row in rows] == [at_work, taken]
    assert rows[0].items() >= {
        "gpu": RTX_3090, "spot": False, "status": "RUNNING", "words": "working", "usd_per_hour": 0.46, "usd": 0.46,
        "gpu_percent": 97, "done": 7, "failed": 1, "run_usd": 0.4,
    }.items()  # fmt: skip
    assert rows[1].items() >= {"spot": True, "words": "stopped: taken away, or by hand", "usd": None, "done": 2}.items()
    assert "taken away, or by hand" in table
    assert re.search(r"0\.46 +0\.460\d +97 +7 +1 +working", table), table


def test_sweep_says_what_it_would_do_and_then_does_it(
    nightreel: Callable[..., Result], runpod: FakeRunPod, store: Store, ours: str
) -> None:
    silent = runpod.put(f"{ours}pod-w-1", createdAt=ago(0), startedAt=ago(0))
    others = runpod.put("nightreel-abcdef-pod-w-1", createdAt=ago(0))
    store.put("a", b"")  # so that there is a store

    dry = nightreel("sweep")
    first = runpod.pods[silent]["status"]
    real = nightreel("sweep", "--stop")

    assert (dry.exit_code, first) == (0, "RUNNING")
    assert dry.stdout.startswith(f"{silent}: no sign of a worker in ")
    assert dry.stdout.endswith("Nothing was stopped: add --stop to stop these.\n")
    assert real.stdout.endswith("0.46 USD an hour: stopped\n")
    assert (runpod.pods[silent]["status"], runpod.pods[others]["status"]) == ("EXITED", "RUNNING")


@pytest.mark.parametrize(("of", "exit_code"), [("GET", 3), ("POST", 3)])
def test_a_sweep_during_which_the_api_fails_says_so(
    nightreel: Callable[..., Result], runpod: FakeRunPod, store: Store, ours: str, of: str, exit_code: int
) -> None:
    for number in range(2):
        runpod.put(f"{ours}pod-w-{number}", createdAt=ago(0), startedAt=ago(0))
    store.put("a", b"")
    runpod.faults.append(Fault(of, 503, "maintenance"))

    result = nightreel("sweep", "--stop")

    assert result.exit_code == exit_code
    assert "maintenance" in result.output
    stopped = [pod["status"] for pod in runpod.pods.values()].count("EXITED")
    assert stopped == (1 if of == "POST" else 0)


def test_a_sweep_of_a_store_that_is_not_there_stops_nothing(
    nightreel: Callable[..., Result], runpod: FakeRunPod, ours: str
) -> None:
    runpod.put(f"{ours}pod-w-1", createdAt=ago(0), startedAt=ago(0))

    result = nightreel("sweep", "--stop")

    assert result.exit_code == 3
    assert {pod["status"] for pod in runpod.pods.values()} == {"RUNNING"}


def test_one_pod_or_all_of_ours_are_stopped_resumed_and_deleted(
    nightreel: Callable[..., Result], runpod: FakeRunPod, ours: str
) -> None:
    one, two = (runpod.put(f"{ours}pod-w-{number}") for number in (1, 2))
    others = runpod.put("jupyter")

    assert nightreel("stop", one).stdout == f"{one}: stopped\n"
    assert [runpod.pods[id]["status"] for id in (one, two)] == ["EXITED", "RUNNING"]
    assert nightreel("resume", one).stdout == f"{one}: started\n"
    assert nightreel("stop", "--all").stdout == f"{one}: stopped\n{two}: stopped\n"
    assert nightreel("stop", "--all").stdout == "no pod is there to be stopped\n"
    assert nightreel("terminate", "--all").exit_code == 0
    assert list(runpod.pods) == [others]


def test_a_spot_pod_is_refused_to_be_resumed_and_one_failure_does_not_keep_the_others(
    nightreel: Callable[..., Result], runpod: FakeRunPod, ours: str
) -> None:
    spot = runpod.put(f"{ours}spot-w-1", status="EXITED")
    pods = [runpod.put(f"{ours}pod-w-{number}") for number in (1, 2)]
    runpod.faults.append(Fault(f"POST /v2/pods/{pods[0]}", 503, "maintenance"))

    refused, half = nightreel("resume", spot), nightreel("stop", "--all")

    assert (refused.exit_code, half.exit_code) == (2, 3)
    assert "a spot pod is not resumed" in refused.output
    assert f"{pods[0]}: not stopped: RunPod failed (maintenance)" in half.output
    assert runpod.pods[pods[1]]["status"] == "EXITED"


@pytest.mark.parametrize("arguments", [("stop",), ("stop", "x", "--all"), ("stop", "{others}"), ("terminate", "{others}"),
                                       ("resume", "{others}")])  # fmt: skip
def test_a_pod_that_is_not_ours_is_refused(
    nightreel: Callable[..., Result], runpod: FakeRunPod, arguments: Sequence[str]
) -> None:
    others = runpod.put("jupyter")

    result = nightreel(*(each.format(others=others) for each in arguments))

    assert result.exit_code == 2
    assert runpod.pods[others]["status"] == "RUNNING"


def test_a_wrong_key_is_bad_input_and_an_empty_account_too(
    nightreel: Callable[..., Result],
    runpod: FakeRunPod,
    store: Store,
    gcs_server: FakeGcs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    store.put("a", b"")
    address = f"gs://pods-{os.urandom(4).hex()}/films"
    setup_bucket(address, "us-central1", project="demo")
    runpod.faults.append(Fault("POST", 402, "Insufficient balance"))

    wrong = nightreel("list", RUNPOD_API_KEY="rpa_WRONG")
    poor = nightreel("start", STORE=address, QUEUE="pubsub://demo/films", RUNPOD_IMAGE="i")

    assert (wrong.exit_code, poor.exit_code) == (2, 2), poor.output
    assert "does not know this key" in wrong.output
    assert "too little money (Insufficient balance)" in poor.output


def test_nothing_is_paid_while_the_store_cannot_be_had(
    nightreel: Callable[..., Result], runpod: FakeRunPod, gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)

    result = nightreel("start", STORE="gs://no-such-bucket/films", QUEUE="pubsub://demo/films", RUNPOD_IMAGE="i")

    assert result.exit_code == 3, result.output
    assert runpod.asked == []


def test_start_waits_for_the_worker_and_tells_the_price_that_counts(
    nightreel: Callable[..., Result], runpod: FakeRunPod, gcs_server: FakeGcs, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Given pods of which the first gets a worker, when two are started, then one is ready and the other given up."""
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs_server.url)
    monkeypatch.setattr("nightreel.pods.POLL_S", 0.1)
    address = f"gs://pods-{os.urandom(4).hex()}/films"
    setup_bucket(address, "us-central1", project="demo")
    runpod.cost_now = 0.48
    runpod.cards[RTX_3090] = Card(0.46, 0.22, 0.11, left=2)

    def worker() -> None:
        until(lambda: len(runpod.pods) == 2, "pods")
        put_run(open_store(address), next(iter(runpod.pods)), 0, 0, dt.datetime.now(dt.UTC))

    thread = threading.Thread(target=worker)
    thread.start()
    settings = {"STORE": address, "QUEUE": "pubsub://demo/films", "RUNPOD_IMAGE": "i", "RUNPOD_READY_TIMEOUT_S": "2"}
    result = nightreel("start", "-n", "3", **settings)
    thread.join()

    ready, lost = runpod.pods
    assert result.exit_code == 1
    assert f"{ready}: {RTX_3090}, 0.48 USD an hour\n{ready}: it was listed at 0.46 USD an hour\n" in result.stdout
    assert f"{ready}: ready after " in result.stdout
    assert f"{lost}: not ready after " in result.stdout
    assert "2 of 3 pods could be started" in result.output
    assert (runpod.pods[ready]["status"], runpod.pods[lost]["status"]) == ("PROVISIONING", "EXITED")


# In a pod

FRONT = """
import os, sys
from nightreel_dispatcher import own_pod
own_pod.PAUSE_S = own_pod.FIRST_RETRY_S = own_pod.MOST_RETRY_S = 0.05
own_pod.OwnPod(os.environ, lambda text: print(text, flush=True)).run(sys.argv[1:])
"""


class InAPod:
    """A container in which the front runs with a worker of the test's own."""

    def __init__(self, folder: Path) -> None:
        self.runpod = FakeRunPod([sys.executable, "-c", FRONT], folder)
        self.folder = folder
        self.id = ""

    def begin(self, worker: str, **environment: str) -> None:
        script = self.folder / "worker.sh"
        script.write_text(worker)
        env = {"NIGHTREEL_RUNPOD_ENDPOINT": self.runpod.url} | environment
        body = {"name": "nightreel-a-pod-w-1", "image": "i", "args": f"sh {script}", "cloud": "SECURE", "disk": 1,
                "gpu": {"id": RTX_3090}, "env": env}  # fmt: skip
        self.id = str(self.runpod.create(body)["id"])

    @property
    def log(self) -> str:
        return (self.folder / f"{self.id}.log").read_text()

    def wait_until_gone(self) -> None:
        until(lambda: self.id not in self.runpod.pods and not self.runpod.is_running(self.id), "end of the pod")
        assert (self.runpod.starts[self.id], self.runpod.too_early) == (1, set()), self.log


@pytest.fixture
def pod(tmp_path: Path) -> Iterator[InAPod]:
    inside = InAPod(tmp_path)
    with inside.runpod:
        yield inside


def test_a_worker_that_is_done_takes_its_pod_with_it(pod: InAPod) -> None:
    pod.begin("env > env.txt", **{GOOGLE_KEY: '{"type": "service_account"}', "NIGHTREEL_PRICE": "0.3"})
    pod.wait_until_gone()

    seen = dict(line.split("=", 1) for line in (pod.folder / "env.txt").read_text().splitlines() if "=" in line)
    assert (seen["NIGHTREEL_MACHINE"], seen["NIGHTREEL_PRICE"]) == (pod.id, "0.46")
    assert seen["GOOGLE_APPLICATION_CREDENTIALS"].endswith("google.json")
    assert not {name for name in seen if name.startswith("NIGHTREEL_RUNPOD_")} | ({"RUNPOD_API_KEY"} & set(seen))
    assert not Path(seen["GOOGLE_APPLICATION_CREDENTIALS"]).exists()


def test_a_worker_that_is_killed_is_started_again_and_after_three_times_the_pod_is_gone(pod: InAPod) -> None:
    pod.begin("echo once >> runs.txt; kill -9 $$")
    pod.wait_until_gone()

    assert (pod.folder / "runs.txt").read_text() == "once\n" * 3
    assert pod.log.count("the worker ended with -9") == 3


def test_a_worker_that_fails_once_goes_on_in_the_same_pod(pod: InAPod) -> None:
    pod.begin("echo once >> runs.txt; test $(wc -l < runs.txt) = 2 || exit 3")
    pod.wait_until_gone()

    assert (pod.folder / "runs.txt").read_text() == "once\n" * 2


def test_wrong_settings_are_not_tried_again_and_cannot_keep_the_pod(pod: InAPod) -> None:
    pod.begin("echo once >> runs.txt; exit 2", NIGHTREEL_RUNPOD_SPOT="perhaps", NIGHTREEL_TYPO="1")
    pod.wait_until_gone()

    assert (pod.folder / "runs.txt").read_text() == "once\n"


def test_a_program_that_is_not_there_does_not_keep_the_pod(tmp_path: Path) -> None:
    with FakeRunPod([sys.executable, "-c", FRONT, "/no/such/program"], tmp_path) as runpod:
        body = {"name": "p", "image": "i", "args": "", "cloud": "SECURE", "disk": 1, "gpu": {"id": RTX_3090},
                "env": {"NIGHTREEL_RUNPOD_ENDPOINT": runpod.url}}  # fmt: skip
        id = runpod.create(body)["id"]
        until(lambda: id not in runpod.pods, "end of the pod")
        assert "the pod cannot work: FileNotFoundError" in (tmp_path / f"{id}.log").read_text()


def test_while_the_api_is_down_the_pod_asks_again_and_again(pod: InAPod) -> None:
    pod.runpod.faults += [Fault("DELETE", 503, "down")] * 2 + [Fault("DELETE", kind="drops"), Fault("DELETE", 429)]
    pod.begin("true")
    pod.wait_until_gone()

    assert pod.log.count("goes on costing") == 4


def test_a_key_that_rest_refuses_is_tried_with_graphql(pod: InAPod) -> None:
    pod.runpod.pod_key_may = frozenset(("/graphql",))
    pod.begin("true")
    pod.wait_until_gone()

    assert "asking by GraphQL" in pod.log


def test_a_pod_that_is_told_to_leave_lets_its_worker_drain_and_stays_as_a_trace(pod: InAPod) -> None:
    pod.begin("trap 'echo drained > drained.txt; exit 0' TERM; echo up > up.txt; while :; do sleep 0.05; done")
    until(lambda: (pod.folder / "up.txt").exists(), "worker")

    pod.runpod._containers[pod.id].send_signal(signal.SIGTERM)
    until(lambda: pod.runpod.pods[pod.id]["status"] == "EXITED", "stopped pod")

    assert (pod.folder / "drained.txt").exists()
    assert pod.runpod.starts[pod.id] == 1


def test_outside_of_a_pod_the_front_refuses(nightreel: Callable[..., Result], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_POD_ID", raising=False)

    result = nightreel("work")

    assert result.exit_code == 2
    assert "this is no pod" in result.output
    with pytest.raises(NoPod):
        OwnPod({"RUNPOD_POD_ID": "x"}, print)


def test_a_real_worker_leaves_an_empty_queue_its_report_names_the_pod_and_the_pod_is_gone(tmp_path: Path) -> None:
    """From outside: the image's own command, in a container that RunPod would start again."""
    with FakeRunPod([sys.executable, "-m", "nightreel"], tmp_path) as runpod:
        runpod.cost_now = 0.51
        env = {"NIGHTREEL_RUNPOD_ENDPOINT": runpod.url, "NIGHTREEL_STORE": str(tmp_path / "out"), "NIGHTREEL_WAKE_ID": "w",
               "NIGHTREEL_MODEL": "testcard", GOOGLE_KEY: "{}"}  # fmt: skip
        body = {"name": "nightreel-a-pod-w-1", "image": "i", "args": "pods work", "cloud": "SECURE", "disk": 1,
                "gpu": {"id": RTX_3090}, "env": env}  # fmt: skip
        id = runpod.create(body)["id"]
        until(lambda: id not in runpod.pods, "end of the pod", 120)

    [run] = History.read(open_store(str(tmp_path / "out"))).runs
    assert (run.machine, run.wake, run.price, run.state) == (id, "w", "0.51 USD an hour", "ended")
    assert runpod.starts[id] == 1
