"""The operator's backends, in their order: a TOML file, or one for this machine's workers where there is none."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from nightreel_pipelines.models import ModelSpec, no_model
from nightreel_worker.errors import BadPrice
from nightreel_worker.prices import load_prices
from nightreel_worker.settings import Settings

from .policy_settings import PolicySettings

LAUNCHERS = tuple(kind for kind in get_args(PolicySettings.model_fields["launcher"].annotation) if kind != "auto")
OWN = (
    "QUEUE",
    "STORE",
    "MODEL",
    "PRICE",
    "BACKEND",
    "ROUTE",
    "WAKE_ID",
)  # a worker's settings that follow from elsewhere
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]*")


class BadBackends(Exception):
    """Raised for a file of backends that cannot be used; says where it is wrong, and the mend."""


class Backend(BaseModel):
    """One entry of the file."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")
    launcher: str = Field(description="what starts its workers; none: somebody else does")
    model: str = Field(description="what its workers draw with, of models.toml or NIGHTREEL_MODELS")
    price: str = Field(
        "local", description="what a worker costs, of prices.toml or NIGHTREEL_PRICES, or US dollars an hour"
    )
    max_workers: int = Field(1, ge=1, le=1000, description="most of its workers at once")
    timeout_s: float = Field(
        600.0,
        gt=0,
        description="seconds from a start until its worker has left its first report; then it counts as failed",
    )
    retries: int = Field(1, ge=0, le=100, description="failures in a row that are borne before it is left alone")
    pause_s: float = Field(
        30.0, gt=0, description="seconds for which it is left alone then; doubles up to half an hour"
    )
    health: str = Field(
        "",
        pattern=r"^(|none|https?://\S+)$",
        description="address that answers while its source is well; none: only the launcher is asked; empty: ComfyUI's servers are, where it is the source",
    )
    project: str = Field("", description="of the Cloud Run job, where it is not NIGHTREEL_DISPATCHER_PROJECT")
    region: str = Field("", description="likewise, NIGHTREEL_DISPATCHER_REGION")
    job: str = Field("", description="likewise, NIGHTREEL_DISPATCHER_JOB")
    env: dict[str, Annotated[str, Field(max_length=4000)]] = Field({}, description="variables for its workers")

    @field_validator("launcher")
    @classmethod
    def _check_launcher(cls, value: str) -> str:
        if value not in LAUNCHERS:
            raise ValueError(f"no launcher {value[:40]!r}; there are {', '.join(LAUNCHERS)}")
        return value

    @field_validator("env")
    @classmethod
    def _check_env(cls, value: dict[str, str]) -> dict[str, str]:
        for name in value:
            if not _VARIABLE.fullmatch(name):
                raise ValueError(f"{name[:40]} is no name of a variable: write it in capitals")
            if name in {f"NIGHTREEL_{own}" for own in OWN}:
                raise ValueError(f"{name} follows from the entry and the dispatcher's own settings: leave it out")
        return value

    @property
    def borne(self) -> int:
        """Failures in a row that open its breaker."""
        return self.retries + 1


def load_backends(path: Path, models: Mapping[str, ModelSpec], prices: Path | None) -> tuple[Backend, ...]:
    """In the file's order. Raises BadBackends."""
    try:
        found = tuple(_backend(name, table) for name, table in tomllib.loads(path.read_text(encoding="utf-8")).items())
        _check_names(found, models, prices)
    except (OSError, ValueError, BadPrice) as exc:
        raise BadBackends(f"cannot use {path}: {exc}") from exc
    if not found:
        raise BadBackends(f"cannot use {path}: no backend in it; write [local] with launcher and model")
    return found


def only_backend(settings: Settings, launcher: str, max_workers: int) -> Backend:
    """What there is without a file."""
    return Backend(name="local", launcher=launcher, model=settings.model, price=settings.price, max_workers=max_workers)


def _backend(name: str, table: Any) -> Backend:
    """Raises ValueError; no value of `env` stands in it, which may be secret."""
    if not isinstance(table, dict):
        raise ValueError(f"{name} stands outside a table: write [NAME] above it")  # noqa: TRY004  # the file is wrong, not the caller
    try:
        return Backend.model_validate(table | {"name": name})
    except ValidationError as exc:
        first = exc.errors(include_input=False)[0]
        place = ".".join(map(str, (name, *first["loc"])))
        known = f"; there are {', '.join(Backend.model_fields)}" if first["type"] == "extra_forbidden" else ""
        raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}{known}") from None


def _check_names(backends: tuple[Backend, ...], models: Mapping[str, ModelSpec], prices: Path | None) -> None:
    known = load_prices(prices)
    for backend in backends:
        if backend.model not in models:
            raise ValueError(f"{backend.name}.model: {no_model(backend.model, models)}")
        if backend.price not in known and not _is_number(backend.price):
            raise ValueError(f"{backend.name}.price: no price {backend.price!r}; there are {', '.join(sorted(known))}")


def _is_number(text: str) -> bool:
    try:
        return float(text) >= 0
    except ValueError:
        return False
