"""Claiming: which deliveries a run takes, and when it has had enough."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, InvalidStateError, wait
from dataclasses import dataclass

from nightreel_queue.base import Delivery, Queue

from .events import Waiting, Watch
from .idle import Idling
from .report import EMPTY
from .settle import try_release

PULL_S = 1.0  # that a pull waits when the run idles; as a rule also how soon an idle worker leaves
BUSY_PULL_S = 0.1  # when it does not, or not yet: the end of the last job must not wait for the end of a pull
EMPTY_PULLS = 3  # at least, before a queue is empty of which one pull proves nothing
LOOK_S = 0.2  # between two looks, during a pull, whether the run has to leave


@dataclass(frozen=True, slots=True)
class Situation:
    """What the run tells about itself."""

    wait_for_room: Callable[[], bool]
    """Blocks until one more delivery may be claimed; False when the run claims no more."""
    busy: Callable[[], bool]
    """Is anything under way?"""
    leaving: Callable[[], bool]
    """Was the run told to leave?"""
    hold: Callable[[], str]
    """Why nothing may be claimed at the moment; empty when it may."""
    passed_on: Callable[[], int] = lambda: 0
    """Delayed messages that this run has left to other backends."""


class Claims:
    """The deliveries of one run, each as soon as there is room for it. Raises QueueUnavailable.

    The run has had enough when it has idled enough on an empty queue, with nothing under way and nothing that comes back:
    delayed messages that are worth waiting for (never those that it has left to other backends), and with `wait_for_others` all of them and also those that other workers
    hold. A queue is empty when several pulls, for as long as it asks for, brought nothing; one on hold counts as empty.
    """

    def __init__(
        self, queue: Queue, situation: Situation, watch: Watch, *, idling: Idling, wait_for_others: bool
    ) -> None:
        self._queue = queue
        self._now = situation
        self._watch = watch
        self._idling = idling
        self._wait_for_others = wait_for_others
        self._empty_since: float | None = None
        self._empty_pulls = 0
        self._waiting = False
        """It was told that the run waits for messages that come back."""
        self._left = 0
        """Delayed messages that are not worth waiting for."""
        self.why = ""
        """Why there were no more."""

    def __iter__(self) -> Iterator[Delivery]:
        while self._now.wait_for_room():
            delivery = self._pull()
            if self._now.leaving():  # it was told to leave while it pulled
                if delivery:
                    try_release(delivery)
                return
            if delivery:
                self._empty_since, self._waiting = None, False
                yield delivery
            elif not self._is_idle():
                self._empty_since = None
            elif self._has_enough():
                hold = self._now.hold()
                self.why = f"on hold: {hold}" if hold else self._emptiness()
                return

    def _has_enough(self) -> bool:
        """Nothing came again: is it believed, and is it time to leave?"""
        if self._empty_since is None:
            self._empty_since, self._empty_pulls = time.monotonic(), 0
        self._empty_pulls += 1
        empty_s = time.monotonic() - self._empty_since
        must_s = self._queue.empty_after_s
        believed = not must_s or (empty_s >= must_s and self._empty_pulls >= EMPTY_PULLS) or bool(self._now.hold())
        return believed and self._idling.enough(empty_s)

    def _emptiness(self) -> str:
        next_s = self._queue.backlog().next_ready_s if self._left else None
        if next_s is None:
            return EMPTY
        return f"{EMPTY}; {self._left} to be tried again, the next in {next_s:.0f} s: too long to idle for"

    def _pull(self) -> Delivery | None:
        patience_s = BUSY_PULL_S if self._now.busy() or self._empty_since is None else PULL_S
        if self._now.hold():
            time.sleep(patience_s)
            return None
        return self._pull_unless_leaving(patience_s)

    def _pull_unless_leaving(self, wait_s: float) -> Delivery | None:
        """Pull in a thread of its own, which is left behind when the run has to leave: the queue may not answer."""
        answer: Future[Delivery | None] = Future()

        def pull() -> None:
            try:
                delivery = self._queue.pull(wait_s)
            except Exception as exc:  # noqa: BLE001  # raised where it is waited for
                with contextlib.suppress(InvalidStateError):
                    answer.set_exception(exc)
                return
            try:
                answer.set_result(delivery)
            except InvalidStateError:  # nobody waits for it any more
                if delivery:
                    try_release(delivery)

        threading.Thread(target=pull, name="pull", daemon=True).start()
        while not wait((answer,), LOOK_S).done:
            if self._now.leaving() and answer.cancel():
                return None
        return answer.result()

    def _is_idle(self) -> bool:
        """Nothing in hand, nothing that comes back soon."""
        if self._now.busy():
            return False
        if self._now.hold():
            return True
        backlog = self._queue.backlog()
        leased = backlog.leased if self._wait_for_others else 0
        delayed = max(0, backlog.delayed - self._now.passed_on())
        if delayed and not (self._wait_for_others or self._idling.waits_for(backlog.next_ready_s or 0.0)):
            delayed = 0
        self._left = backlog.delayed - delayed
        if (leased or delayed) and not self._waiting:
            self._watch(Waiting(leased, delayed, backlog.next_ready_s))
        self._waiting = bool(leased or delayed)
        return not (backlog.ready or self._waiting)
