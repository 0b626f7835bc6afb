"""Google Pub/Sub: the queue of a worker in the cloud.

One queue is six things there: topic and subscription S, S-urgent, and S-dead for the dead letters. Messages are pulled
one at a time by unary calls, because a streaming pull hands one worker more than it works on and keeps it for minutes
after the worker's end. Leases are ack deadlines that are renewed by hand. Pub/Sub does not tell a worker that it comes
too late, so every delivery goes by its own clock, which starts before the server's does.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import math
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice

from .base import Backlog, Message
from .errors import InvalidJob, LeaseLost, Problem, QueueUnavailable
from .pubsub import RETRY_S, Address, Clients, ReceivedMessage

LEASE_S = 60.0  # short, so that a crash frees the job soon; also the ack deadline that `setup` gives to subscriptions
EMPTY_AFTER_S = 10.0  # two open pulls of the longest kind: one server after the other may answer that it has nothing
MAX_DELAY_S = 600.0  # the longest ack deadline that Pub/Sub knows
EXTEND_RETRY_S = 5.0  # for which an `extend` is tried again: it comes again anyway, and other leases wait behind it
OPEN_PULL_S = (1.0, 5.0)  # shortest and longest deadline of an open pull: cut off early it can swallow a message
EMPTY_PAUSE_S = 0.1  # before the next look within one wait: an open pull may be answered with nothing at once
BATCH = 1000  # messages in one call, Pub/Sub's limit
BATCH_BYTES = 9_000_000  # in one call of several messages, below Pub/Sub's limit of 10 MB
MESSAGE_BYTES = 10_000_000 - 10_000  # largest message; the rest is for the call around it, and a dead letter's reason
MAX_ATTRIBUTES = 95  # of Pub/Sub's 100: a dead letter has some of its own
KEY_BYTES, VALUE_BYTES = 256, 1024  # longest key and value of an attribute, Pub/Sub's limits
OVERHEAD_BYTES = 64  # of a message in a call, about

Row = tuple[int, bytes, Mapping[str, str]]  # of a publish: its number from 1, body, attributes


@dataclass(eq=False, slots=True)
class PubSubDelivery:
    """A leased message. Once its lease has ended by our own clock, every method raises LeaseLost."""

    _queue: PubSubQueue = field(repr=False)
    _received: ReceivedMessage = field(repr=False)
    subscription: str
    lease_s: float
    deadline: float
    """When the lease ends, by time.monotonic."""
    settled: bool = False
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    @property
    def ack_id(self) -> str:
        return self._received.ack_id

    @property
    def message_id(self) -> str:
        return self._received.message.message_id

    @property
    def body(self) -> bytes:
        return self._received.message.data

    @property
    def attributes(self) -> Mapping[str, str]:
        return dict(self._received.message.attributes)

    @property
    def delivery_attempt(self) -> int:
        """As in the contract; always 1 where the subscription has no dead-letter policy, which makes Pub/Sub count."""
        return self._received.delivery_attempt or 1

    @property
    def published_at(self) -> dt.datetime:
        return dt.datetime.fromtimestamp(self._received.message.publish_time.timestamp(), dt.UTC)

    def extend(self) -> None:
        with self._own() as left_s:
            self.deadline = self._queue.extend(self, min(left_s, EXTEND_RETRY_S))

    def ack(self) -> None:
        with self._own() as left_s:
            self._queue.ack(self, left_s)
            self.settled = True

    def release(self, delay_s: float = 0.0) -> None:
        """As in the contract, by whole seconds, rounded up. Raises ValueError when the delay is not 0 to 600 s."""
        if not 0 <= delay_s <= MAX_DELAY_S:
            raise ValueError(f"a message can be delayed by 0 to {MAX_DELAY_S:g} s, not {delay_s:g}")
        with self._own() as left_s:
            self._queue.release(self, math.ceil(delay_s), left_s)
            self.settled = True

    def dead_letter(self, reason: str) -> None:
        with self._own() as left_s:
            self._queue.dead_letter(self, reason, left_s)
            self.settled = True

    @contextlib.contextmanager
    def _own(self) -> Iterator[float]:
        """The seconds left of the lease; one call at a time, so that no `extend` revives what was released."""
        with self._lock:
            left_s = self.deadline - time.monotonic()
            if self.settled or left_s <= 0:
                fate = "is settled" if self.settled else "outlived its lease: somebody else may hold the message"
                raise LeaseLost(f"message {self.message_id}: delivery {self.delivery_attempt} {fate}")
            yield left_s


class PubSubQueue:
    """The queue at an address. Asks Pub/Sub nothing before it is used. Raises QueueUnavailable without credentials.

    retry_s: for how long a call is tried again while Pub/Sub cannot be reached. empty_after_s: as in the contract.
    """

    def __init__(
        self,
        address: Address,
        *,
        lease_s: float = LEASE_S,
        retry_s: float = RETRY_S,
        empty_after_s: float = EMPTY_AFTER_S,
    ) -> None:
        self._address = address
        self._lease_s = lease_s
        self._empty_after_s = empty_after_s
        self._clients = Clients(address, retry_s)
        self._lock = threading.Lock()
        self._held: set[PubSubDelivery] = set()
        self._due: list[float] = []  # when messages that we delayed come back, by time.monotonic
        self._dead = 0

    @property
    def empty_after_s(self) -> float:
        return self._empty_after_s

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish in calls of up to 1,000 messages, one after the other, urgent messages first.

        Raises InvalidJob, before anything is published, when Pub/Sub would not take a message; QueueUnavailable when
        a call fails: it names the rows, counted from 1, that are not published, or may not be.
        """
        _check(messages)
        calls = [
            (self._address.topic(self._address.named(urgent)), batch)
            for urgent in (True, False)
            for batch in _batches(messages, urgent)
        ]
        with self._clients.use():
            for done, (topic, batch) in enumerate(calls):
                try:
                    self._clients.publish(topic, [(body, attributes) for _, body, attributes in batch])
                except QueueUnavailable as exc:
                    rows = sorted(row for _, left in calls[done:] for row, _, _ in left)
                    raise QueueUnavailable(
                        f"{len(rows)} of {len(messages)} messages were not published, rows {_ranges(rows)}: {exc}"
                    ) from exc

    def pull(self, wait_s: float = 0.0) -> PubSubDelivery | None:
        """As in the contract, as far as Pub/Sub keeps the order. A wait may last a second longer than asked.

        No answer of Pub/Sub proves that nothing is there. A message that arrives when the queue is closed goes back.
        """
        until = time.monotonic() + wait_s
        left_s = wait_s
        with self._clients.use():
            while not self._clients.closed.is_set():
                if delivery := self._take(urgent=True, wait_s=0) or self._take(urgent=False, wait_s=left_s):
                    return delivery
                if until - time.monotonic() <= 0:
                    break
                self._clients.closed.wait(min(EMPTY_PAUSE_S, until - time.monotonic()))
                left_s = until - time.monotonic()
        return None

    def _take(self, *, urgent: bool, wait_s: float) -> PubSubDelivery | None:
        subscription = self._address.subscription(self._address.named(urgent))
        shortest_s, longest_s = OPEN_PULL_S
        open_s = min(longest_s, max(shortest_s, wait_s)) if wait_s > 0 else 0.0
        try:
            received = self._clients.pull(subscription, open_s)
        except QueueUnavailable:
            if self._clients.closed.is_set():
                return None
            raise
        if received is None:
            return None
        if self._clients.closed.is_set():
            self._clients.modack(subscription, received.ack_id, 0, EXTEND_RETRY_S)
            return None
        return self._lease(PubSubDelivery(self, received, subscription, self._lease_s, deadline=0.0))

    def _lease(self, delivery: PubSubDelivery) -> PubSubDelivery | None:
        # The lease that came with the pull is the subscription's, and nobody here knows when it began: begin our own.
        try:
            delivery.deadline = self._renew(delivery, RETRY_S)
        except LeaseLost:
            return None
        with self._lock:
            self._held.add(delivery)
        return delivery

    def backlog(self) -> Backlog:
        """What this process knows: the deliveries it holds, those it delayed, and its dead letters.

        What waits, and what others hold, only Cloud Monitoring can tell, minutes late.
        """
        now = time.monotonic()
        with self._lock:
            self._held = {delivery for delivery in self._held if delivery.deadline > now}
            self._due = [due for due in self._due if due > now]
            ends = [*self._due, *(delivery.deadline for delivery in self._held)]
            next_s = min(ends) - now if ends else None
            return Backlog(0, len(self._due), len(self._held), self._dead, next_s, oldest_s=None)

    def close(self) -> None:
        """As in the contract. Waits for a pull that is open in another thread, up to five seconds; it returns None."""
        self._clients.close()

    # what deliveries ask for; each call is tried again for `retry_s` seconds

    def extend(self, delivery: PubSubDelivery, retry_s: float) -> float:
        """Renew a lease; returns when it ends."""
        with self._clients.use():
            return self._renew(delivery, retry_s)

    def _renew(self, delivery: PubSubDelivery, retry_s: float) -> float:
        asked_at = time.monotonic()  # before the server hears of it: our clock must not run behind its
        self._clients.modack(delivery.subscription, delivery.ack_id, math.ceil(delivery.lease_s), retry_s)
        return asked_at + delivery.lease_s

    def ack(self, delivery: PubSubDelivery, retry_s: float) -> None:
        with self._clients.use():
            self._clients.ack(delivery.subscription, delivery.ack_id, retry_s)
        self._let_go(delivery)

    def release(self, delivery: PubSubDelivery, delay_s: int, retry_s: float) -> None:
        with self._clients.use():
            self._clients.modack(delivery.subscription, delivery.ack_id, delay_s, retry_s)
        self._let_go(delivery)
        if delay_s:
            with self._lock:
                self._due.append(time.monotonic() + delay_s)

    def dead_letter(self, delivery: PubSubDelivery, reason: str, retry_s: float) -> None:
        """Publish to the dead letters, wait until that is done, then ack: a crash between leaves two, not none."""
        letter = (delivery.body, _obituary(delivery, reason))
        with self._clients.use():
            self._clients.publish(self._address.topic(self._address.dead), [letter], retry_s=retry_s)
            self._clients.ack(delivery.subscription, delivery.ack_id, retry_s)
        self._let_go(delivery)
        with self._lock:
            self._dead += 1

    def _let_go(self, delivery: PubSubDelivery) -> None:
        with self._lock:
            self._held.discard(delivery)


def _obituary(delivery: PubSubDelivery, reason: str) -> dict[str, str]:
    """A dead letter's attributes: the message's own, why it died, and which message it was."""
    kept = {key: value for key, value in delivery.attributes.items() if not key.startswith("goog")}  # Google's own
    return dict(islice(kept.items(), MAX_ATTRIBUTES)) | {
        "reason": reason.encode()[:VALUE_BYTES].decode(errors="ignore"),
        "message_id": delivery.message_id,
        "published_at": delivery.published_at.isoformat(),
        "delivery_attempt": str(delivery.delivery_attempt),
    }


def _attributes(message: Message) -> dict[str, str]:
    return {**message.attributes, "key": message.key} if message.key else dict(message.attributes)


def _check(messages: Sequence[Message]) -> None:
    """Raise InvalidJob when Pub/Sub would refuse some of these, which would spoil the others of the same call."""
    problems = [
        Problem(mistake, place=f"row {row}")
        for row, message in enumerate(messages, 1)
        if (mistake := _mistake(message.body, _attributes(message)))
    ]
    if problems:
        raise InvalidJob(problems)


def _mistake(body: bytes, attributes: Mapping[str, str]) -> str | None:
    if (size := _size(body, attributes)) > MESSAGE_BYTES:
        return f"the message has {size:,} bytes; Pub/Sub takes {MESSAGE_BYTES:,}: make the job smaller"
    if not body and not attributes:
        return "the message is empty; Pub/Sub takes none without a body"
    if len(attributes) > MAX_ATTRIBUTES:
        return f"{len(attributes)} attributes are too many; {MAX_ATTRIBUTES} can be sent"
    for key, value in attributes.items():
        if not key or key.startswith("goog") or len(key.encode()) > KEY_BYTES or len(value.encode()) > VALUE_BYTES:
            return (
                f"Pub/Sub does not take the attribute {key[:40]!r}: a key has 1 to {KEY_BYTES} bytes and does not start"
                f" with goog, a value has at most {VALUE_BYTES:,} bytes"
            )
    return None


def _size(body: bytes, attributes: Mapping[str, str]) -> int:
    return len(body) + sum(len(key.encode()) + len(value.encode()) for key, value in attributes.items())


def _batches(messages: Sequence[Message], urgent: bool) -> Iterator[list[Row]]:
    """The messages of one topic, in groups that one call can carry."""
    batch: list[Row] = []
    batch_bytes = 0
    for row, message in enumerate(messages, 1):
        if message.urgent != urgent:
            continue
        attributes = _attributes(message)
        size = _size(message.body, attributes) + OVERHEAD_BYTES
        if batch and (len(batch) == BATCH or batch_bytes + size > BATCH_BYTES):
            yield batch
            batch, batch_bytes = [], 0
        batch.append((row, message.body, attributes))
        batch_bytes += size
    if batch:
        yield batch


def _ranges(rows: Sequence[int]) -> str:
    """Ascending numbers as people write them: 1-3, 7."""
    groups: list[list[int]] = []
    for row in rows:
        if groups and row == groups[-1][-1] + 1:
            groups[-1][1:] = [row]
        else:
            groups.append([row])
    return ", ".join("-".join(map(str, group)) for group in groups)
