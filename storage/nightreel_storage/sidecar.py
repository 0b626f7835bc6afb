"""What the folder store writes down about an object, and what it finds of it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, ValidationError

from .base import ABSENT, Entry
from .errors import StoreUnavailable

SUFFIX = "~.json"  # no name has a "~" in it, so that no folder of sidecars is ever called like a sidecar


class Sidecar(BaseModel):
    """The entry of an object. Its content is at `staged` until it has been moved to its place."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    version: Literal[1] = 1
    generation: int
    replaces: int
    """The generation that this put found; ABSENT when it created the object."""
    size_bytes: int
    sha256: str
    content_type: str
    metadata: dict[str, str]
    staged: str
    """Name of a file in the store's folder of staged files."""

    def entry(self, name: str) -> Entry:
        put_at = _time(self.generation)
        return Entry(name, self.generation, self.size_bytes, self.sha256, self.content_type, self.metadata, put_at)


@dataclass(frozen=True, slots=True)
class Found:
    """A data file as it lies there; sha256 when it has been read."""

    size_bytes: int
    mtime_ns: int
    sha256: str | None = None

    def is_of(self, sidecar: Sidecar) -> bool:
        return self.size_bytes == sidecar.size_bytes and self.sha256 in (None, sidecar.sha256)

    def placed_by_hand(self, name: str, sidecar: Sidecar | None) -> Entry:
        older = sidecar.generation if sidecar else ABSENT
        return Entry(
            name, max(self.mtime_ns, older + 1), self.size_bytes, sha256="", put_at=_time(max(self.mtime_ns, 0))
        )


def _time(ns: int) -> dt.datetime:
    """Generations are nanoseconds since the epoch, as modification times are."""
    return dt.datetime.fromtimestamp(ns / 1e9, dt.UTC)


def read_sidecar(path: Path) -> Sidecar | None:
    """The sidecar at `path`, if there is one. Raises StoreUnavailable when it makes no sense."""
    try:
        return Sidecar.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValidationError as error:
        raise StoreUnavailable(
            f"{path} is damaged, or of a newer Nightreel: move it away, and the file that it describes counts as"
            " placed by hand"
        ) from error
