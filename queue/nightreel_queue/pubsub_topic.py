"""Topics on Google Pub/Sub."""

from __future__ import annotations

from collections.abc import Mapping

from .errors import QueueUnavailable
from .pubsub import LOOK, Address, Clients

PUBLISH_S = 5.0  # for which a message is tried to be published


class PubSubTopic:
    """One topic, over a connection of its own."""

    def __init__(self, url: str) -> None:
        self._address = Address.of(url)
        self._path = self._address.topic(self._address.name)
        self._clients = Clients(self._address, retry_s=PUBLISH_S)

    @property
    def url(self) -> str:
        return self._address.url

    def publish(self, body: bytes, attributes: Mapping[str, str]) -> None:
        try:
            self._clients.publish(self._path, [(body, attributes)])
        except QueueUnavailable as exc:
            raise self._told(exc) from exc

    def check(self) -> None:
        try:
            self._clients.call(LOOK, self._path, self._clients.publisher.get_topic, {"topic": self._path})
        except QueueUnavailable as exc:
            raise self._told(exc) from exc

    def close(self) -> None:
        self._clients.close()

    def _told(self, error: QueueUnavailable) -> QueueUnavailable:
        """The mend for a missing topic is not that for a missing queue."""
        if not Clients.is_missing(error):
            return error
        mend = f"nightreel pubsub setup pubsub://PROJECT/SUBSCRIPTION --results {self._address.name}"
        return QueueUnavailable(f"{self._path} does not exist: run: {mend}")
