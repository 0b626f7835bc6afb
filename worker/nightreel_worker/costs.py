"""What runs cost, by day, machine and model, from the reports that they left in the store.

A report tells its dollars for the run as a whole. Where a run rendered with several models, they are shared out in
proportion to the seconds that the stages took for each (`Taken`); what it does not tell by model, such as jobs that failed,
goes to the model that took longest. In millionths of a dollar the rows add up to the reports, whatever was shared.
"""

from __future__ import annotations

import datetime as dt
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from nightreel_storage.base import Store
from nightreel_storage.errors import StoreError, StoreUnavailable

from .ledger import micro
from .report import RunReport, run_name

AT_ONCE = 8  # reads, which wait for a bucket's answers most of the time
NO_MODEL = "-"


@dataclass(slots=True)
class Costs:
    """Of one day (UTC, when its runs began), price and model."""

    day: dt.date
    price: str
    model: str
    """A dash for runs that rendered nothing."""
    runs: int = 0
    """A run with several models counts for each."""
    jobs: int = 0
    """Made or failed."""
    videos: int = 0
    direct_micro_usd: int = 0
    """On receipts, in millionths of a dollar."""
    shared_micro_usd: int = 0
    """On none: starting, loading, waiting, leaving, and what was lost."""

    @property
    def usd(self) -> float:
        return (self.direct_micro_usd + self.shared_micro_usd) / 1e6

    @property
    def usd_per_video(self) -> float | None:
        """All shared out; None where no video was made."""
        return self.usd / self.videos if self.videos else None


def read_reports(store: Store, since: dt.date) -> tuple[list[RunReport], int]:
    """The reports of runs that began on this day (UTC) or later, oldest first, and how many could not be read.

    Raises StoreUnavailable.
    """
    folder = run_name("")
    first = f"{folder}{since:%Y%m%d}"  # a run's id begins with when it began
    names = sorted(entry.name for entry in store.list(folder) if entry.name.endswith(".json") and entry.name >= first)

    def read(name: str) -> RunReport | None:
        try:
            return RunReport.from_bytes(store.get(name)[0], name)
        except StoreUnavailable:
            raise
        except StoreError:
            return None

    with ThreadPoolExecutor(AT_ONCE) as pool:
        reports = [report for report in pool.map(read, names) if report]
    return reports, len(names) - len(reports)


def costs(reports: Iterable[RunReport]) -> list[Costs]:
    """By day, price and model."""
    rows: dict[tuple[dt.date, str, str], Costs] = {}
    for report in reports:
        videos, seconds = _by_model(report)
        longest = max(seconds, key=lambda model: seconds[model])
        models = list(seconds)
        weights = [seconds[model] for model in models]
        direct, shared = (_parts(micro(usd), weights) for usd in (report.jobs_usd, report.shared_usd))
        for number, model in enumerate(models):
            key = (report.started_at.astimezone(dt.UTC).date(), report.price, model)
            row = rows.setdefault(key, Costs(*key))
            row.runs += 1
            made = videos[model] + (report.done - videos.total() if model == longest else 0)
            row.videos += made
            row.jobs += made + (report.failed if model == longest else 0)
            row.direct_micro_usd += direct[number]
            row.shared_micro_usd += shared[number]
    return [rows[key] for key in sorted(rows)]


def _by_model(report: RunReport) -> tuple[Counter[str], dict[str, float]]:
    """Videos, and seconds of all stages together."""
    videos, seconds = Counter[str](), dict[str, float]()
    for row in report.taken:
        videos[row.model] += row.jobs
        seconds[row.model] = seconds.get(row.model, 0.0) + row.keyframes_s + row.film_s + row.verify_s
    return videos, seconds or {NO_MODEL: 0.0}


def _parts(whole: int, weights: Sequence[float]) -> list[int]:
    """Whole parts in proportion to weights that add up exactly; all equal when nothing weighs anything."""
    total = sum(weights)
    parts, given, passed = [], 0, 0.0
    for number, weight in enumerate(weights, 1):
        passed += weight
        upto = round(whole * (passed / total if total else number / len(weights))) if number < len(weights) else whole
        parts.append(upto - given)
        given = upto
    return parts
