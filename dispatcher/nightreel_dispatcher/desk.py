"""What all entrances share: the settings, the store, the queue, and whom to tell that something came in."""

from __future__ import annotations

import threading
from collections.abc import Callable

import structlog

from nightreel_queue.base import Queue
from nightreel_queue.connect import open_queue
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_worker.settings import Settings

from .settings import DispatcherSettings

log = structlog.get_logger()

Wake = Callable[[str], None]
"""Told, in words, that something came in: look whether a worker should be started."""


def only_log(reason: str) -> None:
    """Starts nothing: for those who start their workers by other means."""
    log.info("work_came_in", reason=reason)


class Desk:
    """Opened at the first request that needs it, so that a dispatcher starts while its store cannot be reached.

    Safe to use from several threads. `waiting` counts the messages that the queue limit is about.
    """

    def __init__(
        self,
        settings: Settings,
        own: DispatcherSettings,
        wake: Wake = only_log,
        waiting: Callable[[], int] | None = None,
    ) -> None:
        self.settings, self.own = settings, own
        self._wake = wake
        self.waiting = waiting or (lambda: self.queue.backlog().total)
        self._lock = threading.Lock()
        self._store: Store | None = None
        self._queue: Queue | None = None

    @property
    def store(self) -> Store:
        """Raises StoreUnavailable."""
        with self._lock:
            if self._store is None:
                self._store = open_store(self.settings.store)
            return self._store

    @property
    def queue(self) -> Queue:
        """Raises QueueUnavailable."""
        with self._lock:
            if self._queue is None:
                self._queue = open_queue(self.settings.queue_url)
            return self._queue

    @property
    def is_full(self) -> bool:
        """Does as much wait as may wait? Raises QueueUnavailable."""
        return 0 < self.own.queue_limit <= self.waiting()

    def wake(self, reason: str) -> None:
        """Say that something came in. What came in is safe by now, so that trouble with waking must not undo it."""
        try:
            self._wake(reason)
        except Exception:  # the boundary: the next tick looks again
            log.exception("waking_failed", reason=reason)

    def close(self) -> None:
        with self._lock:
            if self._queue is not None:
                self._queue.close()
            self._store = self._queue = None
