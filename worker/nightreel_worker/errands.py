"""Errands: what a run does on the side, for others. They are done by a few threads, and no job ever waits for one.

The line is short enough for any memory. A place that fails three times in a row is given up until the run ends, and only
two threads at a time are busy with one place: a dead one costs a few timeouts in the background, whatever it was to get.
"""

from __future__ import annotations

import collections
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from nightreel_queue.errors import QueueUnavailable

from .errors import Unreachable, WebError
from .notices import Notice

log = structlog.get_logger()

MAX_WAITING = 1000  # errands in line; a few kB each
THREADS = 4
THREADS_A_PLACE = 2
TRIES = 3
PAUSES_S = (0.5, 1.0)  # before the second try, and before the third
FAILURES_IN_A_ROW = 3  # after which a place is given up


@dataclass(frozen=True, slots=True, eq=False)
class Errand:
    """One notice for one receiver."""

    notice: Notice
    to: str
    """Who is told, as logs may say it: no path, no query."""
    send: Callable[[], None]
    """Raises Unreachable or QueueUnavailable where another try may help, WebError where it cannot."""


class Errands:
    """The line and its threads. `ended` hears of each errand once: with "" when it was done, else with the reason."""

    def __init__(self, ended: Callable[[Errand, str], None]) -> None:
        self._ended = ended
        self._changed = threading.Condition()
        self._waiting: collections.deque[Errand] = collections.deque()
        self._under_way: list[Errand] = []
        self._failures: collections.Counter[str] = collections.Counter()
        """In a row, by place."""
        self._threads = 0
        self._over = threading.Event()

    def add(self, errand: Errand) -> None:
        """Put an errand in line. Returns at once."""
        with self._changed:
            refusal = self._refusal(errand)
            if not refusal:
                self._waiting.append(errand)
                if self._threads < THREADS:
                    self._threads += 1
                    threading.Thread(target=self._run, name="errands", daemon=True).start()
                self._changed.notify_all()
        if refusal:
            self._ended(errand, refusal)

    def finish(self, by: float) -> None:
        """Wait until all are done, at most until `by` (monotonic seconds); what is not done by then is given up."""
        with self._changed:
            self._changed.wait_for(lambda: not (self._waiting or self._under_way), max(0.0, by - time.monotonic()))
            left = [*self._under_way, *self._waiting]
            self._under_way.clear()
            self._waiting.clear()
            self._over.set()
            self._changed.notify_all()
        for errand in left:
            self._ended(errand, "the run ended before it could be told")

    def _refusal(self, errand: Errand) -> str:
        if self._over.is_set():
            return "the run has ended"
        if len(self._waiting) >= MAX_WAITING:
            return f"{MAX_WAITING} others are in line"
        return self._given_up(errand)

    def _given_up(self, errand: Errand) -> str:
        if self._failures[errand.to] < FAILURES_IN_A_ROW:
            return ""
        return f"{errand.to} has failed {FAILURES_IN_A_ROW} times in a row: it is not asked again in this run"

    def _run(self) -> None:
        while errand := self._next():
            reason = self._pursue(errand)
            with self._changed:
                ours = errand in self._under_way  # else `finish` has given it up
                if ours:
                    self._under_way.remove(errand)
                self._changed.notify_all()
            if ours:
                self._ended(errand, reason)

    def _next(self) -> Errand | None:
        """The first errand to a place that is not busy enough already; None when the run is over."""
        with self._changed:
            while not self._over.is_set():
                busy = collections.Counter(errand.to for errand in self._under_way)
                for errand in self._waiting:
                    if busy[errand.to] < THREADS_A_PLACE:
                        self._waiting.remove(errand)
                        self._under_way.append(errand)
                        return errand
                self._changed.wait()
        return None

    def _pursue(self, errand: Errand) -> str:
        """Try until it is done, or cannot be; the reason why not."""
        reason = ""
        for pause_s in (0.0, *PAUSES_S):
            if self._over.wait(pause_s):
                return reason
            if given_up := self._given_up(errand):
                return reason or given_up
            try:
                errand.send()
            except (Unreachable, QueueUnavailable) as exc:
                reason = str(exc)
                self._failed(errand)
            except WebError as exc:
                return str(exc)
            except Exception as exc:  # noqa: BLE001  # a mistake of ours must not take a thread away from the others
                return f"{type(exc).__name__}: {exc}"
            else:
                self._failures[errand.to] = 0
                return ""
        return reason

    def _failed(self, errand: Errand) -> None:
        with self._changed:
            self._failures[errand.to] += 1
            given_up = self._failures[errand.to] == FAILURES_IN_A_ROW
        if given_up:
            log.warning("receiver_given_up", to=errand.to)
