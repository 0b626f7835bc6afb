"""What earlier runs left behind in the store: their reports, and what follows from them for the next one."""

from __future__ import annotations

import contextlib
import statistics
import threading
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import ModelSpec
from nightreel_storage.base import Store
from nightreel_storage.errors import NotFound, StoreError

from .estimate import Taken
from .meter import Meter
from .report import RunReport, run_name

log = structlog.get_logger()

GUESSED_START_S = 6.0  # two Python processes, one of which imports torch, on two busy cores
GUESSED_END_S = 0.2
LAST_RUNS = 20  # that estimates are made of: enough to average, few enough to follow a change of machine


@dataclass(frozen=True, slots=True)
class History:
    """The last runs, oldest first."""

    runs: Sequence[RunReport]

    @classmethod
    def read(cls, store: Store, last: int = LAST_RUNS) -> History:
        """Reports that cannot be read are left out: an estimate is no reason to stop. Raises StoreUnavailable."""
        prefix = run_name("")
        names = sorted(entry.name for entry in store.list(prefix) if entry.name.endswith(".json"))
        found = (read_report(store, name) for name in names[-last:])
        return cls(tuple(run for run in found if run))

    @property
    def taken(self) -> list[Taken]:
        return [row for run in self.runs for row in run.taken]

    def of(self, model: str) -> History:
        """The runs that rendered with this model."""
        return History([run for run in self.runs if any(row.model == model for row in run.taken)])

    def description(self, model: str) -> Description:
        """What the model was where it rendered last; all empty when no run tells."""
        rows = [row for row in self.taken if row.model == model]
        if not rows:
            return Description("", "", "", "")
        return Description(rows[-1].source, rows[-1].revision, rows[-1].precision, rows[-1].device)

    def start_s(self, spec: ModelSpec) -> float:
        """Seconds from a worker's start until it renders: starting, importing and loading."""
        runs = self.of(spec.name).runs
        started = [run.stages_s.get("start", 0.0) + run.stages_s.get("import", 0.0) for run in runs if run.stages_s]
        loaded = [run.stages_s["load"] for run in runs if run.stages_s.get("load")]
        return _middle(started, GUESSED_START_S) + _middle(loaded, spec.expected_load_s)

    def end_s(self, spec: ModelSpec) -> float:
        """Seconds that a worker takes to leave."""
        ended = [run for run in self.of(spec.name).runs if run.stages_s and run.state == "ended"]
        left = [run.stages_s.get("drain", 0.0) for run in ended]
        return _middle(left, GUESSED_END_S)


def read_report(store: Store, name: str) -> RunReport | None:
    """A run's report; None when it is gone, or cannot be read. Raises StoreUnavailable."""
    with contextlib.suppress(NotFound):
        data, _ = store.get(name)
        with contextlib.suppress(StoreError):
            return RunReport.from_bytes(data, name)
    return None


class Earlier:
    """The history as this run found it: read when somebody first asks, and empty when it cannot be read."""

    def __init__(self, store: Store, run: str) -> None:
        """run: the id of this run, whose own report may be there already: what it took is counted elsewhere."""
        self._store, self._run = store, run
        self._history: History | None = None
        self._lock = threading.Lock()

    def read(self) -> History:
        with self._lock:
            if self._history is None:
                try:
                    found = History.read(self._store).runs
                    self._history = History([run for run in found if run.run != self._run])
                except StoreError as exc:
                    log.warning("history_not_read", reason=str(exc))
                    self._history = History(())
            return self._history


def cold_start_s(meter: Meter, restarts: int, earlier: Earlier, spec: ModelSpec) -> float:
    """What a start of this worker costs, as this run has measured it; before it loaded anything, as earlier runs did.

    restarts: renderers that were replaced: each was imported and loaded, and a start has one.
    """
    if meter.booked_s("load"):
        return meter.booked_s("start") + meter.booked_s("import", "load") / (1 + restarts)
    return earlier.read().start_s(spec)


def _middle(found: Sequence[float], guess: float) -> float:
    """The median: one run on a busy machine, or from a cold disk, does not count."""
    return statistics.median(found) if found else guess
