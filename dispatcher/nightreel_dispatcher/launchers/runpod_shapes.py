"""What RunPod tells of pods and is told of them: the shapes of its REST v2, as its OpenAPI document has them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field

MIN_CUDA = "12.2"  # that a host's driver must know: the image's, as its Dockerfile says
_OVER = ("EXITED", "TERMINATED")


class _Answer(BaseModel):
    model_config = ConfigDict(frozen=True, extra="ignore", populate_by_name=True)


class GpuUse(_Answer):
    """Of one GPU, in percent."""

    util: int | None = None
    memory_util: int | None = Field(None, alias="memoryUtil")


class Runtime(_Answer):
    gpus: tuple[GpuUse, ...] = ()


class Gpu(_Answer):
    id: str


class Pod(_Answer):
    """A pod as RunPod tells of it."""

    id: str
    name: str
    status: str
    """PROVISIONING, STARTING, RUNNING, EXITED, ERROR or TERMINATED."""
    cost: float = 0.0
    """US dollars an hour, now: 0 once it is over."""
    gpu: Gpu | None = None
    created_at: AwareDatetime = Field(alias="createdAt")
    started_at: AwareDatetime | None = Field(None, alias="startedAt")
    runtime: Runtime | None = None

    @property
    def is_up(self) -> bool:
        """Is it paid for? A status that we do not know counts as that."""
        return self.status not in _OVER

    @property
    def since(self) -> float:
        """When it began to cost, in seconds since the epoch, by RunPod's clock."""
        return (self.started_at or self.created_at).timestamp()

    def paid_usd(self, now: float) -> float:
        """Since it started last, at what it costs now."""
        return max(0.0, now - self.since) / 3600 * self.cost


@dataclass(frozen=True, slots=True)
class Offer:
    """A type of GPU at its price."""

    gpu: str
    usd_per_hour: float
    in_stock: bool = True


@dataclass(frozen=True, slots=True)
class PodRequest:
    """What a pod shall be."""

    name: str
    image: str
    args: str
    gpu: str
    cloud: Literal["SECURE", "COMMUNITY"]
    disk_gb: int
    env: Mapping[str, str]
    data_centers: Sequence[str] = ()
    registry: str = ""
    volume: str = ""
    mount: str = ""

    def as_v2(self) -> dict[str, Any]:
        body: dict[str, Any] = {
            "name": self.name,
            "image": self.image,
            "args": self.args,
            "cloud": self.cloud,
            "gpu": {"id": self.gpu, "count": 1, "minCudaVersion": MIN_CUDA},
            "disk": self.disk_gb,
            "env": dict(self.env),
        }
        if self.data_centers:
            body["dataCenterIds"] = list(self.data_centers)
        if self.registry:
            body["registry"] = self.registry
        if self.volume:
            body["mounts"] = {"network": [{"volumeId": self.volume, "path": self.mount}]}
        return body

    def as_spot(self, bid_usd: float) -> dict[str, Any]:
        """The input of podRentInterruptable, which knows one data center at most."""
        body: dict[str, Any] = {
            "name": self.name,
            "imageName": self.image,
            "dockerArgs": self.args,
            "cloudType": self.cloud,
            "gpuTypeId": self.gpu,
            "gpuCount": 1,
            "bidPerGpu": bid_usd,
            "containerDiskInGb": self.disk_gb,
            "volumeInGb": 0,
            "env": [{"key": name, "value": value} for name, value in self.env.items()],
        }
        if self.data_centers:
            body["dataCenterId"] = self.data_centers[0]
        if self.registry:
            body["containerRegistryAuthId"] = self.registry
        if self.volume:
            body |= {"networkVolumeId": self.volume, "volumeMountPath": self.mount}
        return body


@dataclass(frozen=True, slots=True)
class Made:
    """A pod that was made just now."""

    id: str
    usd_per_hour: float
    """What it costs; 0 where RunPod does not say so yet."""
