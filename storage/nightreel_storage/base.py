"""The seam between Nightreel and whatever keeps its results."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from .errors import BadName

ABSENT = 0  # the generation of an object that does not exist: put(..., generation=ABSENT) creates, or conflicts

_SEGMENT = re.compile(r"[A-Za-z0-9_.\-+=@ ]{1,200}")


@dataclass(frozen=True, slots=True)
class Entry:
    """What a store knows about one object."""

    name: str
    """Segments joined by "/", such as nightly-3fa1/harbour.mp4."""
    generation: int
    """Changes with every put of this name; never 0."""
    size_bytes: int
    sha256: str
    """Of the content, hex; empty for an object that was not put by Nightreel."""
    content_type: str = "application/octet-stream"
    metadata: Mapping[str, str] = field(default_factory=dict)
    put_at: dt.datetime | None = field(default=None, compare=False)
    """When this generation was put, by the store's own clock (UTC)."""


class Store(Protocol):
    """Named objects with metadata and generations. Safe to use from several threads and processes.

    Every method raises BadName for a name that `check_name` refuses, and StoreUnavailable when the store cannot be
    used at all. An object appears whole or not at all; `put` is the only way to change one, `delete` the only way to
    remove one.
    """

    def put(
        self,
        name: str,
        source: bytes | Path,
        *,
        generation: int = ABSENT,
        content_type: str = "application/octet-stream",
        metadata: Mapping[str, str] | None = None,
        tick: Callable[[], None] = lambda: None,
    ) -> Entry:
        """Write an object if it still is at `generation` (ABSENT: if there is none), and return its new entry.

        Raises Conflict when it is not, StoreFull when there is no room. When it returns, the object is durable.
        `tick` is called while bytes go over, never after the object has appeared; what it raises ends the put (no
        OSError, which would pass for trouble of the store's).
        """
        ...

    def head(self, name: str) -> Entry | None:
        """The object's entry, or None when there is no such object."""
        ...

    def get(self, name: str) -> tuple[bytes, Entry]:
        """The object's content and the entry that belongs to exactly this content.

        Raises NotFound, and Damaged where the store checks what it reads.
        """
        ...

    def fetch(self, name: str, path: Path) -> Entry:
        """Copy the object's content to a new local file. Raises as `get` does, and leaves no file then."""
        ...

    def list(self, prefix: str = "") -> Iterator[Entry]:
        """Entries of the objects whose names start with `prefix`, in the order of their names."""
        ...

    def delete(self, name: str, *, generation: int) -> None:
        """Remove an object if it still is at `generation`. Raises Conflict when it is not, or is gone already."""
        ...

    def url(self, name: str) -> str:
        """Where a person finds the object: a path or an address."""
        ...


def check_name(name: str) -> str:
    """Return `name` if every store can keep it and it cannot leave its root. Raises BadName."""
    segments = name.split("/")
    if len(name) > 800 or not all(
        _SEGMENT.fullmatch(part) and part.strip(". ") and part == part.strip() for part in segments
    ):
        raise BadName(
            f"{name[:120]!r} cannot name an object: use letters, digits and _ . - + = @, joined by single '/'"
        )
    return name
