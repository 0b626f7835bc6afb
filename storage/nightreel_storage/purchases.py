"""Purchases: what was ordered from a service for money, written down before the service is asked.

Whoever creates the record of a clip orders it; everybody else waits for the same order. So a clip is never ordered twice,
whatever crashes in between, unless a person says so. A record without an operation is one whose order was never answered, or
whose answer was lost: nobody can know whether it is being made, and paid for. A record goes when its clip is in the store, or
when the service has said that there will be none and that it costs nothing.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from .base import ABSENT, Store
from .errors import Conflict, NotFound
from .receipts import Record

FOLDER = ".nightreel/clips/"


class Purchase(Record):
    """One clip that was, or is about to be, ordered."""

    format: Literal[1] = 1
    id: str
    """Of this order, in the ledger."""
    fingerprint: str
    """Of the clip's recipe."""
    run: str
    """The worker's run that ordered it."""
    job: str
    """BATCH/JOB that it was ordered for."""
    model: str
    micro_usd: int
    """What it costs, in millionths of a dollar."""
    month: str
    """Whose ledger it is reserved in, YYYY-MM."""
    asked_at: dt.datetime
    operation: str = ""
    """What the service calls it; empty until it has answered."""


@dataclass(frozen=True, slots=True)
class Held:
    """A purchase and the generation at which it was read."""

    purchase: Purchase
    generation: int


class Purchases:
    """The purchases of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self, fingerprint: str) -> Held | None:
        """What is known of a clip's order, or None. Raises StoreError for a record that makes no sense."""
        try:
            data, entry = self._store.get(_name(fingerprint))
        except NotFound:
            return None
        return Held(Purchase.from_bytes(data, entry.name), entry.generation)

    def open(self, purchase: Purchase) -> Held:
        """Say that a clip is about to be ordered. Raises Conflict when somebody else has said so."""
        try:
            return self._put(purchase, ABSENT)
        except Conflict:
            held = self.read(purchase.fingerprint)
            if held and held.purchase.id == purchase.id:  # our own success, whose answer was lost
                return held
            raise

    def answered(self, held: Held, operation: str) -> Held:
        """Note what the service calls it. Raises Conflict when a person has given the order up meanwhile."""
        answered = held.purchase.model_copy(update={"operation": operation})
        try:
            return self._put(answered, held.generation)
        except Conflict:
            now = self.read(answered.fingerprint)
            if now and now.purchase == answered:  # our own success, whose answer was lost
                return now
            raise

    def close(self, held: Held) -> bool:
        """The order is settled: its record goes. False when somebody else was faster."""
        with contextlib.suppress(Conflict):
            self._store.delete(_name(held.purchase.fingerprint), generation=held.generation)
            return True
        return False

    def list(self) -> Iterator[Held]:
        """All that is not settled."""
        for entry in self._store.list(FOLDER):
            if held := self.read(entry.name.rpartition("/")[2].removesuffix(".json")):
                yield held

    def _put(self, purchase: Purchase, generation: int) -> Held:
        name = _name(purchase.fingerprint)
        data, kind = purchase.to_bytes(), "application/json"
        return Held(purchase, self._store.put(name, data, generation=generation, content_type=kind).generation)


def _name(fingerprint: str) -> str:
    return f"{FOLDER}{fingerprint}.json"
