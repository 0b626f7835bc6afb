"""What the runs' reports say: who works, and what it costs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from nightreel_storage.base import Store
from nightreel_storage.errors import NotFound, StoreError
from nightreel_worker.report import RunReport, run_name
from nightreel_worker.reports import KEEP_EVERY_S

SILENT_S = 3 * KEEP_EVERY_S  # a run that has said nothing for so long was killed
NOON_H = 12
KEPT = 2000  # reports
_START = "%Y%m%dT%H%M%S"  # how the ids of runs begin


@dataclass(frozen=True, slots=True)
class Spent:
    """What some runs cost together."""

    runs: int
    usd: float
    seconds: float
    videos: int

    @property
    def usd_per_video(self) -> float:
        return self.usd / self.videos if self.videos else 0.0


class Runbook:
    """The run reports of one store. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._report = lru_cache(KEPT)(self._read)

    def newest(self, offset: int, limit: int) -> tuple[list[RunReport], bool]:
        """The latest first; and are there more? Reports that cannot be read are left out."""
        listed = self._listed()
        reports = [self._report(*each) for each in listed[offset : offset + limit]]
        return [report for report in reports if report], len(listed) > offset + limit

    def find(self, run: str) -> RunReport:
        """Raises NotFound, and StoreError for one that cannot be read."""
        name = run_name(run)
        return RunReport.from_bytes(self._store.get(name)[0], name)

    def since(self, at: dt.datetime) -> list[RunReport]:
        """Those that started then or later, the latest first."""
        least = f"{run_name('')}{at.astimezone(dt.UTC):{_START}}"
        reports = [self._report(*each) for each in self._listed() if each[0] >= least]
        return [report for report in reports if report]

    def _listed(self) -> list[tuple[str, int]]:
        entries = [entry for entry in self._store.list(run_name("")) if entry.name.endswith(".json")]
        return [(entry.name, entry.generation) for entry in reversed(entries)]

    def _read(self, name: str, generation: int) -> RunReport | None:
        try:
            return RunReport.from_bytes(self._store.get(name)[0], name)
        except (NotFound, StoreError):
            return None


def silent_s(report: RunReport, now: dt.datetime) -> float:
    """For how long a run that has not ended has said nothing; 0 while that is no reason to worry."""
    silence_s = (now - report.ended_at).total_seconds()
    return silence_s if report.state == "running" and silence_s > SILENT_S else 0.0


def started_just_now(run: str, now: dt.datetime) -> bool:
    """Is it too early for a run's first report? Its id begins with its start."""
    try:
        started = dt.datetime.strptime(run.partition("-")[0], _START).replace(tzinfo=dt.UTC)
    except ValueError:
        return False
    return (now - started).total_seconds() < SILENT_S


def spent_since(reports: Sequence[RunReport], at: dt.datetime) -> Spent:
    """Of the runs that began then or later."""
    found = [report for report in reports if report.started_at >= at]
    return Spent(
        len(found),
        sum(report.usd for report in found),
        sum(report.seconds for report in found),
        sum(report.done for report in found),
    )


def noon_before(now: dt.datetime) -> dt.datetime:
    """When this night began: the last noon (UTC)."""
    noon = now.astimezone(dt.UTC).replace(hour=NOON_H, minute=0, second=0, microsecond=0)
    return noon if noon <= now else noon - dt.timedelta(days=1)


def month_of(now: dt.datetime) -> dt.datetime:
    """When this month began (UTC)."""
    return now.astimezone(dt.UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
