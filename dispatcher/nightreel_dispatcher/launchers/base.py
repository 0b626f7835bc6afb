"""The seam between the dispatcher and whatever can start workers.

LauncherError
├── LauncherUnavailable   it did not answer, or not in time: what it was asked for may have been done
└── Refused               it was not done
    ├── NoneMay           nothing may be started now: when it may be is known
    ├── QuotaExceeded     there are no machines, or too many requests: later, perhaps
    └── NotAllowed        we may not, or what should be started is not there: a person must mend that
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

State = Literal["starting", "running", "ended", "failed"]


class LauncherError(Exception):
    """Base of everything that a launcher raises on purpose; the message says what to do."""


class LauncherUnavailable(LauncherError):
    """Raised when the launcher gave no answer. Whether it did what it was asked for is not known."""


class Refused(LauncherError):
    """Raised when nothing was started, for certain. `retry_s`: seconds for which asking again is of no use."""

    retry_s = 0.0


class NoneMay(Refused):
    """Raised when nothing may be started, by a launcher that keeps its own pauses: `retry_s` is no guess."""

    def __init__(self, message: str, retry_s: float) -> None:
        self.retry_s = retry_s
        super().__init__(message)


class QuotaExceeded(Refused):
    """Raised when there is no quota, or no machine, for a worker now."""

    def __init__(self, message: str, retry_s: float = 60.0) -> None:
        self.retry_s = retry_s
        super().__init__(message)


class NotAllowed(Refused):
    """Raised when starting needs a right, a job or a key that is not there."""


@dataclass(frozen=True, slots=True)
class Execution:
    """A worker as its launcher sees it."""

    id: str
    """The launcher's own name for it: what `cancel` takes, and what a person finds in the launcher's console."""
    state: State
    started_at: float
    """When it was asked for, in seconds since the epoch, by the launcher's clock."""
    wake: str = ""
    """The id that `start` was given; empty for a worker that somebody else started."""
    ended_at: float | None = None
    """When it ended, where the launcher tells."""
    words: str = ""
    """What the launcher says of it: why it failed, where its log is."""

    @property
    def is_up(self) -> bool:
        """Does it work, or will it?"""
        return self.state in ("starting", "running")


class Launcher(Protocol):
    """Starts workers for one queue and one store. Safe to use from several threads.

    Every method raises LauncherError. No call takes longer than about half a minute.
    """

    @property
    def name(self) -> str:
        """Such as cloudrun; for logs and for people."""
        ...

    def start(self, count: int, wake: str, reason: str) -> Sequence[str]:
        """Start workers (`count` from 1), and return their ids: fewer than were asked for when some were refused.

        wake: the id of the decision. Every worker gets it as NIGHTREEL_WAKE_ID, and `executions` tells it again; it gets
        the reason as NIGHTREEL_ROUTE, which the receipts of a backend's workers tell. A call is
        made once for each id; it must not be repeated by the launcher itself where that could start a worker twice.
        Raises Refused only when none was started, LauncherUnavailable when some may have been.
        """
        ...

    def executions(self) -> Sequence[Execution]:
        """All workers that are up, whoever started them, and those that ended in the last hour as far as is known.

        A worker that `start` has returned may be missing for some seconds.
        """
        ...

    def cancel(self, id: str) -> None:
        """End a worker: it is told to leave, and drains. One that has ended is left alone.

        Raises NotAllowed for an id that the launcher does not know.
        """
        ...
