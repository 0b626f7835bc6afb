"""What an operator can set for pods on RunPod. Each field is a variable with the prefix NIGHTREEL_RUNPOD_."""

from __future__ import annotations

import os
import re
from typing import Literal, Self
from urllib.parse import urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .base import NotAllowed

ENDPOINT = "https://api.runpod.io"
KEY = "RUNPOD_API_KEY"
"""Where RunPod's own tools look for a key; in a pod RunPod puts one there that is for this pod alone."""
_SECRET = re.compile(r"\{\{ *RUNPOD_SECRET_\w+ *\}\}")


class RunPodSettings(BaseSettings):
    """Built once, at the command line, and passed down."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTREEL_RUNPOD_", frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    api_key: SecretStr | None = Field(None, description="RunPod's API key; empty: that in RUNPOD_API_KEY")
    image: str = Field("", description="the worker's image, as a registry has it: REGISTRY/NAME:TAG")
    registry: str = Field("", description="RunPod's id of the credential that opens the image's registry")
    gpus: str = Field(
        "NVIDIA GeForce RTX 3090",
        description="RunPod's ids of the GPUs that will do, the best first, separated by commas",
    )
    spot: bool = Field(
        False, description="whether pods are spot pods, which RunPod may take away with five seconds' notice"
    )
    bid_usd_per_hour: float = Field(0.0, ge=0, description="what a spot pod bids; 0: the least that RunPod takes")
    max_usd_per_hour: float = Field(0.0, ge=0, description="a pod that costs more is not started; 0: no limit")
    cloud: Literal["secure", "community"] = Field("secure", description="whose machines: RunPod's own, or others'")
    data_centers: str = Field("", description="RunPod's ids of the data centers that will do, separated by commas")
    volume: str = Field("", description="RunPod's id of the network volume that holds the weights")
    mount: str = Field("/weights", description="where pods find the network volume, one folder of weights a model")
    disk_gb: int = Field(30, ge=1, description="size of a pod's own disk, which holds the image and temporary files")
    google_key: SecretStr | None = Field(
        None,
        description="{{ RUNPOD_SECRET_name }} of the secret that holds a service account's key, for buckets and Pub/Sub",
    )
    env: str = Field("", description="more variables for pods: NAME=VALUE, separated by commas")
    ready_timeout_s: float = Field(900.0, gt=0, description="seconds in which a pod's worker must be at work")
    silent_s: float = Field(600.0, gt=0, description="seconds without a sign of its worker after which a pod is swept")
    endpoint: str = Field(ENDPOINT, description="RunPod's API; https, or a server of this machine")

    @property
    def key(self) -> str:
        """Raises NotAllowed without one."""
        key = self.api_key.get_secret_value() if self.api_key else os.environ.get(KEY, "")
        if not key:
            raise NotAllowed("RunPod needs a key: make one in its console, and set NIGHTREEL_RUNPOD_API_KEY")
        return key

    def listed(self, field: Literal["gpus", "data_centers", "env"]) -> tuple[str, ...]:
        """A setting that holds several texts, separated by commas."""
        return tuple(part.strip() for part in str(getattr(self, field)).split(",") if part.strip())

    @field_validator("google_key")
    @classmethod
    def _check_google_key(cls, value: SecretStr | None) -> SecretStr | None:
        if value and not _SECRET.fullmatch(value.get_secret_value()):
            raise ValueError(
                "must be {{ RUNPOD_SECRET_name }}: make a secret of the key in RunPod's console; variables of pods are"
                " open to all who see the account"
            )
        return value

    @field_validator("env")
    @classmethod
    def _check_env(cls, value: str) -> str:
        for part in filter(None, map(str.strip, value.split(","))):
            if not re.fullmatch(r"[A-Za-z_]\w*=.*", part):
                raise ValueError(f"must be NAME=VALUE, separated by commas; found {part.partition('=')[0]!r}")
        return value

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.volume and self.cloud == "community":
            raise ValueError("volume and cloud: network volumes are in the secure cloud alone")
        return self

    @field_validator("endpoint")
    @classmethod
    def _check_endpoint(cls, value: str) -> str:
        return checked_endpoint(value)


def checked_endpoint(value: str) -> str:
    """Raises ValueError for an address that a key must not be sent to."""
    parts = urlsplit(value)
    if not parts.hostname or (parts.scheme != "https" and (parts.scheme, parts.hostname) != ("http", "127.0.0.1")):
        raise ValueError("must be https://HOST, or http://127.0.0.1:PORT")
    return value.rstrip("/")
