"""Workers as pods on RunPod. A pod's name tells whose it is: the store's mark, how it is paid, the wake id, a number."""

from __future__ import annotations

import hashlib
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nightreel_worker.settings import Settings

from .base import Execution, LauncherError, LauncherUnavailable, NotAllowed, QuotaExceeded, State
from .runpod_api import NoMachine, NoSuchPod, RunPodApi, Unfit
from .runpod_settings import ENDPOINT, RunPodSettings
from .runpod_shapes import Made, Offer, Pod, PodRequest

ALL_S = 30.0  # after which no more pods of one start are asked for
FRESH_S = 5.0  # that a list of pods is told again without asking RunPod
GOOGLE_KEY = "NIGHTREEL_RUNPOD_GOOGLE_KEY"
SPOT_DRAIN_S = 4.0  # RunPod kills a spot pod five seconds after SIGTERM
STATES: Mapping[str, State] = {
    "PROVISIONING": "starting",
    "STARTING": "starting",
    "RUNNING": "running",
    "EXITED": "ended",
    "TERMINATED": "ended",
}
STAYS_HERE = frozenset(
    ("queue", "store", "models", "weights", "scratch", "price", "prices", "task_timeout_s", "webhook_secret",
     "trusted_hosts", "wake_id", "machine", "log_format")
)  # fmt: skip
"""Settings of this machine, or secret ones: no pod inherits them."""


def prefix(store: str) -> str:
    """How the names of all pods begin that work for a store: pods of others, and of other stores, are left alone."""
    return f"nightreel-{hashlib.sha256(store.rstrip('/').encode()).hexdigest()[:6]}-"


def is_spot(pod: Pod) -> bool:
    """As its name tells: RunPod's API does not."""
    return pod.name.split("-")[2:3] == ["spot"]


def wake_of(pod: Pod) -> str:
    return "-".join(pod.name.split("-")[3:-1])


@dataclass(frozen=True, slots=True)
class Launched:
    """A pod that was started."""

    id: str
    gpu: str
    usd_per_hour: float
    listed_usd_per_hour: float
    """What the list said when it was asked for."""


@dataclass(frozen=True, slots=True)
class Order:
    """What every pod shall be; a PodRequest is made of it for each."""

    request: PodRequest
    """Without name, type of GPU and price."""
    gpus: Sequence[str]
    prefix: str
    spot: bool
    bid_usd: float
    max_usd: float

    @classmethod
    def of(cls, settings: Settings, own: RunPodSettings, told: Mapping[str, str]) -> Order:
        """told: variables for each pod, over those that follow from settings. Raises NotAllowed for what cannot work."""
        if not settings.store.startswith("gs://") or not settings.queue.startswith("pubsub://"):
            raise NotAllowed(
                "a pod sees no files of this machine: set NIGHTREEL_QUEUE=pubsub://PROJECT/SUBSCRIPTION and"
                " NIGHTREEL_STORE=gs://BUCKET/PREFIX"
            )
        if not own.image:
            raise NotAllowed("pods need the worker's image: set NIGHTREEL_RUNPOD_IMAGE=REGISTRY/NAME:TAG")
        request = PodRequest(
            name="",
            image=own.image,
            args="pods work",
            gpu="",
            cloud="COMMUNITY" if own.cloud == "community" else "SECURE",
            disk_gb=own.disk_gb,
            env={**_environment(settings, own), **told},
            data_centers=own.listed("data_centers"),
            registry=own.registry,
            volume=own.volume,
            mount=own.mount,
        )
        gpus, bid, most = own.listed("gpus"), own.bid_usd_per_hour, own.max_usd_per_hour
        return cls(request, gpus, prefix(settings.store), own.spot, bid, most)

    def one(self, wake: str, number: int, offer: Offer) -> PodRequest:
        name = f"{self.prefix}{'spot' if self.spot else 'pod'}-{wake}-{number}"
        told = {"NIGHTREEL_WAKE_ID": wake, "NIGHTREEL_PRICE": f"{offer.usd_per_hour:g}"}
        return replace(self.request, name=name, gpu=offer.gpu, env={**self.request.env, **told})


class RunPod:
    """Starts pods, and tells of those that it, or another with the same store, has started."""

    name = "runpod"

    def __init__(self, api: RunPodApi, order: Order, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._order, self._clock = api, order, clock
        self._lock = threading.Lock()
        self._listed: Sequence[Execution] = ()
        self._listed_at = -FRESH_S

    @classmethod
    def of(cls, settings: Settings, own: RunPodSettings, told: Mapping[str, str] | None = None) -> RunPod:
        """Raises NotAllowed for settings that do not suffice."""
        return cls(RunPodApi(own.key, own.endpoint), Order.of(settings, own, told or {}))

    def start(self, count: int, wake: str, reason: str) -> Sequence[str]:
        """As in the protocol."""
        return [each.id for each in self.launch(count, wake)]

    def launch(self, count: int, wake: str) -> Sequence[Launched]:
        """The same, and what each costs."""
        offers = self.offers()
        launched: list[Launched] = []
        begun = self._clock()
        self._forget()
        while len(launched) < count and self._clock() - begun < ALL_S:
            try:
                launched.append(self._one(wake, len(launched) + 1, offers))
            except (QuotaExceeded, NotAllowed):
                if launched:
                    break
                raise
        return launched

    def offers(self) -> Sequence[Offer]:
        """What may be started, the best first: in the order of preference, those last that are out of stock.

        Raises QuotaExceeded when there is none, or none that is cheap enough.
        """
        order = self._order
        ask = self._api.spot_offers if order.spot else self._api.offers
        listed = ask(order.gpus, order.request.cloud)
        if order.spot and order.bid_usd:
            listed = [replace(each, usd_per_hour=max(order.bid_usd, each.usd_per_hour)) for each in listed]
        if not listed:
            raise QuotaExceeded(f"RunPod has none of {', '.join(order.gpus)}; ids are in its list of GPUs", 300.0)
        cheap = [each for each in listed if not order.max_usd or each.usd_per_hour <= order.max_usd]
        if not cheap:
            least = min(listed, key=lambda each: each.usd_per_hour)
            raise QuotaExceeded(
                f"the cheapest, {least.gpu}, costs {least.usd_per_hour:g} USD an hour, and"
                f" NIGHTREEL_RUNPOD_MAX_USD_PER_HOUR is {order.max_usd:g}",
                300.0,
            )
        return sorted(cheap, key=lambda each: not each.in_stock)

    def executions(self) -> Sequence[Execution]:
        """As in the protocol; RunPod is not asked again for five seconds. Pods that it has deleted are not told."""
        with self._lock:
            if self._clock() - self._listed_at >= FRESH_S:
                self._listed = [_execution(pod) for pod in self._api.pods(self._order.prefix)]
                self._listed_at = self._clock()
            return self._listed

    def cancel(self, id: str) -> None:
        """As in the protocol: the pod is stopped, which sends its worker SIGTERM."""
        self._forget()
        stop(self._api, id)

    def _one(self, wake: str, number: int, offers: Sequence[Offer]) -> Launched:
        """One pod, of the first type that can be had. Raises NoMachine with the last type's words."""
        refusal = NoMachine("RunPod has no machine")
        for offer in offers:
            request = self._order.one(wake, number, offer)
            try:
                made = self._make(request, offer)
            except NoMachine as exc:
                refusal = NoMachine(f"{exc} (asked for {offer.gpu})", exc.retry_s)
            else:
                return self._checked(made, offer)
        raise refusal

    def _make(self, request: PodRequest, offer: Offer) -> Made:
        try:
            if self._order.spot:
                return self._api.rent(request, offer.usd_per_hour)
            return self._api.make(request)
        except LauncherUnavailable as exc:
            return self._find(request.name, exc)

    def _find(self, name: str, lost: LauncherUnavailable) -> Made:
        """A pod whose making was not answered. Raises `lost` when it is not to be seen: it may still come."""
        try:
            found = [pod for pod in self._api.pods(self._order.prefix) if pod.name == name]
        except (LauncherUnavailable, QuotaExceeded, NotAllowed):
            found = []
        if not found:
            raise LauncherUnavailable(
                f"{lost}; whether the pod {name} was made is not known: nightreel pods list"
            ) from lost
        return Made(found[0].id, found[0].cost)

    def _checked(self, made: Made, offer: Offer) -> Launched:
        """A pod must not cost more than it may: prices move between the list and the start."""
        usd, most = made.usd_per_hour or offer.usd_per_hour, self._order.max_usd
        if most and usd > most:
            try:
                end(self._api, made.id)
            except LauncherError as exc:
                raise LauncherUnavailable(
                    f"the pod {made.id} costs {usd:g} USD an hour, more than it may, and could not be deleted ({exc}):"
                    f" nightreel pods terminate {made.id}"
                ) from exc
            raise QuotaExceeded(
                f"{offer.gpu} was listed at {offer.usd_per_hour:g} USD an hour and costs {usd:g}, and"
                f" NIGHTREEL_RUNPOD_MAX_USD_PER_HOUR is {most:g}: the pod {made.id} was deleted",
                300.0,
            )
        return Launched(made.id, offer.gpu, usd, offer.usd_per_hour)

    def _forget(self) -> None:
        with self._lock:
            self._listed_at = -FRESH_S


def stop(api: RunPodApi, id: str) -> None:
    """Stop a pod; one that is over, or gone, is left alone. Raises LauncherError."""
    try:
        api.act(id, "stop")
    except NoSuchPod:
        return
    except Unfit:
        if api.pod(id).is_up:
            raise


def resume(api: RunPodApi, id: str, max_usd: float) -> None:
    """Start a pod that was stopped. Raises LauncherError; QuotaExceeded, too, when it would cost more than max_usd an hour."""
    if is_spot(api.pod(id)):
        raise NotAllowed("a spot pod is not resumed: start a new one, nightreel pods start --spot")
    api.act(id, "start")
    if max_usd and (usd := api.pod(id).cost) > max_usd:
        stop(api, id)
        raise QuotaExceeded(f"it costs {usd:g} USD an hour now, and may cost {max_usd:g}: stopped again")


def end(api: RunPodApi, id: str) -> None:
    """Delete a pod; one that is gone is left alone. Raises LauncherError."""
    try:
        api.act(id, "terminate")
    except NoSuchPod:
        return


def _environment(settings: Settings, own: RunPodSettings) -> dict[str, str]:
    """What a pod's worker is told: what the operator has set, as far as it is no matter of this machine."""
    given = {name: getattr(settings, name) for name in settings.model_fields_set - STAYS_HERE}
    told = {f"NIGHTREEL_{name.upper()}": _text(value) for name, value in sorted(given.items())}
    told |= {"NIGHTREEL_QUEUE": settings.queue, "NIGHTREEL_STORE": settings.store, "NIGHTREEL_MODEL": settings.model}
    if own.volume:
        told["NIGHTREEL_WEIGHTS"] = own.mount
    if own.spot:
        told["NIGHTREEL_DRAIN_S"] = f"{min(settings.drain_s, SPOT_DRAIN_S):g}"
    if own.endpoint != ENDPOINT:
        told["NIGHTREEL_RUNPOD_ENDPOINT"] = own.endpoint
    if own.google_key:
        told[GOOGLE_KEY] = own.google_key.get_secret_value()
    return told | dict(part.split("=", 1) for part in own.listed("env"))


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _execution(pod: Pod) -> Execution:
    gpu = pod.gpu.id if pod.gpu else "no GPU"
    return Execution(
        id=pod.id,
        state=STATES.get(pod.status, "failed"),
        started_at=pod.created_at.timestamp(),
        wake=wake_of(pod),
        words=f"{gpu}, {pod.status.lower()}, {pod.cost:g} USD an hour",
    )
