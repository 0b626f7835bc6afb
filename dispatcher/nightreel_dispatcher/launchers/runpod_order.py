"""What pods shall be, by settings. A pod's name tells whose it is: the store's mark, how it is paid, the wake id, a number."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from nightreel_worker.settings import Settings

from .base import NotAllowed
from .runpod_settings import ENDPOINT, RunPodSettings
from .runpod_shapes import Offer, Pod, PodRequest

GOOGLE_KEY = "NIGHTREEL_RUNPOD_GOOGLE_KEY"
SPOT_DRAIN_S = 4.0  # RunPod kills a spot pod five seconds after SIGTERM
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

    def one(self, wake: str, number: int, reason: str, offer: Offer) -> PodRequest:
        name = f"{self.prefix}{'spot' if self.spot else 'pod'}-{wake}-{number}"
        told = {"NIGHTREEL_WAKE_ID": wake, "NIGHTREEL_ROUTE": reason, "NIGHTREEL_PRICE": f"{offer.usd_per_hour:g}"}
        return replace(self.request, name=name, gpu=offer.gpu, env={**self.request.env, **told})


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
