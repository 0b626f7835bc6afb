"""The seam between Nightreel and whatever holds waiting work."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol, Self

from .job import Job


@dataclass(frozen=True, slots=True)
class Message:
    """What is published: the bytes of a job, and what a queue must know without reading them."""

    body: bytes
    """A job as UTF-8 JSON; at most 10 MB."""
    key: str = ""
    """Names this round of this job. A queue may drop a message while one of the same key is still waiting or leased."""
    attributes: Mapping[str, str] = field(default_factory=dict)
    """Travel with the body: `round`, counted from 1 (a missing one means 1)."""
    urgent: bool = False

    @classmethod
    def of(cls, job: Job, round_: int = 1) -> Self:
        """The message that asks for `round_` of a resolved job (one that has its batch and id)."""
        key = f"{job.batch}/{job.id}/{round_}"
        return cls(job.to_json().encode(), key, {"round": str(round_)}, job.priority == "urgent")


@dataclass(frozen=True, slots=True)
class Backlog:
    """How much work a queue holds. A queue that cannot count exactly says what it knows."""

    ready: int = 0
    """Messages that a pull would get now."""
    delayed: int = 0
    """Messages that come back later."""
    leased: int = 0
    """Messages that some worker holds."""
    dead: int = 0
    """Dead letters."""
    next_ready_s: float | None = None
    """Seconds until the next delayed or leased message could be pulled; None when there is none."""
    oldest_s: float | None = 0.0
    """Seconds since the oldest ready message was published, 0 when none is ready; None: this queue cannot say what is."""
    urgent: int = 0
    """Ready messages that are urgent."""

    @property
    def total(self) -> int:
        """Messages that are not dead."""
        return self.ready + self.delayed + self.leased


class Delivery(Protocol):
    """A message as received: leased to one worker until its ack deadline.

    Exactly one of `ack`, `release` and `dead_letter` settles a delivery. Every method raises LeaseLost when the lease
    is known to have passed to somebody else, and QueueUnavailable when the queue cannot be reached.
    """

    @property
    def body(self) -> bytes: ...

    @property
    def attributes(self) -> Mapping[str, str]: ...

    @property
    def delivery_attempt(self) -> int:
        """How often the message has been delivered, this time included (from 1)."""
        ...

    @property
    def published_at(self) -> dt.datetime:
        """When the message was first published (UTC); redelivery does not change it."""
        ...

    @property
    def lease_s(self) -> float:
        """Seconds that a lease lasts from the pull, and from each `extend`."""
        ...

    def extend(self) -> None:
        """Renew the lease: it ends `lease_s` from now."""
        ...

    def ack(self) -> None:
        """The message is dealt with: it never comes back."""
        ...

    def release(self, delay_s: float = 0.0) -> None:
        """Give the message back (nack): it can be pulled again, by anyone, after `delay_s` (at most 600)."""
        ...

    def dead_letter(self, reason: str) -> None:
        """Move the message to the dead letters, with the reason; it is not delivered again."""
        ...


class Queue(Protocol):
    """Waiting work, delivered at least once, to one worker at a time. Safe to use from several threads."""

    @property
    def empty_after_s(self) -> float:
        """For how long several pulls must have brought nothing before the queue counts as empty; 0: one pull proves it."""
        ...

    def publish(self, messages: Sequence[Message]) -> None:
        """Add messages, all or none where the queue can promise that. Raises QueueUnavailable."""
        ...

    def pull(self, wait_s: float = 0.0) -> Delivery | None:
        """Lease the next message: urgent ones first, then oldest first. None when nothing came within `wait_s`.

        Pub/Sub promises neither: old messages come first as a rule, and None does not prove that nothing waits.
        """
        ...

    def backlog(self) -> Backlog:
        """Count what is waiting."""
        ...

    def close(self) -> None:
        """Let go of connections. Deliveries that are not settled come back when their lease ends."""
        ...
