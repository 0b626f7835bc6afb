"""Topics: where results are published, for whoever wants to hear of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from .errors import QueueUnavailable


class Topic(Protocol):
    """Somewhere to publish to. Safe to use from several threads."""

    @property
    def url(self) -> str:
        """Its address."""
        ...

    def publish(self, body: bytes, attributes: Mapping[str, str]) -> None:
        """Publish one message of at most 10 MB, within a few seconds. Raises QueueUnavailable, with the mend."""
        ...

    def check(self) -> None:
        """Look whether it is there. Raises QueueUnavailable, with the mend."""
        ...

    def close(self) -> None:
        """Let go of connections; a `publish` that is under way ends with an error."""
        ...


def open_topic(url: str) -> Topic:
    """Open the topic at pubsub://PROJECT/TOPIC, without asking whether it is there. Raises QueueUnavailable."""
    if not url.startswith("pubsub://"):
        raise QueueUnavailable(f"cannot open topic {url!r}: write pubsub://PROJECT/TOPIC")
    try:  # here, because workers that tell nobody have no Google in their environment
        from .pubsub_topic import PubSubTopic
    except ImportError as exc:
        raise QueueUnavailable(f"cannot open topic {url!r}: run: pip install 'nightreel[gcp]' ({exc})") from exc
    return PubSubTopic(url)


def topic_name(url: str) -> str:
    """The last part of a topic's address, by which jobs name it."""
    return url.rpartition("/")[2]
