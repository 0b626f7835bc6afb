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
from .settle import try_release

PULL_S = 1.0  # that a pull waits when nothing is under way; as a rule also how soon an idle worker leaves
BUSY_PULL_S = 0.1  # while something is: the end of the last job must not wait for the end of a pull
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


class Claims:
    """The deliveries of one run, each as soon as there is room for it. Raises QueueUnavailable.

    The run has had enough when the queue has been empty for `idle_timeout_s` with nothing under way and nothing that
    comes back: delayed messages, and with `wait_for_others` also those that other workers hold. A queue on hold counts
    as empty.
    """

    def __init__(
        self, queue: Queue, situation: Situation, watch: Watch, *, idle_timeout_s: float, wait_for_others: bool
    ) -> None:
        self._queue = queue
        self._now = situation
        self._watch = watch
        self._idle_timeout_s = idle_timeout_s
        self._wait_for_others = wait_for_others
        self._waiting = False
        """It was told that the run waits for messages that come back."""
        self.why = ""
        """Why there were no more."""

    def __iter__(self) -> Iterator[Delivery]:
        empty_since: float | None = None
        while self._now.wait_for_room():
            delivery = self._pull()
            if self._now.leaving():  # it was told to leave while it pulled
                if delivery:
                    try_release(delivery)
                return
            if delivery:
                empty_since, self._waiting = None, False
                yield delivery
            elif self._is_idle():
                empty_since = empty_since or time.monotonic()
                if time.monotonic() - empty_since >= self._idle_timeout_s:
                    hold = self._now.hold()
                    self.why = f"on hold: {hold}" if hold else "the queue is empty"
                    return
            else:
                empty_since = None

    def _pull(self) -> Delivery | None:
        patience_s = BUSY_PULL_S if self._now.busy() or not self._idle_timeout_s else PULL_S
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
        if (leased or backlog.delayed) and not self._waiting:
            self._watch(Waiting(leased, backlog.delayed, backlog.next_ready_s))
        self._waiting = bool(leased or backlog.delayed)
        return not (backlog.ready or self._waiting)
