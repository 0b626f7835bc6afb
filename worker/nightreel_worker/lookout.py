"""Looks for what others say while this worker works: jobs cancelled or ended by somebody else, a hold."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Self

import structlog

from nightreel_storage.base import Store
from nightreel_storage.errors import StoreError
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import receipt_name

from .admission import Work

log = structlog.get_logger()


class Lookout:
    """A thread that looks every few seconds at the store's hold and at the receipts of the jobs under way."""

    def __init__(
        self, store: Store, every_s: float, under_way: Callable[[], Iterable[Work]], cancel: Callable[[str], None]
    ) -> None:
        self._store = store
        self._holds = Holds(store)
        self._hold = ""
        self._every_s = every_s
        self._under_way = under_way
        self._cancel = cancel
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="lookout", daemon=True)

    def __enter__(self) -> Self:
        self._look_for_hold()  # before the first claim
        self._thread.start()
        return self

    def hold(self) -> str:
        """Why nothing may be claimed, as of the last look; empty when it may."""
        return self._hold

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            self._look_for_hold()
            self._look_for_ends()

    def _look_for_hold(self) -> None:
        try:
            hold = self._holds.read()
        except StoreError as exc:  # what was known before still holds
            log.warning("lookout_failed", reason=str(exc))
        else:
            self._hold = (hold.reason or "no reason given") if hold else ""

    def _look_for_ends(self) -> None:
        for work in self._under_way():
            try:
                ended = self._has_ended(work)
            except StoreError as exc:
                log.warning("lookout_failed", reason=str(exc))
                break
            if ended:
                self._cancel(work.key)

    def _has_ended(self, work: Work) -> bool:
        entry = self._store.head(receipt_name(*work.request.name))
        known = work.request.over.generation if work.request.over else None
        return entry is not None and entry.generation != known
