"""What is known of each backend: its health, its breaker, what was started there. One object, `.nightreel/backends.json`.

Dispatchers come and go (on Cloud Run with each request), so it lies in the store, changed by compare-and-swap.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Self

from pydantic import Field

from nightreel_storage.base import ABSENT, Store
from nightreel_storage.errors import Conflict, NotFound
from nightreel_storage.receipts import Record

from .breaker import Breaker

NAME = ".nightreel/backends.json"
WRITE_EVERY_S = 30.0  # when nothing but latencies changed


class Health(Record):
    """What a backend answered when it was last asked."""

    ok: bool = True
    words: str = ""
    """What went wrong."""
    latency_s: float | None = None
    at: dt.datetime | None = None
    since: dt.datetime | None = None
    """Since when it has been as it is."""
    missed: int = 0
    """Times in a row that it did not answer well."""

    def heard(self, ok: bool, words: str, latency_s: float, now: dt.datetime) -> Self:
        """After it was asked once more."""
        return type(self)(
            ok=ok,
            words=words,
            latency_s=round(latency_s, 4),
            at=now,
            since=self.since if self.at and self.ok == ok else now,
            missed=0 if ok else self.missed + 1,
        )

    def told(self, name: str) -> str:
        """Why nothing is started there; empty when it is well."""
        if self.ok or self.since is None:
            return ""
        return f"{name} did not answer since {self.since:%H:%M:%S} UTC ({self.words})"


class Begun(Record):
    """Workers that were started, until it is known what came of them."""

    wake: str
    at: float
    """Seconds since the epoch."""
    count: int
    ids: tuple[str, ...] = ()
    """The launcher's names of them; none when it gave no answer."""
    worked: bool = False
    """One of them has ended a job."""


class BackendState(Record):
    """Of one backend."""

    health: Health = Health()
    breaker: Breaker = Breaker()
    begun: tuple[Begun, ...] = ()
    running: int = 0

    def begins(self, start: Begun, until_s: float) -> Self:
        """Workers are about to be asked for; they have until then to show themselves."""
        begun, running = (*self.begun, start), self.running + start.count
        return self.model_copy(update={"begun": begun, "running": running, "breaker": self.breaker.tried(until_s)})

    def answers(self, wake: str, ids: tuple[str, ...]) -> Self:
        """They were started: perhaps fewer than were asked for."""
        now = {"ids": ids, "count": len(ids)}
        begun = tuple(start.model_copy(update=now) if start.wake == wake else start for start in self.begun)
        return self.model_copy(update={"begun": begun})

    def without(self, start: Begun) -> Self:
        """They were not."""
        begun = tuple(each for each in self.begun if each.wake != start.wake)
        return self.model_copy(update={"begun": begun, "running": max(0, self.running - start.count)})


class Preference(Record):
    """Which backend comes first, and who said so."""

    name: str
    by: str
    at: dt.datetime


class Board(Record):
    """Of all backends of one store."""

    at: dt.datetime | None = None
    """When it was written."""
    backends: dict[str, BackendState] = Field(default_factory=dict)
    prefer: Preference | None = None

    def state(self, name: str) -> BackendState:
        return self.backends.get(name, BackendState())

    def with_state(self, name: str, state: BackendState) -> Self:
        return self.model_copy(update={"backends": {**self.backends, name: state}})

    @property
    def gist(self) -> object:
        """All but the figures of the last asking."""
        quiet = {"at": None, "latency_s": None}
        states = {name: (state, state.health.model_copy(update=quiet)) for name, state in self.backends.items()}
        return self.prefer, {
            name: (health, state.breaker, state.begun, state.running) for name, (state, health) in states.items()
        }


class Boards:
    """The board of one store."""

    def __init__(self, store: Callable[[], Store]) -> None:
        """store: asked for when it is first needed."""
        self._store = store

    def read(self) -> Board:
        """Raises StoreError."""
        return self._read()[0]

    def change(self, how: Callable[[Board], Board], now: dt.datetime) -> Board:
        """Change it, whatever others write meanwhile: `how` may be called several times. Raises StoreError."""
        while True:
            board, generation = self._read()
            changed = how(board)
            written_s = (now - board.at).total_seconds() if board.at else WRITE_EVERY_S
            if changed.gist == board.gist and written_s < WRITE_EVERY_S:
                return changed
            changed = changed.model_copy(update={"at": now})
            try:
                self._store().put(NAME, changed.to_bytes(), generation=generation, content_type="application/json")
            except Conflict:
                continue  # somebody else saw something meanwhile
            return changed

    def prefer(self, name: str, by: str, now: dt.datetime) -> Board:
        """Let a backend come first, or none when `name` is empty. Raises StoreError."""
        said = Preference(name=name, by=by, at=now) if name else None
        return self.change(lambda board: board.model_copy(update={"prefer": said}), now)

    def _read(self) -> tuple[Board, int]:
        try:
            data, entry = self._store().get(NAME)
        except NotFound:
            return Board(), ABSENT
        return Board.from_bytes(data, NAME), entry.generation
