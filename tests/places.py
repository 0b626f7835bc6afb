"""Where a house's queue and store are: on one machine, or in the cloud."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

from fake_gcs import FakeGcs
from pubsub_emulator import Emulator

from nightreel_queue.base import Queue
from nightreel_queue.pubsub import Address, Clients
from nightreel_queue.pubsub_setup import setup
from nightreel_queue.sqlite import SqliteQueue
from nightreel_storage.gcs_setup import setup_bucket

LEASE_S = 4.0  # so that the jobs of a killed worker come back soon
EMPTY_AFTER_S = 1.0  # an emulator is one server, which does not forget
PULL_S = 1.0  # that an emulator gets to show what it has


@dataclass(frozen=True)
class Places:
    """A queue and a store that nobody else uses."""

    queue_url: str
    store_url: str
    environment: dict[str, str] = field(default_factory=dict)
    """How a worker finds them."""
    patient: dict[str, str] = field(default_factory=dict)
    """Settings of a worker that stays until everything has ended, also what killed workers held."""
    stays: tuple[str, ...] = ()
    """Flags of such a worker."""

    @classmethod
    def on_one_machine(cls, folder: Path) -> Places:
        """An SQLite file and a folder."""
        queue = f"sqlite:///{folder / 'queue.db'}?lease_s={LEASE_S}"
        return cls(queue, str(folder / "out"), stays=("--wait-for-others",))

    @classmethod
    def in_the_cloud(cls, emulator: Emulator, gcs: FakeGcs) -> Places:
        """A subscription and a bucket, made ready. This process's own environment must lead to the two as well."""
        places = cls(
            f"pubsub://demo/s{uuid.uuid4().hex[:10]}?lease_s={LEASE_S}&empty_after_s={EMPTY_AFTER_S}",
            f"gs://bucket-{uuid.uuid4().hex[:10]}/films",
            {"PUBSUB_EMULATOR_HOST": emulator.host, "STORAGE_EMULATOR_HOST": gcs.url},
            {"idle_timeout_s": str(LEASE_S + 2)},
        )
        setup(places.address.url)
        setup_bucket(places.store_url, "us-central1", project="demo")
        return places

    def with_lease(self, lease_s: float) -> Places:
        """The same places, with leases of another length."""
        return replace(self, queue_url=re.sub(r"(?<=lease_s=)[0-9.]+", str(lease_s), self.queue_url))

    @property
    def address(self) -> Address:
        """Of a subscription."""
        return Address.of(self.queue_url.partition("?")[0])

    def dead_letters(self, queue: Queue) -> list[str]:
        """Reasons of all dead letters since the last call."""
        if isinstance(queue, SqliteQueue):
            return [letter.reason for letter in queue.dead()]
        with Clients(self.address) as clients:
            return list(_drain(clients, self.address.subscription(self.address.dead)))

    def is_empty(self, queue: Queue) -> bool:
        """Nothing waits, comes back, or is leased. Ask when every lease was settled, or had time to run out."""
        if isinstance(queue, SqliteQueue):
            return queue.backlog().total == 0
        if delivery := queue.pull(PULL_S):
            delivery.release()
        return delivery is None


def _drain(clients: Clients, subscription: str) -> Iterator[str]:
    while received := clients.pull(subscription, PULL_S):
        yield received.message.attributes["reason"]
        clients.ack(subscription, received.ack_id, retry_s=5.0)
