"""The launcher of pods, by real HTTP to a server that speaks RunPod's documented API, says no, and breaks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

import pytest
from fake_runpod import A5000, KEY, L4, RTX_3090, FakeRunPod, Fault
from launcher_contract import Ground, LauncherContract, ended
from pydantic import SecretStr, ValidationError
from web_servers import Connection, Server, drips

from nightreel_dispatcher.launchers.base import (
    LauncherError,
    LauncherUnavailable,
    NotAllowed,
    QuotaExceeded,
    Refused,
)
from nightreel_dispatcher.launchers.runpod import RunPod, _remembered, resume
from nightreel_dispatcher.launchers.runpod_api import RunPodApi
from nightreel_dispatcher.launchers.runpod_order import STAYS_HERE, Order, prefix
from nightreel_dispatcher.launchers.runpod_settings import RunPodSettings
from nightreel_worker.settings import Settings

STORE = "gs://bucket/films"
WAKE = "20261122T0210-ab"
Open = Callable[..., RunPod]


@pytest.fixture
def runpod() -> Iterator[FakeRunPod]:
    with FakeRunPod() as server:
        yield server


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def launcher(runpod: FakeRunPod, clock: Clock) -> Open:
    """Opens a launcher; options are of RunPodSettings."""

    def opened(settings: Settings | None = None, **options: Any) -> RunPod:
        told = {"image": "registry/nightreel:1", "endpoint": runpod.url, "api_key": KEY} | options
        own = RunPodSettings(**told)
        order = Order.of(settings or worker(), own, {"NIGHTREEL_MAX_WAIT_S": "900"})
        return RunPod(RunPodApi(own.key, own.endpoint, limit_s=1.0), order, clock)

    return opened


def worker(**fields: Any) -> Settings:
    return Settings(**{"store": STORE, "queue": "pubsub://demo/films", "model": "flux-schnell"} | fields)


def names(runpod: FakeRunPod) -> list[str]:
    return [pod["name"] for pod in runpod.pods.values()]


# Starting


def test_a_pod_is_asked_for_as_the_api_documents_it(runpod: FakeRunPod, launcher: Open) -> None:
    opened = launcher(
        volume="vol1", data_centers="EU-RO-1, EU-CZ-1", registry="cred1", disk_gb=40,
        google_key="{{ RUNPOD_SECRET_google }}", env="NIGHTREEL_WEBHOOK_SECRET={{ RUNPOD_SECRET_hook }}",
    )  # fmt: skip

    [id] = opened.start(1, WAKE, "because")

    assert id in runpod.pods
    assert runpod.requests("POST /v2/pods") == [
        {
            "name": f"{prefix(STORE)}pod-{WAKE}-1",
            "image": "registry/nightreel:1",
            "args": "pods work",
            "cloud": "SECURE",
            "gpu": {"id": RTX_3090, "count": 1, "minCudaVersion": "12.2"},
            "disk": 40,
            "dataCenterIds": ["EU-RO-1", "EU-CZ-1"],
            "registry": "cred1",
            "mounts": {"network": [{"volumeId": "vol1", "path": "/weights"}]},
            "env": {
                "NIGHTREEL_QUEUE": "pubsub://demo/films",
                "NIGHTREEL_STORE": STORE,
                "NIGHTREEL_MODEL": "flux-schnell",
                "NIGHTREEL_WEIGHTS": "/weights",
                "NIGHTREEL_MAX_WAIT_S": "900",
                "NIGHTREEL_WAKE_ID": WAKE,
                "NIGHTREEL_ROUTE": "because",
                "NIGHTREEL_PRICE": "0.46",
                "NIGHTREEL_RUNPOD_ENDPOINT": runpod.url,
                "NIGHTREEL_RUNPOD_GOOGLE_KEY": "{{ RUNPOD_SECRET_google }}",
                "NIGHTREEL_WEBHOOK_SECRET": "{{ RUNPOD_SECRET_hook }}",
            },
        }
    ]


def test_the_community_has_machines_and_prices_of_its_own(runpod: FakeRunPod, launcher: Open) -> None:
    [launched] = launcher(cloud="community").launch(1, WAKE)

    assert runpod.requests("POST /v2/pods")[0]["cloud"] == "COMMUNITY"
    assert launched.usd_per_hour == 0.22


def test_a_pod_inherits_what_was_set_but_no_secret_and_no_path_of_this_machine(
    runpod: FakeRunPod, launcher: Open, tmp_path: Any
) -> None:
    secret = "whsec_" + "c2VjcmV0LXdpdGgtdHdlbnR5LWZvdXItYnl0ZXM="
    set_here = worker(
        max_cost_usd=2.5, input_https=True, weights=tmp_path, scratch=tmp_path, webhook_secret=secret, price="local"
    )

    launcher(set_here).start(1, WAKE, "")

    [asked] = runpod.requests("POST /v2/pods")
    assert asked["env"].items() >= {"NIGHTREEL_MAX_COST_USD": "2.5", "NIGHTREEL_INPUT_HTTPS": "true"}.items()
    assert not {"NIGHTREEL_WEIGHTS", "NIGHTREEL_SCRATCH", "NIGHTREEL_WEBHOOK_SECRET"} & set(asked["env"])
    assert KEY not in str(runpod.asked)


def test_every_path_and_every_secret_among_the_settings_stays_here() -> None:
    kinds = {name: {field.annotation, *get_args(field.annotation)} for name, field in Settings.model_fields.items()}

    assert {name for name, kind in kinds.items() if kind & {Path, SecretStr}} <= STAYS_HERE
    assert set(kinds) >= STAYS_HERE


def test_several_pods_of_one_start_have_names_and_one_wake_id(runpod: FakeRunPod, launcher: Open) -> None:
    opened = launcher()

    ids = opened.start(3, WAKE, "")

    assert sorted(ids) == sorted(runpod.pods)
    assert len(set(names(runpod))) == 3
    assert [(each.state, each.wake) for each in opened.executions()] == [("starting", WAKE)] * 3


def test_the_next_best_card_is_taken_when_the_first_cannot_be_had(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.cards[RTX_3090].left = 1
    gpus = f"{RTX_3090},{A5000}"

    launched = launcher(gpus=gpus).launch(2, WAKE)

    assert [each.gpu for each in launched] == [RTX_3090, A5000]


def test_a_card_that_is_listed_as_gone_is_asked_for_last(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.cards[RTX_3090].said = "NONE"

    [launched] = launcher(gpus=f"{RTX_3090},{A5000}").launch(1, WAKE)

    assert launched.gpu == A5000


def test_fewer_than_were_asked_for_are_started_when_the_machines_run_out(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.cards[RTX_3090].left = 2

    assert len(launcher().start(5, WAKE, "")) == 2


# No


@pytest.mark.parametrize(
    ("status", "kind", "words"),
    [
        (401, NotAllowed, "NIGHTREEL_RUNPOD_API_KEY"),
        (402, NotAllowed, "too little money"),
        (403, QuotaExceeded, "asked for"),
        (400, QuotaExceeded, "no instances"),
        (404, QuotaExceeded, "no instances"),
        (422, NotAllowed, "no instances"),
        (429, QuotaExceeded, "too often"),
        (500, LauncherUnavailable, "not known"),
        (503, LauncherUnavailable, "not known"),
    ],
)
def test_each_refusal_has_its_class_and_nothing_is_asked_twice(
    runpod: FakeRunPod, launcher: Open, status: int, kind: type[LauncherError], words: str
) -> None:
    runpod.faults.append(Fault("POST /v2/pods", status, "no instances", retry_after=12))

    with pytest.raises(kind, match=words) as caught:
        launcher().start(1, WAKE, "")

    assert len(runpod.requests("POST /v2/pods")) == 1
    assert runpod.pods == {}
    assert not isinstance(caught.value, Refused) or caught.value.retry_s == (
        12.0 if status == 429 else 300.0 if kind is QuotaExceeded else 0.0
    )


def test_a_card_that_this_account_may_not_have_is_skipped(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.faults.append(Fault("POST /v2/pods", 403))

    [launched] = launcher(gpus=f"{RTX_3090},{A5000}").launch(1, WAKE)

    assert launched.gpu == A5000


def test_without_money_no_other_card_is_tried(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.faults.append(Fault("POST /v2/pods", 402))

    with pytest.raises(NotAllowed):
        launcher(gpus=f"{RTX_3090},{A5000}").start(1, WAKE, "")

    assert runpod.pods == {}


def test_a_wrong_key_is_told_and_not_shown(runpod: FakeRunPod, launcher: Open) -> None:
    opened = launcher(api_key="rpa_WRONG")

    with pytest.raises(NotAllowed, match="does not know this key") as caught:
        opened.executions()

    assert "WRONG" not in str(caught.value)
    assert "WRONG" not in repr(RunPodApi("rpa_WRONG"))


def test_a_card_that_runpod_does_not_know_is_told(launcher: Open) -> None:
    with pytest.raises(QuotaExceeded, match="none of NVIDIA L4"):
        launcher(gpus=L4).start(1, WAKE, "")


# Not known


@pytest.mark.parametrize("fault", [Fault("POST /v2/pods", kind="drops", done=True),
                                   Fault("POST /v2/pods", kind="hangs", done=True),
                                   Fault("POST /v2/pods", 502, done=True)])  # fmt: skip
def test_a_pod_whose_making_was_not_answered_is_found_by_its_name(
    runpod: FakeRunPod, launcher: Open, fault: Fault
) -> None:
    other = runpod.put(f"{prefix(STORE)}pod-{WAKE}-2")
    runpod.faults.append(fault)

    ids = launcher().start(1, WAKE, "")

    assert [other, *ids] == list(runpod.pods)
    assert len(runpod.requests("POST /v2/pods")) == 1


def test_a_spot_pod_whose_making_was_not_answered_is_found_too(runpod: FakeRunPod, launcher: Open) -> None:
    opened = launcher(spot=True)
    runpod.faults += [Fault("POST /graphql", 200, body=b'{"data": {"gpuTypes": '
                      b'[{"id": "x", "lowestPrice": {"minimumBidPrice": 0.11}}]}}'),
                      Fault("POST /graphql", kind="drops", done=True)]  # fmt: skip

    assert opened.start(1, WAKE, "") == list(runpod.pods)
    assert len(runpod.pods) == 1


@pytest.mark.parametrize("kind", ["drops", "hangs"])
def test_a_making_that_was_not_answered_and_is_not_to_be_seen_is_not_known(
    runpod: FakeRunPod, launcher: Open, kind: Any
) -> None:
    runpod.faults.append(Fault("POST /v2/pods", kind=kind))

    with pytest.raises(LauncherUnavailable, match=r"whether the pod nightreel-.* was made is not known"):
        launcher().start(2, WAKE, "")

    assert len(runpod.requests("POST /v2/pods")) == 1


@pytest.mark.parametrize("body", [b"<html>", b"[]", b'{"pods": null}', b'{"pods": [{"name": "nightreel-", "id": 5}]}'])
def test_an_answer_that_is_not_as_documented_is_no_answer(runpod: FakeRunPod, launcher: Open, body: bytes) -> None:
    runpod.faults.append(Fault("GET /v2/pods", 200, body=body.replace(b"nightreel-", prefix(STORE).encode())))

    with pytest.raises(LauncherUnavailable, match=r"as documented|no JSON|has none"):
        launcher().executions()


def test_an_answer_that_never_ends_is_none(launcher: Open) -> None:
    with Server(drips) as server, pytest.raises(LauncherUnavailable, match="did not answer"):
        launcher(endpoint=server.url).executions()


def test_an_answer_that_is_cut_off_is_none(launcher: Open) -> None:
    """Even where what came of it can be read: there may be other pods."""

    def cut(connection: Connection) -> None:
        connection.send(b'HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{"pods": []}')

    with Server(cut) as server, pytest.raises(LauncherUnavailable, match="did not answer: IncompleteRead"):
        launcher(endpoint=server.url).executions()


def test_a_server_that_is_not_there_is_unavailable(launcher: Open) -> None:
    with pytest.raises(LauncherUnavailable, match="did not answer"):
        launcher(endpoint="http://127.0.0.1:1").executions()


# Money


def test_a_card_that_costs_more_than_the_limit_is_not_asked_for(runpod: FakeRunPod, launcher: Open) -> None:
    gpus = f"{RTX_3090},{A5000}"

    [launched] = launcher(gpus=gpus, max_usd_per_hour=0.3).launch(1, WAKE)
    with pytest.raises(QuotaExceeded, match=r"NVIDIA RTX A5000, costs 0\.27 USD an hour, and .* is 0\.1"):
        launcher(gpus=gpus, max_usd_per_hour=0.1).start(1, WAKE, "")

    assert launched.gpu == A5000
    assert len(runpod.requests("POST /v2/pods")) == 1


def test_a_price_that_rose_between_list_and_start_is_told_or_refused(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.cost_now = 0.9

    [launched] = launcher().launch(1, WAKE)
    with pytest.raises(QuotaExceeded, match=r"listed at 0\.46 USD an hour and costs 0\.9.*deleted"):
        launcher(max_usd_per_hour=0.5).start(1, WAKE, "")

    assert (launched.usd_per_hour, launched.listed_usd_per_hour) == (0.9, 0.46)
    assert list(runpod.pods) == [launched.id]


def test_a_pod_that_is_too_dear_and_cannot_be_deleted_is_told_by_its_id(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.cost_now = 0.9
    runpod.faults.append(Fault("DELETE", 503))

    with pytest.raises(LauncherUnavailable, match="nightreel pods terminate pod0"):
        launcher(max_usd_per_hour=0.5).start(1, WAKE, "")


# Spot


def test_a_spot_pod_is_rented_for_the_least_bid_and_leaves_faster(runpod: FakeRunPod, launcher: Open) -> None:
    [id] = launcher(spot=True, volume="vol1").start(1, WAKE, "")

    bid = runpod.requests("POST /graphql")[-1]["variables"]["input"]
    assert (bid["bidPerGpu"], bid["gpuTypeId"], bid["networkVolumeId"]) == (0.11, RTX_3090, "vol1")
    assert {"key": "NIGHTREEL_DRAIN_S", "value": "4"} in bid["env"]
    assert {"key": "NIGHTREEL_PRICE", "value": "0.11"} in bid["env"]
    assert runpod.pods[id]["name"] == f"{prefix(STORE)}spot-{WAKE}-1"
    assert runpod.requests("POST /v2/pods") == []


@pytest.mark.parametrize(("bid", "paid"), [(0.2, 0.2), (0.01, 0.11)])
def test_a_bid_of_ones_own_is_raised_to_the_least_that_counts(
    runpod: FakeRunPod, launcher: Open, bid: float, paid: float
) -> None:
    [launched] = launcher(spot=True, bid_usd_per_hour=bid).launch(1, WAKE)

    assert launched.usd_per_hour == paid


def test_without_a_spot_machine_nothing_is_rented(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.cards[RTX_3090].left = 0

    with pytest.raises(QuotaExceeded, match="no instances"):
        launcher(spot=True).start(1, WAKE, "")
    with pytest.raises(QuotaExceeded, match="none of"):
        launcher(spot=True, gpus=L4).start(1, WAKE, "")


# Looking, and ending


def test_runpod_is_not_asked_again_within_five_seconds(runpod: FakeRunPod, launcher: Open, clock: Clock) -> None:
    opened = launcher()
    for _ in range(10):
        opened.executions()
    asked = len(runpod.requests("GET /v2/pods"))
    clock.now += 5.0
    opened.executions()

    assert (asked, len(runpod.requests("GET /v2/pods"))) == (1, 2)


def test_what_was_started_or_cancelled_is_seen_at_once(runpod: FakeRunPod, launcher: Open) -> None:
    opened = launcher()
    assert opened.executions() == []

    [id] = opened.start(1, WAKE, "")
    started = opened.executions()
    opened.cancel(id)

    assert [each.id for each in started] == [id]
    assert [each.state for each in opened.executions()] == ["ended"]


@pytest.mark.parametrize(
    ("status", "state"),
    [("PROVISIONING", "starting"), ("STARTING", "starting"), ("RUNNING", "running"), ("EXITED", "ended"),
     ("ERROR", "failed"), ("TERMINATED", "ended"), ("NEW", "failed")],
)  # fmt: skip
def test_each_status_is_a_state(runpod: FakeRunPod, launcher: Open, status: str, state: str) -> None:
    runpod.put(f"{prefix(STORE)}pod-{WAKE}-1", status=status)

    [found] = launcher().executions()

    assert found.state == state


def test_pods_of_others_and_of_other_stores_are_not_ours(runpod: FakeRunPod, launcher: Open) -> None:
    runpod.put("jupyter", cost="whatever")
    runpod.put("nightreel", createdAt=None)
    runpod.put(f"{prefix('gs://other/films')}pod-{WAKE}-1")

    assert launcher().executions() == []
    assert prefix(STORE) == prefix(f"{STORE}/")


def test_a_pod_that_is_over_is_left_alone(runpod: FakeRunPod, launcher: Open) -> None:
    over = runpod.put(f"{prefix(STORE)}pod-{WAKE}-1", status="EXITED")

    launcher().cancel(over)

    assert runpod.requests("POST") == []


def test_a_pod_that_is_not_ours_is_never_cancelled(runpod: FakeRunPod, launcher: Open) -> None:
    others = runpod.put("jupyter")

    for id in (others, "nobody"):
        with pytest.raises(NotAllowed, match=f"no worker {id}"):
            launcher().cancel(id)

    assert runpod.pods[others]["status"] == "RUNNING"


def test_a_pod_that_deleted_itself_is_told_of_as_ended_for_an_hour(
    runpod: FakeRunPod, launcher: Open, clock: Clock
) -> None:
    opened = launcher()
    [id] = opened.start(1, WAKE, "")
    opened.executions()
    del runpod.pods[id]

    before = opened.executions()
    clock.now += 5
    [gone] = opened.executions()

    assert [each.is_up for each in before] == [True]
    assert (gone.id, gone.state, gone.wake) == (id, "ended", WAKE)
    assert gone.ended_at is not None
    assert _remembered({id: gone}, [], gone.ended_at + 3599) != {}
    assert _remembered({id: gone}, [], gone.ended_at + 3600) == {}


def test_a_new_pod_that_is_not_listed_yet_counts_as_starting(runpod: FakeRunPod, launcher: Open) -> None:
    opened = launcher()
    opened.start(1, WAKE, "")
    runpod.faults.append(Fault("GET /v2/pods", 200, body=b'{"pods": []}'))

    [new] = opened.executions()

    assert new.state == "starting"
    assert _remembered({new.id: new}, [], new.started_at + 31)[new.id].state == "ended"


def test_a_pod_that_is_locked_is_told(runpod: FakeRunPod, launcher: Open) -> None:
    locked = runpod.put(f"{prefix(STORE)}pod-{WAKE}-1", locked=True)

    with pytest.raises(NotAllowed, match="pod is locked"):
        launcher().cancel(locked)


def test_a_pod_that_is_dearer_now_is_not_resumed_and_a_spot_pod_never(runpod: FakeRunPod) -> None:
    api = RunPodApi(KEY, runpod.url)
    dear, spot = (
        runpod.put(f"{prefix(STORE)}{kind}-{WAKE}-1", status="EXITED", cost=0.0, next_cost=0.8)
        for kind in ("pod", "spot")
    )

    with pytest.raises(QuotaExceeded, match=r"costs 0\.8 USD an hour now, and may cost 0\.5: stopped again"):
        resume(api, dear, 0.5)
    with pytest.raises(NotAllowed, match="pods start --spot"):
        resume(api, spot, 0.0)

    assert {pod["status"] for pod in runpod.pods.values()} == {"EXITED"}
    resume(api, dear, 0.8)
    assert runpod.pods[dear]["status"] == "STARTING"


# Settings


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"google_key": '{"type": "service_account"}'}, "must be {{ RUNPOD_SECRET_name }}"),
        ({"endpoint": "http://api.runpod.io"}, "must be https"),
        ({"endpoint": "http://localhost:80"}, "must be https"),
        ({"endpoint": "ftp://127.0.0.1"}, "must be https"),
        ({"env": "A=1,B"}, "NAME=VALUE"),
        ({"volume": "vol1", "cloud": "community"}, "network volumes are in the secure cloud alone"),
    ],
)
def test_a_setting_that_does_not_fit_is_refused_without_showing_it(options: dict[str, Any], why: str) -> None:
    with pytest.raises(ValidationError, match=why) as caught:
        RunPodSettings(**options)

    assert "service_account" not in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "options", "why"),
    [
        ({"store": "out"}, {}, "NIGHTREEL_STORE=gs://"),
        ({"queue": "sqlite:///jobs.db"}, {}, "NIGHTREEL_QUEUE=pubsub://"),
        ({}, {"image": ""}, "NIGHTREEL_RUNPOD_IMAGE"),
    ],
)
def test_what_no_pod_could_work_with_is_refused_before_anything_is_paid(
    runpod: FakeRunPod, launcher: Open, settings: dict[str, Any], options: dict[str, Any], why: str
) -> None:
    with pytest.raises(NotAllowed, match=why):
        launcher(worker(**settings), **options)

    assert runpod.asked == []


def test_a_key_is_needed_and_runpods_own_variable_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RUNPOD_API_KEY", raising=False)
    with pytest.raises(NotAllowed, match="set NIGHTREEL_RUNPOD_API_KEY"):
        _ = RunPodSettings().key

    monkeypatch.setenv("RUNPOD_API_KEY", KEY)
    assert RunPodSettings().key == KEY


@dataclass(slots=True)
class OfPods:
    """A server of RunPod's, whose pods are rows."""

    runpod: FakeRunPod
    opened: Callable[[], RunPod]
    launcher: RunPod

    def again(self) -> RunPod:
        return self.opened()

    def nothing_can_be_started(self) -> None:
        for card in self.runpod.cards.values():
            card.left = 0

    def end(self, id: str) -> None:
        """Its own front deletes it."""
        self.runpod.act(id, "terminate")

    def fail(self, id: str) -> None:
        self.runpod.pods[id]["status"] = "ERROR"

    def environment(self, id: str) -> Mapping[str, str]:
        sent = self.runpod.pods[id]["env"]
        return {name: sent[name] for name in ("NIGHTREEL_WAKE_ID", "NIGHTREEL_ROUTE", "NIGHTREEL_MAX_WAIT_S")}


class TestPodsAsALauncher(LauncherContract):
    @pytest.fixture
    def ground(self, runpod: FakeRunPod, launcher: Open, monkeypatch: pytest.MonkeyPatch) -> OfPods:
        monkeypatch.setattr("nightreel_dispatcher.launchers.runpod.FRESH_S", 0.0)
        monkeypatch.setattr("nightreel_dispatcher.launchers.runpod.APPEAR_S", 0.3)
        return OfPods(runpod, launcher, launcher())

    def test_one_that_died_is_told_of_with_its_last_words(self, ground: Ground) -> None:
        """RunPod keeps no words of a pod; that it failed is told all the same."""
        [id_] = ground.launcher.start(1, "wake-1", "night")
        ground.fail(id_)

        assert ended(ground.launcher, id_).state == "failed"
