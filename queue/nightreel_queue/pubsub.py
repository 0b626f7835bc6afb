"""Google's SDK for Pub/Sub, with our deadlines, retries and errors. The only module that imports it."""

from __future__ import annotations

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Self, TypeVar
from urllib.parse import unquote, urlsplit

import grpc  # type: ignore[import-untyped]  # has no types
from google.api_core import exceptions, gapic_v1
from google.auth.exceptions import DefaultCredentialsError
from google.pubsub_v1 import (
    PublisherClient,
    PubsubMessage,
    PullRequest,
    PullResponse,
    ReceivedMessage,
    SubscriberClient,
    Subscription,
)
from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport
from google.pubsub_v1.services.subscriber.transports import SubscriberGrpcTransport

from .errors import LeaseLost, QueueUnavailable

__all__ = ["Act", "Address", "Clients", "PullResponse", "ReceivedMessage", "Subscription"]

R = TypeVar("R")

RETRY_S = 30.0  # for which a call that could not be made is tried again
CALL_S = 10.0  # that an answer may take
PAUSE_S = (0.1, 2.0)  # first and longest pause between two tries
CLOSE_S = 10.0  # for which `close` waits for calls that are under way; longer than a pull stays open

_TRANSIENT = (
    exceptions.ServiceUnavailable,
    exceptions.DeadlineExceeded,
    exceptions.Aborted,
    exceptions.InternalServerError,
    exceptions.Unknown,
    exceptions.ResourceExhausted,  # a quota by the minute
)
_ACK_ID_REFUSED = (exceptions.InvalidArgument, exceptions.FailedPrecondition)  # by exactly-once delivery
_HOST = "pubsub.googleapis.com:443"
_CHANNEL_OPTIONS = (
    ("grpc.max_send_message_length", -1),
    ("grpc.max_receive_message_length", -1),
    ("grpc.keepalive_time_ms", 30_000),
    ("grpc.max_reconnect_backoff_ms", 2_000),  # gRPC's own grows to two minutes, beyond all our retries
)


@dataclass(frozen=True, slots=True)
class Address:
    """What a queue is called. Raises QueueUnavailable for names that Pub/Sub would not take."""

    project: str
    name: str

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[a-z][a-z0-9.:-]{1,62}[a-z0-9]", self.project):
            raise QueueUnavailable(f"{self.project!r} is not the id of a Google Cloud project: write {_FORM}")
        if not re.fullmatch(r"(?!goog)[A-Za-z][A-Za-z0-9._~+-]{2,247}", self.name):
            raise QueueUnavailable(
                f"{self.name!r} cannot name a subscription: 3 to 248 of the characters A-Z a-z 0-9 . _ ~ + -, of which"
                f" the first is a letter, and not goog at the start: write {_FORM}"
            )

    @classmethod
    def of(cls, url: str) -> Self:
        """The address that a url names; options behind a ? are left to the caller."""
        parts = urlsplit(url)
        if parts.scheme != "pubsub" or parts.fragment or not parts.path.startswith("/"):
            raise QueueUnavailable(f"{url!r} is not the address of a queue on Pub/Sub: write {_FORM}")
        return cls(parts.netloc, unquote(parts.path[1:]))

    @property
    def url(self) -> str:
        return f"pubsub://{self.project}/{self.name}"

    @property
    def dead(self) -> str:
        return f"{self.name}-dead"

    def named(self, urgent: bool) -> str:
        """The topic, and its subscription, of urgent or other messages."""
        return f"{self.name}-urgent" if urgent else self.name

    def topic(self, name: str) -> str:
        return f"projects/{self.project}/topics/{name}"

    def subscription(self, name: str) -> str:
        return f"projects/{self.project}/subscriptions/{name}"


_FORM = "pubsub://PROJECT/SUBSCRIPTION"


@dataclass(frozen=True, slots=True)
class Act:
    """What is asked of Pub/Sub, for the words of an error."""

    doing: str
    role: str


PULL = Act("pull from", "roles/pubsub.subscriber")
SETTLE = Act("settle a message of", "roles/pubsub.subscriber")
PUBLISH = Act("publish to", "roles/pubsub.publisher")
LOOK = Act("look at", "roles/pubsub.viewer")


class Clients:
    """Pub/Sub's clients over one channel, with our deadlines, retries and errors. Raises QueueUnavailable.

    Goes to the emulator when PUBSUB_EMULATOR_HOST says where one is.
    """

    def __init__(self, address: Address, retry_s: float = RETRY_S) -> None:
        self.address = address
        self.closed = threading.Event()
        self._retry_s = retry_s
        self._users = 0
        self._idle = threading.Condition()
        self._channel = _channel()
        self.publisher = PublisherClient(transport=PublisherGrpcTransport(channel=self._channel))
        transport = SubscriberGrpcTransport(channel=self._channel)
        self.subscriber = SubscriberClient(transport=transport)
        # Not SubscriberClient.pull: that one warns of return_immediately at every call, and a warning cannot be kept
        # from one thread only. The flag is deprecated for its throughput; we want one message, and an open pull for
        # urgent ones would keep the others waiting.
        self._pull: Callable[..., Any] = gapic_v1.method.wrap_method(transport.pull)  # type: ignore[no-untyped-call]  # google-api-core is untyped

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def call(
        self, act: Act, resource: str, rpc: Callable[..., R], request: object, *, retry_s: float | None = None
    ) -> R:
        """Ask until there is an answer, for at most `retry_s` seconds (30 when not given)."""
        give_up_at = time.monotonic() + (self._retry_s if retry_s is None else min(retry_s, self._retry_s))
        pause_s, longest_s = PAUSE_S
        while True:
            timeout_s = min(CALL_S, max(PAUSE_S[0], give_up_at - time.monotonic()))
            try:
                return rpc(request, retry=None, timeout=timeout_s)
            except _TRANSIENT as exc:
                if time.monotonic() + pause_s > give_up_at:
                    raise QueueUnavailable(_unreachable(act, resource, exc)) from exc
            except exceptions.GoogleAPICallError as exc:
                raise QueueUnavailable(self._refused(act, resource, exc)) from exc
            if self.closed.wait(pause_s):
                raise QueueUnavailable(f"{self.address.url} was closed")
            pause_s = min(2 * pause_s, longest_s)

    def pull(self, subscription: str, wait_s: float) -> ReceivedMessage | None:
        """Pull one message: at once, or by a call that stays open for about `wait_s`."""
        request = PullRequest(subscription=subscription, max_messages=1, return_immediately=wait_s <= 0)
        received = self.call(PULL, subscription, partial(self._pull_once, wait_s), request).received_messages
        return received[0] if received else None

    def modack(self, subscription: str, ack_id: str, deadline_s: int, retry_s: float) -> None:
        """End a message's lease `deadline_s` whole seconds from now. Raises LeaseLost where Pub/Sub tells."""
        request = {"subscription": subscription, "ack_ids": [ack_id], "ack_deadline_seconds": deadline_s}
        self._settle(subscription, self.subscriber.modify_ack_deadline, request, retry_s)

    def ack(self, subscription: str, ack_id: str, retry_s: float) -> None:
        """End a message. Raises LeaseLost where Pub/Sub tells."""
        self._settle(
            subscription, self.subscriber.acknowledge, {"subscription": subscription, "ack_ids": [ack_id]}, retry_s
        )

    def _settle(self, subscription: str, rpc: Callable[..., None], request: object, retry_s: float) -> None:
        try:
            self.call(SETTLE, subscription, rpc, request, retry_s=retry_s)
        except QueueUnavailable as exc:
            if isinstance(exc.__cause__, _ACK_ID_REFUSED):
                raise LeaseLost(f"{subscription}: the lease ended: {exc}") from exc
            raise

    def publish(
        self, topic: str, messages: Sequence[tuple[bytes, Mapping[str, str]]], *, retry_s: float | None = None
    ) -> None:
        """Publish bodies with their attributes by one call: at most 1,000, and 10 MB in all."""
        request = {"topic": topic, "messages": [PubsubMessage(data=data, attributes=a) for data, a in messages]}
        self.call(PUBLISH, topic, self.publisher.publish, request, retry_s=retry_s)

    def _pull_once(self, wait_s: float, request: PullRequest, *, retry: None, timeout: float) -> PullResponse:
        header = {"subscription": request.subscription}
        route = gapic_v1.routing_header.to_grpc_metadata(header)  # type: ignore[no-untyped-call]  # as above
        try:
            answer = self._pull(request, retry=retry, timeout=wait_s or timeout, metadata=[route])
        except exceptions.DeadlineExceeded:
            if not wait_s:
                raise
            return PullResponse()  # how an open pull usually ends
        assert isinstance(answer, PullResponse)
        return answer

    def _refused(self, act: Act, resource: str, error: exceptions.GoogleAPICallError) -> str:
        match error:
            case exceptions.NotFound():
                return f"{resource} does not exist: run: nightreel pubsub setup {self.address.url}"
            case exceptions.PermissionDenied():
                return f"may not {act.doing} {resource}: grant {act.role} to the account that this program runs as"
            case exceptions.Unauthenticated():
                return f"Google refused the credentials ({error.message}): {_LOG_IN}"
        return f"Pub/Sub refused to {act.doing} {resource}: {error.message}"

    @staticmethod
    def is_missing(error: QueueUnavailable) -> bool:
        """Whether a call failed because what it named does not exist."""
        return isinstance(error.__cause__, exceptions.NotFound)

    @contextlib.contextmanager
    def use(self) -> Iterator[None]:
        """Keep the channel open meanwhile. Raises QueueUnavailable when it was closed before."""
        with self._idle:
            if self.closed.is_set():
                raise QueueUnavailable(f"{self.address.url} was closed")
            self._users += 1
        try:
            yield
        finally:
            with self._idle:
                self._users -= 1
                self._idle.notify_all()

    def close(self) -> None:
        """Let calls that are under way come to their end, then close the channel."""
        with self._idle:
            self.closed.set()
            self._idle.wait_for(lambda: not self._users, CLOSE_S)
        self._channel.close()


_LOG_IN = (
    "run `gcloud auth application-default login`, or set GOOGLE_APPLICATION_CREDENTIALS to a service account's key file"
)


def _channel() -> Any:
    if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
        return grpc.insecure_channel(emulator, _CHANNEL_OPTIONS)
    try:
        return SubscriberGrpcTransport.create_channel(_HOST, options=_CHANNEL_OPTIONS)
    except DefaultCredentialsError as exc:
        raise QueueUnavailable(f"no credentials for Google Cloud: {_LOG_IN} ({exc})") from exc


def _unreachable(act: Act, resource: str, error: exceptions.GoogleAPICallError) -> str:
    if emulator := os.environ.get("PUBSUB_EMULATOR_HOST"):
        mend = f"is the emulator running at {emulator} (PUBSUB_EMULATOR_HOST)?"
    else:
        mend = "check the network, and https://status.cloud.google.com"
    return f"could not {act.doing} {resource}: {error.message or type(error).__name__}: {mend}"
