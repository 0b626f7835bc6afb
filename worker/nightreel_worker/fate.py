"""What becomes of a delivery when its job ends without a video: the one place where errors turn into settlements."""

from __future__ import annotations

from enum import Enum

from nightreel_pipelines.errors import Cancelled, SourceAway, Unrenderable
from nightreel_queue.errors import InvalidJob, LeaseLost, QueueUnavailable
from nightreel_storage.errors import Conflict, NotFound, StoreError, StoreUnavailable
from nightreel_storage.receipts import AlreadyEnded

from .errors import (
    Forbidden,
    GaveUp,
    Missing,
    NameTaken,
    OverLimit,
    PassedOn,
    Preempted,
    Refused,
    RendererUnavailable,
    TooLarge,
)


class Fate(Enum):
    """How a delivery is settled."""

    ENDED = "the round has a receipt, from somebody else or from before: ack"
    REJECT = "no job at all: a record of the rejection, dead letter"
    FAIL = (
        "trying again cannot help: failed receipt, dead letter. It must leave the queue, or it would keep a GPU awake"
    )
    RETRY = "this attempt failed, another may not: back to the queue, later; counts towards the limit"
    POSTPONE = "what the job needs does not answer now: back to the queue, later; counts for nothing"
    PASS_ON = "a stand-in cannot make it, its own model may: recorded, back to the queue, later; counts for nothing"
    HAND_BACK = "the job did nothing wrong: back to the queue at once; counts for nothing"
    FORGET = "somebody else has the delivery: touch nothing"


def fate_of(error: Exception) -> Fate:
    """The fate that an error leads to. What is not known is taken for a passing trouble of this attempt."""
    match error:
        case AlreadyEnded() | Cancelled():
            return Fate.ENDED
        case InvalidJob():
            return Fate.REJECT
        case Unrenderable() | NameTaken() | GaveUp() | Refused() | Forbidden() | Missing() | TooLarge() | OverLimit():
            return Fate.FAIL
        case Preempted() | RendererUnavailable() | StoreUnavailable() | QueueUnavailable():
            return Fate.HAND_BACK
        case SourceAway():
            return Fate.POSTPONE
        case PassedOn():
            return Fate.PASS_ON
        case LeaseLost():
            return Fate.FORGET
        case StoreError() if not isinstance(error, NotFound | Conflict):
            return Fate.REJECT  # a record that nobody can read will not mend itself
        case _:
            return Fate.RETRY


def ends_run(error: Exception) -> bool:
    """Is the error one that every other job would meet as well?"""
    return isinstance(error, RendererUnavailable | StoreUnavailable | QueueUnavailable)
