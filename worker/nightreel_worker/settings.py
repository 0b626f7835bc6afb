"""What an operator can set. Each field is an environment variable with the prefix NIGHTREEL_."""

from __future__ import annotations

from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from nightreel_queue.errors import QueueUnavailable


class Settings(BaseSettings):
    """Built once, at the command line, and passed down. Flags of a command win over the environment."""

    model_config = SettingsConfigDict(env_prefix="NIGHTREEL_", frozen=True, extra="forbid", env_ignore_empty=True)

    queue: str = Field("", description="queue's address; empty: an SQLite file inside the store, .nightreel/queue.db")
    store: str = Field("out", description="where results go: a folder, or gs://BUCKET/PREFIX")
    model: str = Field("pocket", description="the model of jobs that name none; its weights must be there")
    models: Path | None = Field(
        None, description="a TOML file of your own models, in the form of the built-in models.toml"
    )
    weights: Path | None = Field(None, description="the folder that holds one folder of weights a model")
    scratch: Path | None = Field(None, description="folder for temporary files; the system's when empty")
    idle_timeout_s: float = Field(0.0, ge=0, description="seconds to wait for more work before leaving an empty queue")
    max_attempts: int = Field(3, ge=1, le=100, description="failures of one job before it is given up")
    retry_delay_s: float = Field(5.0, ge=0, le=600, description="seconds before a failed attempt is tried again")
    stall_s: float = Field(
        120.0, gt=0, description="seconds without progress in a stage before the renderer counts as hung"
    )
    load_timeout_s: float = Field(900.0, gt=0, description="seconds that loading the model may take")
    drain_s: float = Field(8.0, gt=0, description="seconds to leave in after SIGTERM; Cloud Run kills after 10")
    cancel_check_s: float = Field(2.0, gt=0, description="seconds between looks for cancelled jobs")
    x264_preset: Literal["ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow", "slower"] = Field(
        "fast", description="speed against size of the encoder"
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json has Cloud Logging's fields; auto: console on a terminal, else json"
    )

    @property
    def queue_url(self) -> str:
        """The queue's address with its default filled in. Raises QueueUnavailable when there is none."""
        if not self.queue and "://" in self.store:
            raise QueueUnavailable(f"{self.store} is a bucket: name a queue too, --queue pubsub://PROJECT/SUBSCRIPTION")
        return self.queue or f"sqlite:///{quote(self.store)}/.nightreel/queue.db"
