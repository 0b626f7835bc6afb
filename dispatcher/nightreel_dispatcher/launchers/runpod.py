"""Workers as pods on RunPod."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from nightreel_worker.settings import Settings

from .base import Execution, LauncherError, LauncherUnavailable, NotAllowed, QuotaExceeded, State
from .runpod_api import NoMachine, NoSuchPod, RunPodApi, Unfit
from .runpod_order import Order, is_spot, wake_of
from .runpod_settings import RunPodSettings
from .runpod_shapes import Made, Offer, Pod, PodRequest

ALL_S = 30.0  # after which no more pods of one start are asked for
KEPT_S = 3600.0  # that an execution is told of after its end
APPEAR_S = 30.0  # that a new pod may be missing in RunPod's list
ASKED_FOR = "asked for, not listed yet"
FRESH_S = 5.0  # that a list of pods is told again without asking RunPod
STATES: Mapping[str, State] = {
    "PROVISIONING": "starting",
    "STARTING": "starting",
    "RUNNING": "running",
    "EXITED": "ended",
    "TERMINATED": "ended",
}


@dataclass(frozen=True, slots=True)
class Launched:
    """A pod that was started."""

    id: str
    gpu: str
    usd_per_hour: float
    listed_usd_per_hour: float
    """What the list said when it was asked for."""


class RunPod:
    """Starts pods, and tells of those that it, or another with the same store, has started."""

    name = "runpod"

    def __init__(self, api: RunPodApi, order: Order, clock: Callable[[], float] = time.monotonic) -> None:
        self._api, self._order, self._clock = api, order, clock
        self._lock = threading.Lock()
        self._listed: Sequence[Pod] = ()
        self._listed_at = -FRESH_S
        self._known: dict[str, Execution] = {}

    @classmethod
    def of(cls, settings: Settings, own: RunPodSettings, told: Mapping[str, str] | None = None) -> RunPod:
        """Raises NotAllowed for settings that do not suffice."""
        return cls(RunPodApi(own.key, own.endpoint), Order.of(settings, own, told or {}))

    def start(self, count: int, wake: str, reason: str) -> Sequence[str]:
        """As in the protocol."""
        return [each.id for each in self.launch(count, wake, reason)]

    def launch(self, count: int, wake: str, reason: str = "asked for by hand") -> Sequence[Launched]:
        """The same, and what each costs."""
        offers = self.offers()
        launched: list[Launched] = []
        begun = self._clock()
        self._forget()
        while len(launched) < count and self._clock() - begun < ALL_S:
            try:
                request = partial(self._order.one, wake, len(launched) + 1, reason)
                launched.append(self._one(request, offers))
                self._expect(launched[-1].id, wake)
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
        """As in the protocol; RunPod is not asked again for five seconds.

        RunPod forgets a pod that was deleted, and never tells when one ended: that is when this launcher first noticed.
        """
        with self._lock:
            if self._clock() - self._listed_at >= FRESH_S:
                self._listed = self._api.pods(self._order.prefix)
                self._listed_at = self._clock()
            self._known = _remembered(self._known, self._listed, time.time())
            return list(self._known.values())

    def cancel(self, id: str) -> None:
        """As in the protocol: the pod is stopped, which sends its worker SIGTERM."""
        self._forget()
        found = next((each for each in self.executions() if each.id == id), None)
        if found is None:
            raise NotAllowed(f"there is no worker {id} on RunPod: nightreel pods list")
        if found.state != "ended":
            self._forget()
            stop(self._api, id)

    def _one(self, asking: Callable[[Offer], PodRequest], offers: Sequence[Offer]) -> Launched:
        """One pod, of the first type that can be had. Raises NoMachine with the last type's words."""
        refusal = NoMachine("RunPod has no machine")
        for offer in offers:
            request = asking(offer)
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

    def _expect(self, id: str, wake: str) -> None:
        with self._lock:
            self._known[id] = Execution(id, "starting", time.time(), wake, words=ASKED_FOR)

    def _forget(self) -> None:
        with self._lock:
            self._listed_at = -FRESH_S


def stop(api: RunPodApi, id: str) -> None:
    """Stop a pod; one that is over, or gone, is left alone. Raises LauncherError.

    One in error may cost, and RunPod stops none of these: it is deleted.
    """
    try:
        api.act(id, "stop")
    except NoSuchPod:
        return
    except Unfit:
        pod = api.pod(id)
        if pod.status == "ERROR":
            end(api, id)
        elif pod.is_up:
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


def _remembered(known: Mapping[str, Execution], pods: Sequence[Pod], now: float) -> dict[str, Execution]:
    """What is known of all pods, after a look: of those that are over for an hour."""
    seen = {pod.id: _execution(pod) for pod in pods}
    gone = {id: _missing(each, now) for id, each in known.items() if id not in seen}
    for id, each in {**seen, **gone}.items():
        before = known.get(id)
        noticed = before.ended_at if before and before.ended_at else now if before else None
        seen[id] = each if each.is_up else replace(each, ended_at=noticed)
    return {id: each for id, each in seen.items() if now - (each.ended_at or now) < KEPT_S}


def _missing(each: Execution, now: float) -> Execution:
    """A pod that is not listed: not yet, or not any more."""
    if each.words == ASKED_FOR and now - each.started_at < APPEAR_S:
        return each
    return replace(each, state="ended", words="deleted")


def _execution(pod: Pod) -> Execution:
    gpu = pod.gpu.id if pod.gpu else "no GPU"
    log = "; its log is in RunPod's console" if STATES.get(pod.status, "failed") == "failed" else ""
    return Execution(
        id=pod.id,
        state=STATES.get(pod.status, "failed"),
        started_at=pod.created_at.timestamp(),
        wake=wake_of(pod),
        words=f"{gpu}, {pod.status.lower()}, {pod.cost:g} USD an hour{log}",
    )
