"""The ledger of starts: who decided to start workers, and what came of it. One object in the store, `.nightreel/wake.json`.

A start is recorded before the launcher is asked, by compare-and-swap: of two dispatchers that decide at once one wins, and
the other reads again and finds the winner's workers on their way. From then on they count as running until the launcher
has listed and ended them, or has not listed them for APPEAR_S. A start that came to nothing makes the next one wait.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Literal

from nightreel_storage.base import ABSENT, Store
from nightreel_storage.errors import Conflict, NotFound
from nightreel_storage.receipts import Record

from .launchers.base import Execution
from .looked import NAME, Looked

APPEAR_S = 120.0  # after which a start that the launcher does not list has not happened
BACK_OFF_S, MOST_BACK_OFF_S = (
    60.0,
    3600.0,
)  # after the first start that came to nothing, doubled with each, and the most
KEPT_CLOSED = 20  # starts that are over, for people who ask why

Outcome = Literal["", "worked", "nothing", "never"]
CameOf = Callable[["Start"], bool]
"""Did the workers of this start do anything? By their run reports."""


class Start(Record):
    """One decision to start workers."""

    id: str
    """What its workers know as NIGHTREEL_WAKE_ID."""
    at: dt.datetime
    count: int
    why: str
    jobs: int
    """What waited then."""
    work_s: float
    state: Literal["decided", "started", "unclear", "refused"] = "decided"
    """decided: the launcher's answer is not recorded; unclear: it gave none."""
    ids: tuple[str, ...] = ()
    """The launcher's names of the workers."""
    seen: int = 0
    """The most workers of it that the launcher has listed."""
    outcome: Outcome = ""
    """Empty while it is under way. nothing: its workers ended and had done nothing; never: they were never listed."""
    problem: str = ""
    """What the launcher said."""

    def owns(self, execution: Execution) -> bool:
        return execution.wake == self.id or execution.id in self.ids

    def on_its_way(self, executions: Sequence[Execution], now_s: float) -> int:
        """Workers that were asked for and have never been listed, while they still may be."""
        if self.outcome or self.state == "refused" or now_s - self.at.timestamp() >= APPEAR_S:
            return 0
        wanted = len(self.ids) if self.state == "started" else self.count
        return max(0, wanted - max(self.seen, sum(map(self.owns, executions))))

    def updated(self, executions: Sequence[Execution], now_s: float, came_of: CameOf) -> Start:
        """As of now: with what was listed, and closed when nothing of it is up or can still come up."""
        if self.outcome:
            return self
        own = [each for each in executions if self.owns(each)]
        seen = max(self.seen, len(own))
        start = self.model_copy(update={"seen": seen})
        if any(each.is_up for each in own) or start.on_its_way(executions, now_s):
            return start
        if self.state == "refused":
            return start.model_copy(update={"outcome": "nothing"})
        if not seen:
            return start.model_copy(update={"outcome": "worked" if came_of(start) else "never"})
        words = next((each.words for each in own if each.state == "failed" and each.words), "")
        outcome = "worked" if came_of(start) else "nothing"
        return start.model_copy(update={"outcome": outcome, "problem": words or self.problem})


class Ledger(Record):
    """What all dispatchers of one store know of starts."""

    starts: tuple[Start, ...] = ()
    """Oldest first."""
    vain: int = 0
    """Starts in a row that came to nothing."""
    not_before: dt.datetime | None = None
    """Nothing is started before that, for those."""
    problem: str = ""
    """What the last of them said."""
    looked: Looked | None = None

    def updated(self, executions: Sequence[Execution], now_s: float, came_of: CameOf) -> Ledger:
        """As of now."""
        starts = tuple(start.updated(executions, now_s, came_of) for start in self.starts)
        ledger = self.model_copy(update={"starts": _kept(starts)})
        for before, after in zip(self.starts, starts, strict=True):
            if after.outcome and not before.outcome:
                ledger = ledger._closing(after, now_s)
        return ledger

    def running(self, executions: Sequence[Execution], now_s: float) -> int:
        """Workers that are up, or on their way."""
        up = sum(each.is_up for each in executions)
        return up + sum(start.on_its_way(executions, now_s) for start in self.starts)

    def waits_s(self, now_s: float) -> float:
        """Seconds for which nothing is started, because earlier starts came to nothing."""
        return max(0.0, self.not_before.timestamp() - now_s) if self.not_before else 0.0

    def forgetting(self) -> Ledger:
        """Without the failures: somebody has mended what was wrong."""
        return self.model_copy(update={"vain": 0, "not_before": None, "problem": ""})

    def with_start(self, start: Start) -> Ledger:
        return self.model_copy(update={"starts": (*self.starts, start)})

    def answered(self, start: Start, now_s: float, retry_s: float = 0.0, *, exactly: bool = False) -> Ledger:
        """With what the launcher said to a start. One that was refused is over: the next one waits, `retry_s` at least.

        exactly: no longer than that either, however often it was refused: nothing was paid for.
        """
        said: dict[str, object] = {"state": start.state, "ids": start.ids, "problem": start.problem}
        if start.state == "refused":
            said["outcome"] = "nothing"
        starts = tuple(each.model_copy(update=said) if each.id == start.id else each for each in self.starts)
        ledger = self.model_copy(update={"starts": starts})
        return ledger._failed(start.problem, now_s, retry_s, exactly=exactly) if start.state == "refused" else ledger

    def _closing(self, start: Start, now_s: float) -> Ledger:
        """What a start that is over says about the next one."""
        if start.outcome == "worked":
            return self.forgetting()
        if start.outcome == "never" and start.state == "decided":
            return self  # the dispatcher was killed before it asked the launcher: the next start makes that good
        return self._failed(start.problem, now_s)

    def _failed(self, problem: str, now_s: float, retry_s: float = 0.0, *, exactly: bool = False) -> Ledger:
        pause_s = retry_s if exactly else max(retry_s, min(BACK_OFF_S * 2 ** min(self.vain, 20), MOST_BACK_OFF_S))
        until = dt.datetime.fromtimestamp(now_s + pause_s, dt.UTC)
        return self.model_copy(
            update={"vain": 1 if exactly else self.vain + 1, "not_before": until, "problem": problem}
        )


def _kept(starts: Sequence[Start]) -> tuple[Start, ...]:
    """All that are under way, and the last ones that are over."""
    closed = [start.id for start in starts if start.outcome][-KEPT_CLOSED:]
    return tuple(start for start in starts if not start.outcome or start.id in closed)


class Starts:
    """The ledger of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def read(self) -> tuple[Ledger, int]:
        """The ledger, and the generation to give to `write`. Raises StoreError."""
        try:
            data, entry = self._store.get(NAME)
        except NotFound:
            return Ledger(), ABSENT
        return Ledger.from_bytes(data, NAME), entry.generation

    def write(self, ledger: Ledger, generation: int) -> None:
        """Raises Conflict when somebody else wrote meanwhile."""
        self._store.put(NAME, ledger.to_bytes(), generation=generation, content_type="application/json")

    def answered(
        self, start: Start, looked: Looked, now_s: float, retry_s: float = 0.0, *, exactly: bool = False
    ) -> None:
        """Record what the launcher said to a start, whatever others write meanwhile, and what there is to tell of it."""
        while True:
            ledger, generation = self.read()
            answered = ledger.answered(start, now_s, retry_s, exactly=exactly)
            try:
                self.write(answered.model_copy(update={"looked": looked}), generation)
            except Conflict:
                continue
            return
