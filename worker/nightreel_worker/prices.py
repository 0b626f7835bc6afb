"""Prices by name: what a machine costs while a worker runs on it, or a service for a second of video."""

from __future__ import annotations

import datetime as dt
import difflib
import tomllib
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from nightreel_pipelines.errors import SourceUnavailable
from nightreel_pipelines.models import ModelSpec

from .errors import BadPrice

_PARTS = ("gpu_usd_per_s", "vcpus", "vcpu_usd_per_s", "memory_gib", "gib_usd_per_s")


class Price(BaseModel):
    """One entry of prices.toml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    summary: str = ""
    dated: dt.date | None = None
    """When the list was read that it was taken from."""
    usd_per_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    """Of the whole machine."""
    usd_per_video_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    gpu_usd_per_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    vcpus: float = Field(0.0, ge=0, allow_inf_nan=False)
    vcpu_usd_per_s: float = Field(0.0, ge=0, allow_inf_nan=False)
    memory_gib: float = Field(0.0, ge=0, allow_inf_nan=False)
    gib_usd_per_s: float = Field(0.0, ge=0, allow_inf_nan=False)

    @model_validator(mode="after")
    def _check(self) -> Self:
        said = [
            bool(self.model_fields_set.intersection(names)) for names in (("usd_per_s",), _PARTS, ("usd_per_video_s",))
        ]
        if sum(said) != 1:
            raise ValueError("give one of the three: usd_per_s, its parts, or usd_per_video_s")
        return self

    @property
    def of_a_service(self) -> bool:
        """Paid by the second of video, not by the second of a machine."""
        return "usd_per_video_s" in self.model_fields_set

    def cost_usd(self, seconds: float, video_s: float) -> float:
        """Of so many seconds of the machine, or of the service's video."""
        return seconds * self.machine_usd_per_s + video_s * self.usd_per_video_s

    @property
    def machine_usd_per_s(self) -> float:
        """US dollars for each second from the worker's start to its exit."""
        parts = self.gpu_usd_per_s + self.vcpus * self.vcpu_usd_per_s + self.memory_gib * self.gib_usd_per_s
        return self.usd_per_s + parts

    @property
    def machine_usd_per_hour(self) -> float:
        return 3600 * self.machine_usd_per_s


def load_prices(extra: Path | None = None) -> dict[str, Price]:
    """Nightreel's own prices, then those of the operator's file. Raises BadPrice with the mend."""
    prices = dict(_builtin())
    if extra is not None:
        try:
            prices |= _parse(extra.read_text(encoding="utf-8"))
        except (OSError, ValueError) as exc:
            raise BadPrice(f"cannot use prices file {extra}: {exc}") from exc
    return prices


def find_price(text: str, extra: Path | None = None) -> Price:
    """An entry's name, or a number of US dollars an hour. Raises BadPrice."""
    prices = load_prices(extra)
    if text in prices:
        return prices[text]
    try:
        return Price(name=f"{float(text):g} USD an hour", usd_per_s=float(text) / 3600)
    except ValueError:
        near = difflib.get_close_matches(text, prices, 1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise BadPrice(
            f"no price {text!r}: {hint}Give US dollars an hour, or one of {', '.join(sorted(prices))}"
        ) from None


def machine_price(text: str, extra: Path | None = None) -> Price:
    """The same for a worker. Raises BadPrice for a price that is no machine's."""
    price = find_price(text, extra)
    if price.of_a_service:
        raise BadPrice(
            f"price {text}: is a service's, by the second of video; a worker needs its machine's (NIGHTREEL_PRICE)"
        )
    return price


def clip_micro_usd(spec: ModelSpec, seconds: int, prices: Mapping[str, Price]) -> int:
    """What so many seconds of a model's clips cost, in millionths of a dollar. Raises SourceUnavailable without a price."""
    price = prices.get(spec.clip_price)
    if price is None or not price.of_a_service:
        raise SourceUnavailable(
            f"model {spec.name}: clip_price {spec.clip_price!r} is no service's in the list of prices: write an entry with"
            " usd_per_video_s into the file of NIGHTREEL_PRICES"
        )
    return round(seconds * price.usd_per_video_s * 1e6)


@cache
def _builtin() -> dict[str, Price]:
    return _parse(files("nightreel_worker").joinpath("prices.toml").read_text(encoding="utf-8"))


def _parse(text: str) -> dict[str, Price]:
    """Raises ValueError."""
    found = {}
    for name, table in tomllib.loads(text).items():
        if not isinstance(table, dict):
            raise ValueError(f"{name} stands outside a table: write [NAME] above it")  # noqa: TRY004  # of the file
        try:
            found[name] = Price.model_validate(table | {"name": name})
        except ValidationError as exc:
            first = exc.errors()[0]
            place = ".".join(map(str, (name, *first["loc"])))
            raise ValueError(f"{place}: {first['msg'].removeprefix('Value error, ')}") from exc
    return found
