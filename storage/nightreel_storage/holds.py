"""A hold: nobody who works for this store claims anything until it is lifted."""

from __future__ import annotations

import datetime as dt

from .base import ABSENT, Store
from .errors import Conflict, NotFound
from .receipts import Record

_NAME = ".nightreel/hold.json"


class Hold(Record):
    """Whether the store is on hold, and why."""

    held: bool
    reason: str = ""
    since: dt.datetime


class Holds:
    """The hold of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> Hold | None:
        """The hold, or None when there is none, or none any more. Raises StoreError for a record that makes no sense."""
        hold = self._read()[0]
        return hold if hold and hold.held else None

    def put(self, reason: str, now: dt.datetime) -> None:
        """Hold everything; a hold that stands gets the new reason."""
        self._write(Hold(held=True, reason=reason, since=now))

    def lift(self, now: dt.datetime) -> None:
        """Let work go on."""
        self._write(Hold(held=False, since=now))

    def _read(self) -> tuple[Hold | None, int]:
        try:
            data, entry = self._store.get(_NAME)
        except NotFound:
            return None, ABSENT
        return Hold.from_bytes(data, _NAME), entry.generation

    def _write(self, hold: Hold) -> None:
        while True:
            _, generation = self._read()
            try:
                self._store.put(_NAME, hold.to_bytes(), generation=generation, content_type="application/json")
            except Conflict:
                continue  # somebody else said something meanwhile; the last word counts
            return
