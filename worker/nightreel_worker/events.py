"""What a run tells whoever watches it: the progress display, the log, a test."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from nightreel_storage.receipts import Receipt


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery turned out to be a job that shall be rendered."""

    batch: str
    job: str
    keyframes: int
    reused: int
    """Keyframes that the store already has."""
    frames: int
    alone: bool
    """Rendered with nothing beside it, because an earlier attempt ended badly."""


@dataclass(frozen=True, slots=True)
class Advanced:
    """A stage of a job got on."""

    batch: str
    job: str
    stage: Literal["loading", "keyframes", "film", "commit"]
    done: int = 0
    """Keyframes or frames."""
    note: str = ""
    """How far loading is, in words; empty at its begin."""


@dataclass(frozen=True, slots=True)
class Ended:
    """A job round has its receipt."""

    receipt: Receipt
    earlier: bool
    """True when it had ended before this delivery came: nothing was rendered."""


@dataclass(frozen=True, slots=True)
class Returned:
    """A delivery went back to the queue."""

    batch: str
    job: str
    reason: str
    delay_s: float
    """Seconds until it comes back."""
    passed: bool = False
    """It is left to other backends: this run would only pass it on again."""


@dataclass(frozen=True, slots=True)
class Rejected:
    """A message was no job, or one whose name is taken; it is in the dead letters."""

    reason: str
    record: str
    """Name of the record in the store."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """This worker has nothing in hand, and stays for messages that come back; told once each time."""

    leased: int
    """Held by other workers, or by ones that were killed, until their leases end."""
    delayed: int
    next_s: float | None
    """Seconds until the first of them can be claimed."""


Event = Claimed | Advanced | Ended | Returned | Rejected | Waiting
Watch = Callable[[Event], None]
"""Called from several threads."""
