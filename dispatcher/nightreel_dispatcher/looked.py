"""What the dispatcher said when it last looked whether workers should be started."""

from __future__ import annotations

import datetime as dt

from nightreel_storage.base import Store
from nightreel_storage.errors import NotFound
from nightreel_storage.receipts import Record

NAME = ".nightreel/wake.json"


class Looked(Record):
    """One look: what was there, and what was decided."""

    at: dt.datetime
    why: str
    """Why it looked: a tick, a manifest that came in, the clock."""
    words: str
    """What it decided, with the reason."""
    started: int = 0
    running: int = 0
    """Workers that were up, or on their way, before."""
    jobs: int = 0
    """That waited."""
    work_s: float = 0.0
    """What a worker needs for them, as estimated."""
    oldest_s: float = 0.0
    urgent: int = 0
    look_again_s: float | None = None
    """In how many seconds the answer changes although nothing happens; None when it does not."""
    trouble: bool = False
    """Something could not be had: the words say what, and the mend."""

    @property
    def sentence(self) -> str:
        """For people: what was decided, and when."""
        what = (
            f"{self.started} {'worker' if self.started == 1 else 'workers'} started" if self.started else "none started"
        )
        return f"workers: {what} at {self.at:%Y-%m-%d %H:%M:%S} UTC: {self.words}"

    def like(self, other: Looked) -> bool:
        """Does it tell the same, but for the figures?"""
        return self._gist == other._gist

    @property
    def _gist(self) -> tuple[object, ...]:
        return bool(self.jobs), self.started, self.running, self.trouble


class _Words(Record):
    looked: Looked | None = None


def last(store: Store) -> Looked | None:
    """The last look that anybody took for this store, as of a minute ago at most; None before the first one.

    Raises StoreError.
    """
    try:
        data, _ = store.get(NAME)
    except NotFound:
        return None
    return _Words.from_bytes(data, NAME).looked
