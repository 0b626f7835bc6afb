"""What can go wrong with jobs and queues.

QueueError
├── InvalidJob          the bytes are not a job, or not one that can be rendered
├── QueueUnavailable    the queue cannot be reached, or its file cannot be used
└── LeaseLost           the delivery belongs to somebody else by now
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class QueueError(Exception):
    """Base of everything that this package raises on purpose."""


@dataclass(frozen=True, slots=True)
class Problem:
    """One mistake in a job or manifest, in words that a user can act on."""

    message: str
    """What was found, what was expected, and the mend."""
    field: str = ""
    """Where in the job: shots[2].motion.zoom; empty for the job as a whole."""
    place: str = ""
    """Where in the file: nightly.yaml:14; empty for a bare message."""

    def __str__(self) -> str:
        return ": ".join(part for part in (self.place, self.field, self.message) if part)


class InvalidJob(QueueError):
    """Raised when a job or manifest does not fit the schema. Carries every problem found, not just the first."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(map(str, self.problems)))


class QueueUnavailable(QueueError):
    """Raised when a queue cannot be opened or reached; the message says what to do."""


class LeaseLost(QueueError):
    """Raised when a delivery is extended or settled after its lease ran out and another worker may hold it."""
