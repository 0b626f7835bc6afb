"""When a worker last found the queue empty: what was asked for before that says nothing of what waits."""

from __future__ import annotations

import threading

from nightreel_storage.base import Store
from nightreel_worker.history import LAST_RUNS, read_report
from nightreel_worker.report import run_name

CLOCKS_S = (
    15.0  # that the clocks of workers, store and figures may differ; a queue is found empty only after ten seconds
)


class Emptied:
    """By the reports of the last runs, each of which is read until it is its last. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._known: dict[str, float] = {}
        self._lock = threading.Lock()

    def at(self) -> float:
        """Seconds since the epoch; 0.0 when no run says so. Raises StoreUnavailable."""
        with self._lock:
            names = sorted(entry.name for entry in self._store.list(run_name("")) if entry.name.endswith(".json"))
            for name in names[-LAST_RUNS:]:
                report = read_report(self._store, name) if name not in self._known else None
                if report and report.state == "ended":
                    self._known[name] = report.emptied_at or 0.0
            self._known = {name: self._known[name] for name in names[-LAST_RUNS:] if name in self._known}
            return max(0.0, max(self._known.values(), default=0.0) - CLOCKS_S)
