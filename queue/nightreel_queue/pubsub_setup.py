"""Making a queue's topics and subscriptions on Pub/Sub, and looking whether they are as they must be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from .errors import QueueUnavailable
from .pubsub import LOOK, Act, Address, Clients, Subscription
from .pubsub_queue import LEASE_S

RETENTION_S = 7 * 24 * 3600
MAX_DELIVERY_ATTEMPTS = (
    100  # Pub/Sub's largest: handing back for a shutdown counts too, real failures we count ourselves
)

CREATE = Act("create", "roles/pubsub.editor")
MEND = Act("change", "roles/pubsub.editor")


@dataclass(frozen=True, slots=True)
class Wrong:
    """A setting that is not as it must be, and the field to write it to; no field: Pub/Sub does not change it."""

    what: str
    field: str = ""


def setup(url: str) -> list[str]:
    """Create what is missing and mend what is wrong; returns what was done, a line each: nothing the second time.

    Raises QueueUnavailable when that cannot be done, or, after all else was done, when a setting is left that Pub/Sub
    does not change. Pub/Sub moves messages to the dead letters by itself, after 100 deliveries, only if its own service
    account may publish to S-dead and subscribe to S and S-urgent.
    """
    address = Address.of(url)
    with Clients(address) as clients:
        done = [line for name in _names(address) for line in _make_topic(clients, name)]
        found = {name: _find_subscription(clients, name) for name in _names(address)}
        for name, subscription in found.items():
            done += _mend(clients, name, subscription) if subscription else _make_subscription(clients, name)
        if hopeless := [
            wrong.what for name, its in found.items() for wrong in _wrong(address, name, its) if not wrong.field
        ]:
            raise QueueUnavailable("\n".join(hopeless))
        return done


def setup_results(url: str, name: str) -> list[str]:
    """Create a topic for results and a subscription of its name, beside the queue; nothing that is there is changed.

    Returns what was done, a line each: nothing the second time. Raises QueueUnavailable.
    """
    queue = Address.of(url)
    if name in _names(queue):
        raise QueueUnavailable(f"{name} belongs to the queue {queue.url}: choose another name for the results")
    address = Address(queue.project, name)
    with Clients(address) as clients:
        done = _make_topic(clients, name)
        if _find_subscription(clients, name) is None:
            request = _lasting(address, name)
            clients.call(CREATE, request["name"], clients.subscriber.create_subscription, request)
            done.append(f"created subscription {name}")
        return done


def check(url: str) -> list[str]:
    """What is missing or wrong, a line each. Changes nothing. Raises QueueUnavailable when it cannot be seen."""
    address = Address.of(url)
    mend = f"run: nightreel pubsub setup {address.url}"
    with Clients(address) as clients:
        found = []
        for name in _names(address):
            if not _topic_exists(clients, name):
                found.append(f"topic {name} is missing: {mend}")
            if (subscription := _find_subscription(clients, name)) is None:
                found.append(f"subscription {name} is missing: {mend}")
            found += [
                f"{wrong.what}: {mend}" if wrong.field else wrong.what for wrong in _wrong(address, name, subscription)
            ]
        return found


def _names(address: Address) -> tuple[str, ...]:
    return address.dead, address.named(urgent=False), address.named(urgent=True)  # those that others refer to first


def _lasting(address: Address, name: str) -> dict[str, Any]:
    """A subscription that keeps its messages, and does not go when nobody uses it."""
    return {
        "name": address.subscription(name),
        "topic": address.topic(name),
        "ack_deadline_seconds": int(LEASE_S),
        "message_retention_duration": {"seconds": RETENTION_S},
        "expiration_policy": {},  # never
    }


def _wanted(address: Address, name: str) -> dict[str, Any]:
    """How the subscription must be. No retry policy: it would delay every message that is handed back."""
    wanted = _lasting(address, name)
    if name != address.dead:
        policy = {"dead_letter_topic": address.topic(address.dead), "max_delivery_attempts": MAX_DELIVERY_ATTEMPTS}
        wanted["dead_letter_policy"] = policy
    return wanted


def _wrong(address: Address, name: str, found: Subscription | None) -> Iterator[Wrong]:
    if found is None:
        return
    again = f"delete subscription {name} and run: nightreel pubsub setup {address.url}"
    wanted = Subscription(_wanted(address, name))
    if found.topic != wanted.topic:
        yield Wrong(f"subscription {name} belongs to {found.topic}, not to {wanted.topic}: {again}")
    if found.filter:
        yield Wrong(f"subscription {name} has a filter ({found.filter}), which hides messages: {again}")
    if found.push_config.push_endpoint:
        yield Wrong(
            f"subscription {name} pushes to {found.push_config.push_endpoint}, so nothing can be pulled: {again}"
        )
    if found.ack_deadline_seconds != wanted.ack_deadline_seconds:
        what = f"subscription {name}: its ack deadline is {found.ack_deadline_seconds} s, not {LEASE_S:g} s"
        yield Wrong(what, "ack_deadline_seconds")
    if found.message_retention_duration != wanted.message_retention_duration:
        kept_s = found.message_retention_duration.total_seconds()
        yield Wrong(
            f"subscription {name}: keeps messages for {kept_s:g} s, not {RETENTION_S} s", "message_retention_duration"
        )
    if found.expiration_policy.ttl:
        yield Wrong(f"subscription {name}: expires when unused", "expiration_policy")
    if "retry_policy" in found:
        yield Wrong(f"subscription {name}: its retry policy delays what is handed back", "retry_policy")
    if found.dead_letter_policy != wanted.dead_letter_policy:
        policy = found.dead_letter_policy
        has = f"{policy.max_delivery_attempts} attempts, then {policy.dead_letter_topic or 'nowhere'}"
        yield Wrong(f"subscription {name}: its dead-letter policy is wrong ({has})", "dead_letter_policy")


def _make_topic(clients: Clients, name: str) -> list[str]:
    if _topic_exists(clients, name):
        return []
    topic = clients.address.topic(name)
    clients.call(CREATE, topic, clients.publisher.create_topic, {"name": topic})
    return [f"created topic {name}"]


def _make_subscription(clients: Clients, name: str) -> list[str]:
    request = _wanted(clients.address, name)
    clients.call(CREATE, request["name"], clients.subscriber.create_subscription, request)
    return [f"created subscription {name}"]


def _mend(clients: Clients, name: str, found: Subscription) -> list[str]:
    wrong = [each for each in _wrong(clients.address, name, found) if each.field]
    if wrong:
        update = {
            "subscription": _wanted(clients.address, name),
            "update_mask": {"paths": [each.field for each in wrong]},
        }
        clients.call(MEND, found.name, clients.subscriber.update_subscription, update)
    return [f"mended {each.what}" for each in wrong]


def _topic_exists(clients: Clients, name: str) -> bool:
    topic = clients.address.topic(name)
    return _find(clients, topic, clients.publisher.get_topic, {"topic": topic}) is not None


def _find_subscription(clients: Clients, name: str) -> Subscription | None:
    path = clients.address.subscription(name)
    found = _find(clients, path, clients.subscriber.get_subscription, {"subscription": path})
    assert found is None or isinstance(found, Subscription)
    return found


def _find(clients: Clients, path: str, rpc: Callable[..., object], request: dict[str, str]) -> object | None:
    try:
        return clients.call(LOOK, path, rpc, request)
    except QueueUnavailable as exc:
        if Clients.is_missing(exc):
            return None
        raise
