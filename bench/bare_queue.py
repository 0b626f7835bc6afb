"""The queue on Pub/Sub alone, without jobs and films, beside Google's own clients. The only module that imports them."""

from __future__ import annotations

import multiprocessing
import time
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import closing
from importlib import import_module
from multiprocessing.queues import SimpleQueue
from multiprocessing.synchronize import Barrier
from typing import Any

from nightreel_queue.base import Message
from nightreel_queue.connect import open_queue
from nightreel_queue.pubsub import Address

pubsub_v1: Any = import_module("google.cloud.pubsub_v1")  # it has no types

PATIENCE_S = 60.0
LEASE_S = 60  # as PubSubQueue asks for

Take = Callable[[str, int], Callable[[], None]]
"""Given a queue's address and a number of messages: what takes so many."""


# taking


def ours(queue_url: str, count: int) -> Callable[[], None]:
    """Nightreel's queue as the worker uses it: pull, extend once, ack."""
    queue = open_queue(queue_url)

    def take() -> None:
        with closing(queue):
            for _ in range(count):
                delivery = queue.pull(PATIENCE_S)
                assert delivery is not None, "the queue ran dry"
                delivery.extend()
                delivery.ack()

    return take


def google_two_calls(queue_url: str, count: int) -> Callable[[], None]:
    """Google's client as its documentation has it for synchronous pulls: pull one, ack it."""
    client, (plain, _) = pubsub_v1.SubscriberClient(), _subscriptions(queue_url)

    def take() -> None:
        with client:
            for _ in range(count):
                _ack(client, plain, _pull(client, plain))

    return take


def google_five_calls(queue_url: str, count: int) -> Callable[[], None]:
    """Google's client making the calls that ours makes: a look for urgent ones, pull, two lease extensions, ack."""
    client, (plain, urgent) = pubsub_v1.SubscriberClient(), _subscriptions(queue_url)
    warnings.simplefilter("ignore", DeprecationWarning)  # of return_immediately, at every call

    def take() -> None:
        with client:
            for _ in range(count):
                client.pull(request={"subscription": urgent, "max_messages": 1, "return_immediately": True})
                ack_id = _pull(client, plain)
                for _ in range(2):
                    client.modify_ack_deadline(
                        request={"subscription": plain, "ack_ids": [ack_id], "ack_deadline_seconds": LEASE_S}
                    )
                _ack(client, plain, ack_id)

    return take


def rate(how: Take, queue_url: str, processes: int, count: int) -> float:
    """Messages a second that so many processes take together, from when all are ready; the queue holds enough."""
    context = multiprocessing.get_context("spawn")  # gRPC does not survive a fork
    ready = context.Barrier(processes)
    times: SimpleQueue[tuple[float, float]] = context.SimpleQueue()
    share = count // processes
    running = [context.Process(target=_taker, args=(how, queue_url, share, ready, times)) for _ in range(processes)]
    for process in running:
        process.start()
    spans: list[tuple[float, float]] = [times.get() for _ in running]
    for process in running:
        process.join()
    began, ended = min(begin for begin, _ in spans), max(end for _, end in spans)
    return share * processes / (ended - began)


def _taker(how: Take, queue_url: str, count: int, ready: Barrier, times: SimpleQueue[tuple[float, float]]) -> None:
    how(queue_url, 1)()  # imports and the emulator's first answers are nobody's queue
    take = how(queue_url, count)
    ready.wait(PATIENCE_S)
    began = time.time()
    take()
    times.put((began, time.time()))


def _subscriptions(queue_url: str) -> tuple[str, str]:
    address = Address.of(queue_url)
    return address.subscription(address.named(False)), address.subscription(address.named(True))


def _pull(client: Any, subscription: str) -> str:
    while True:  # an open pull may be answered with nothing
        answer = client.pull(request={"subscription": subscription, "max_messages": 1}, timeout=PATIENCE_S)
        if answer.received_messages:
            return str(answer.received_messages[0].ack_id)


def _ack(client: Any, subscription: str, ack_id: str) -> None:
    client.acknowledge(request={"subscription": subscription, "ack_ids": [ack_id]})


# publishing


def messages(count: int) -> list[Message]:
    """Small jobs' bytes with the attributes that a batch gives them; no two are equal."""
    body = '{"batch":"bench","id":"%s","shots":[{"prompt":"a red sun over blue hills %d","duration":0.5}]}'
    names = [f"{uuid.uuid4().hex[:8]}-{number}" for number in range(count)]
    return [
        Message((body % (name, number)).encode(), f"bench/{name}/1", {"round": "1"})
        for number, name in enumerate(names)
    ]


def publish_ours(queue_url: str, waiting: Sequence[Message]) -> float:
    """Seconds that Nightreel's queue takes."""
    with closing(open_queue(queue_url)) as queue:
        queue.publish(waiting[:1])  # the connection is no part of it
        began = time.monotonic()
        queue.publish(waiting)
        return time.monotonic() - began


def publish_google(queue_url: str, waiting: Sequence[Message], max_messages: int) -> float:
    """Seconds that Google's batching publisher takes, until every future is done."""
    address = Address.of(queue_url)
    topic = address.topic(address.name)
    publisher = pubsub_v1.PublisherClient(pubsub_v1.types.BatchSettings(max_messages=max_messages))
    publisher.publish(topic, waiting[0].body).result()
    began = time.monotonic()
    futures = [publisher.publish(topic, each.body, **each.attributes, key=each.key) for each in waiting]
    for future in futures:
        future.result()
    seconds = time.monotonic() - began
    publisher.stop()
    return seconds


# waiting


def receive(queue_url: str) -> float:
    """Pull one message by Google's client, as it waits for it, and ack it; returns when it came, since the epoch."""
    plain, _ = _subscriptions(queue_url)
    with pubsub_v1.SubscriberClient() as client:
        ack_id = _pull(client, plain)
        came_at = time.time()
        _ack(client, plain, ack_id)
    return came_at
