"""What an operator can set. Each field is an environment variable with the prefix NIGHTREEL_."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from pydantic import Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from nightreel_queue.errors import QueueUnavailable
from nightreel_queue.topics import topic_name

from .addresses import trusted_host
from .webhooks import webhook_keys


class Settings(BaseSettings):
    """Built once, at the command line, and passed down. Flags of a command win over the environment."""

    model_config = SettingsConfigDict(
        env_prefix="NIGHTREEL_", frozen=True, extra="forbid", env_ignore_empty=True, hide_input_in_errors=True
    )

    queue: str = Field("", description="queue's address; empty: an SQLite file inside the store, .nightreel/queue.db")
    store: str = Field("out", description="where results go: a folder, or gs://BUCKET/PREFIX")
    model: str = Field("pocket", description="the model of jobs that name none; its weights must be there")
    models: Path | None = Field(
        None, description="a TOML file of your own models, in the form of the built-in models.toml"
    )
    weights: Path | None = Field(None, description="the folder that holds one folder of weights a model")
    precision: Literal["auto", "fp32", "bf16", "bf16-exact", "fp8"] = Field(
        "auto", description="numbers that a model computes in; auto: what fits; an entry of the models file wins"
    )
    gpu_memory_gib: float = Field(0.0, ge=0, description="most GPU memory that a model uses; 0: all of it")
    attention: str = Field("native", description="diffusers' name of an attention backend, for a GPU")
    compile: Literal["off", "cached", "on"] = Field(
        "off", description="whether transformers are compiled, on a GPU; cached: only what a compile cache holds"
    )
    scratch: Path | None = Field(None, description="folder for temporary files; the system's when empty")
    price: str = Field(
        "local", description="what this machine costs: a name from the list of prices, or US dollars an hour"
    )
    prices: Path | None = Field(
        None, description="a TOML file of your own prices, in the form of the built-in prices.toml"
    )
    machine: str = Field("", description="this machine's id, which the run's report names; set by whoever starts it")
    idle_timeout_s: float | None = Field(
        None,
        ge=0,
        description="seconds to wait for more work before leaving an empty queue; empty: the idle rule decides",
    )
    max_wait_s: float = Field(
        900.0,
        ge=0,
        description="seconds that a job may wait for a worker to be started; 0: workers idle to save starts",
    )
    max_cost_usd: float = Field(
        0.0,
        ge=0,
        description="most that one run may cost, from its start to its exit, at the machine's price; 0: no limit",
    )
    monthly_usd: float = Field(
        0.0,
        ge=0,
        description="most that all runs of the store may cost in a month (UTC) together, each at its machine's price; 0: no"
        " limit",
    )
    max_runtime_s: float = Field(
        0.0, ge=0, description="seconds that one run may last, from its start to its exit; 0: no limit"
    )
    max_jobs: int = Field(0, ge=0, description="jobs that one run may end, made or failed; 0: no limit")
    task_timeout_s: float = Field(
        0.0,
        ge=0,
        description="seconds after which the platform kills the worker, such as Cloud Run's task timeout; 0: never",
    )
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
    input_buckets: str = Field(
        "", description="buckets that jobs may take pictures and sounds from, separated by commas"
    )
    input_https: bool = Field(False, description="whether jobs may take pictures and sounds from the web")
    input_max_mb: float = Field(200.0, gt=0, description="size of all pictures and sounds of one job together")
    input_timeout_s: float = Field(60.0, gt=0, description="seconds that fetching a job's pictures and sounds may take")
    results_topic: str = Field(
        "", description="where every receipt of this worker is published, pubsub://PROJECT/TOPIC; empty: nowhere"
    )
    notify_topics: str = Field(
        "",
        description="topics that jobs may name in notify.topic by the last part, pubsub://PROJECT/TOPIC, separated by"
        " commas",
    )
    webhook_secret: SecretStr | None = Field(
        None,
        description="signs webhooks, whsec_ and base64; two, separated by a comma, while one is replaced; without it,"
        " jobs may name no webhook",
    )
    trusted_hosts: str = Field(
        "",
        description="hosts that may be asked although they are private or speak plain http, HOST or HOST:PORT,"
        " separated by commas",
    )
    wake_id: str = Field(
        "", description="the start that a worker belongs to, which its report names; set by whoever starts it"
    )
    backend: str = Field(
        "", description="the backend that a worker belongs to, which its receipts name; set by whoever starts it"
    )
    route: str = Field("", description="why that backend was chosen, in words, for its receipts; set likewise")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="least level that is logged")
    log_format: Literal["auto", "json", "console"] = Field(
        "auto", description="json has Cloud Logging's fields; auto: console on a terminal, else json"
    )
    metrics: Literal["none", "prometheus", "otlp", "gcp"] = Field(
        "none", description="where the run's metrics go; the OTEL_ variables say the rest"
    )

    def listed(self, field: str) -> tuple[str, ...]:
        """A setting that holds several texts, separated by commas."""
        return _parts(str(getattr(self, field)))

    @field_validator("results_topic", "notify_topics")
    @classmethod
    def _check_topics(cls, value: str, info: ValidationInfo) -> str:
        if info.field_name == "results_topic" and len(_parts(value)) > 1:
            raise ValueError("must be one topic: name the others in NIGHTREEL_NOTIFY_TOPICS")
        for part in _parts(value):
            if not re.fullmatch(r"pubsub://[^/?#\s]+/[^/?#\s]+", part):
                raise ValueError("must be pubsub://PROJECT/TOPIC")
        names = [topic_name(part) for part in _parts(value)]
        if len(set(names)) < len(names):
            raise ValueError("two topics have the same last part, by which jobs name them")
        return value

    @field_validator("webhook_secret")
    @classmethod
    def _check_secret(cls, value: SecretStr | None) -> SecretStr | None:
        webhook_keys(value.get_secret_value() if value else "")
        return value

    @property
    def tuning(self) -> dict[str, object]:
        """What applies to models whose entry does not say otherwise."""
        return {
            "precision": self.precision,
            "gpu_memory_gib": self.gpu_memory_gib,
            "attention": self.attention,
            "compile": self.compile,
        }

    @property
    def place(self) -> dict[str, str]:
        """Where a worker belongs, as its report says it."""
        return {"wake": self.wake_id, "backend": self.backend, "model": self.model}

    @field_validator("trusted_hosts")
    @classmethod
    def _check_hosts(cls, value: str) -> str:
        for part in _parts(value):
            trusted_host(part)
        return value

    @property
    def queue_url(self) -> str:
        """The queue's address with its default filled in. Raises QueueUnavailable when there is none."""
        if not self.queue and "://" in self.store:
            raise QueueUnavailable(f"{self.store} is a bucket: name a queue too, --queue pubsub://PROJECT/SUBSCRIPTION")
        return self.queue or f"sqlite:///{quote(self.store)}/.nightreel/queue.db"


def _parts(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())
