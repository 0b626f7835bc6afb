"""Keeps a run's report in the store, from time to time while it runs, so that a run that is killed leaves its figures."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

import structlog

from nightreel_storage.base import ABSENT, Store
from nightreel_storage.errors import Conflict, StoreError

from .report import RunReport, run_name

log = structlog.get_logger()

KEEP_EVERY_S = 30.0  # what a killed run's figures may lack at most, as a rule


class Reports:
    """Of one run: nobody else writes its report."""

    def __init__(self, store: Store, now: Callable[[], RunReport], every_s: float = KEEP_EVERY_S) -> None:
        """now: the report as of now."""
        self._store, self._now, self._every_s = store, now, every_s
        self._generation = ABSENT
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="reports", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()

    def keep_last(self, report: RunReport) -> None:
        """The report of a run that has ended; none comes after it."""
        self._stop.set()
        with self._lock:
            self._put(report)

    def _run(self) -> None:
        while not self._stop.wait(self._every_s):
            with self._lock:
                if not self._stop.is_set():
                    self._put(self._now())

    def _put(self, report: RunReport) -> None:
        """Figures must not make a run fail."""
        name, data = run_name(report.run), report.to_bytes()
        try:
            try:
                entry = self._store.put(name, data, generation=self._generation, content_type="application/json")
            except Conflict:  # an earlier put was done, but its answer was lost
                known = self._store.head(name)
                self._generation = known.generation if known else ABSENT
                entry = self._store.put(name, data, generation=self._generation, content_type="application/json")
        except StoreError as exc:
            log.warning("report_not_kept", reason=str(exc))
        else:
            self._generation = entry.generation
