"""What an operator can set for the starting of workers. Each field is a variable with the prefix NIGHTREEL_DISPATCHER_."""

from __future__ import annotations

import math
import zoneinfo
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from .clock import time_of_day
from .wake import Policy


class PolicySettings(BaseSettings):
    """Built once, at the command line, and passed down."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTREEL_DISPATCHER_", frozen=True, extra="forbid", env_ignore_empty=True
    )

    launcher: Literal["auto", "none", "process", "cloudrun", "runpod"] = Field(
        "auto", description="what starts workers; auto: processes of this machine for an SQLite queue, else nothing"
    )
    backends: Path | None = Field(
        None, description="a TOML file of backends, which start workers instead of that launcher, in their order"
    )
    max_video_usd: float = Field(
        0.0,
        ge=0,
        description="most that a video may cost, by its backend's runs, for workers to be started there; 0: no limit",
    )
    ask_every_s: float = Field(
        30.0, ge=1, description="seconds between two looks whether backends are well, while the dispatcher is up"
    )
    project: str = Field("", description="Google Cloud project of the job; empty: that of the queue")
    region: str = Field("", description="region of the Cloud Run job that a worker is")
    job: str = Field("", description="name of the Cloud Run job that a worker is")
    max_workers: int = Field(1, ge=1, le=1000, description="most workers at once")
    max_wait_s: float = Field(
        900.0,
        ge=0,
        description="seconds that a job may wait for a worker to be started; inf: until the nightly hour",
    )
    start_share: float = Field(
        0.1, ge=0.001, le=1, description="a start is worth it when it is at most this share of start and work"
    )
    finish_within_s: float = Field(
        3600.0, gt=0, description="seconds in which all that waits should be done; decides how many workers are started"
    )
    nightly: str = Field("", description="time of day at which whatever waits is rendered, HH:MM; empty: never")
    zone: str = Field("", description="time zone of that hour, such as Europe/Berlin; empty: this machine's own")

    @field_validator("nightly")
    @classmethod
    def _check_nightly(cls, value: str) -> str:
        if value:
            time_of_day(value)
        return value

    @field_validator("zone")
    @classmethod
    def _check_zone(cls, value: str) -> str:
        try:
            if value not in ("", "UTC"):
                zoneinfo.ZoneInfo(value)
        except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError):  # OSError: a folder of zones, such as Europe
            raise ValueError("must be a time zone, such as Europe/Berlin") from None
        return value

    @model_validator(mode="after")
    def _check_patience(self) -> Self:
        if math.isinf(self.max_wait_s) and not self.nightly:
            raise ValueError("jobs would wait for ever: set a nightly hour, or a shorter max_wait_s")
        return self

    def policy(self, start_s: float) -> Policy:
        """start_s: what a cold start takes."""
        return Policy(
            start_s=start_s,
            start_share=self.start_share,
            max_wait_s=self.max_wait_s,
            finish_within_s=self.finish_within_s,
            max_workers=self.max_workers,
            nightly=time_of_day(self.nightly) if self.nightly else None,
            zone=self.zone,
        )
