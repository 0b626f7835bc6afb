"""What a video takes and costs at each backend: as its last runs did, or as the model's entry and the price say."""

from __future__ import annotations

import datetime as dt
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nightreel_pipelines.models import ModelSpec
from nightreel_storage.base import Store
from nightreel_storage.receipts import Receipts
from nightreel_worker.history import History, read_report
from nightreel_worker.prices import find_price
from nightreel_worker.report import RunReport, run_name

from .backends import Backend
from .board import Begun
from .waker import EARLY
from .workload import GUESSED_SHOTS, guessed_job_s, pace_of

LAST = 50  # runs of all backends that are looked at
READ_EVERY_S = 300.0
GUESSED_VIDEO_S = 4.0 * GUESSED_SHOTS  # of a job of which nothing is known


@dataclass(frozen=True, slots=True)
class Expense:
    """Of one video at one backend."""

    start_s: float
    """From a worker's start until it renders."""
    job_s: float
    usd: float
    """Starting and idling shared out, where it is measured; of the job alone where it is guessed."""
    measured: bool


class Expenses:
    """Of the backends of one store; read again every few minutes. Safe to use from several threads."""

    def __init__(
        self,
        store: Callable[[], Store],
        models: Mapping[str, ModelSpec],
        prices: Path | None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store, self._models, self._prices, self._clock = store, models, prices, clock
        self._lock = threading.Lock()
        self._read_at = -READ_EVERY_S
        self._history = History(())

    def of(self, backend: Backend) -> Expense:
        """Raises StoreUnavailable, BadPrice."""
        spec, own = self._models[backend.model], self._own(backend)
        pace = pace_of(own if own.runs else self._read(), spec)
        done = sum(run.done for run in own.runs)
        if done:
            return Expense(pace.start_s, pace.job_s, sum(run.usd for run in own.runs) / done, True)
        price = find_price(backend.price, self._prices)
        job_s = pace.job_s or guessed_job_s(spec)
        return Expense(pace.start_s, job_s, price.cost_usd(job_s, GUESSED_VIDEO_S), False)

    def passed(self, backend: Backend) -> frozenset[str]:
        """Jobs, BATCH/JOB, that its workers left to others, and that have not ended. Raises StoreError."""
        named = {name for run in self._own(backend).runs for name in run.passed}
        receipts = Receipts(self._store())
        return frozenset(name for name in named if not _ended(receipts, name))

    def reports(self, start: Begun) -> list[RunReport]:
        """Of the runs of a start, at any backend. Raises StoreUnavailable."""
        begun = dt.datetime.fromtimestamp(start.at, dt.UTC)
        earliest = f"{run_name('')}{begun - EARLY:%Y%m%dT%H%M%S}"
        entries = (entry.name for entry in self._store().list(run_name("")) if entry.name.endswith(".json"))
        found = (read_report(self._store(), name) for name in entries if name >= earliest)
        return [report for report in found if report and report.wake == start.wake]

    def _own(self, backend: Backend) -> History:
        runs = self._read().runs
        return History([run for run in runs if (run.backend, run.model) == (backend.name, backend.model)])

    def _read(self) -> History:
        with self._lock:
            now = self._clock()
            if now - self._read_at >= READ_EVERY_S:
                self._history, self._read_at = History.read(self._store(), LAST), now
            return self._history


def _ended(receipts: Receipts, name: str) -> bool:
    batch, _, job = name.partition("/")
    held = receipts.read(batch, job)
    return held is not None and held.receipt.ended
