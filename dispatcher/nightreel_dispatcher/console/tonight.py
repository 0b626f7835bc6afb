"""Tonight: what waits, who works, what has come of it, what it costs."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from markupsafe import Markup

from nightreel_queue.base import Backlog
from nightreel_storage.base import Store
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import utc_now
from nightreel_worker.ledger import Ledger
from nightreel_worker.ledger import month_of as ledger_month
from nightreel_worker.report import RunReport

from ..looked import last
from .catalogue import Listed
from .census import Count
from .pages import changed, live, page, part
from .runbook import month_of, noon_before, silent_s, spent_since, started_just_now
from .shelf import Shelf, ShelfOf
from .words import count as counted

BATCHES = 5
AT = "/console/tonight"

router = APIRouter()


@dataclass(frozen=True, slots=True)
class AtWork:
    """A run that has not ended."""

    run: str
    report: RunReport | None
    """None in its first half minute."""
    jobs: tuple[str, ...]
    """What it has begun, as BATCH/JOB."""
    silent_s: float = 0.0
    """Since it last said something; 0 for one that is at work."""


@dataclass(frozen=True, slots=True)
class Budget:
    """Of one month, in US dollars."""

    reserved_usd: float
    """Or spent."""
    limit_usd: float
    """0: none is set."""

    @property
    def share(self) -> float:
        """In per cent, 100 at most."""
        return min(100.0, 100 * self.reserved_usd / self.limit_usd)


@router.get("/")
def tonight(request: Request, shelf: ShelfOf, did: str = "") -> Response:
    body, said = _body(request, shelf)
    held = Holds(shelf.desk.store).read()
    return page(request, "tonight.html", live=live(body, AT, said), said=said, held=held, did=did)


@router.get("/tonight")
def tonight_now(request: Request, shelf: ShelfOf, was: str = "") -> Response:
    body, said = _body(request, shelf)
    return changed(body, AT, was, said)


def _body(request: Request, shelf: Shelf) -> tuple[Markup, str]:
    now, store = utc_now(), shelf.desk.store
    backlog = shelf.desk.queue.backlog()
    batches, _ = shelf.catalogue.newest(0, BATCHES)
    newest = [(batch, shelf.census.count(batch)) for batch in batches]
    reports = shelf.runbook.since(min(month_of(now), noon_before(now)))
    runs = _at_work(reports, newest, now)
    said = headline(backlog, sum(not run.silent_s for run in runs))
    body = part(
        request,
        "_tonight.html",
        said=said,
        backlog=backlog,
        hold=Holds(store).read(),
        looked=last(store),
        runs=runs,
        newest=newest,
        night=spent_since(reports, noon_before(now)),
        month=spent_since(reports, month_of(now)),
        night_began=noon_before(now),
        month_began=month_of(now),
        limit_usd=shelf.desk.settings.max_cost_usd,
        budget=month_budget(store, shelf.desk.settings.monthly_usd, now),
    )
    return body, said


def month_budget(store: Store, limit_usd: float, now: dt.datetime) -> Budget:
    """What the ledger says of this month. The limit is this dispatcher's setting, or as the runs were last told."""
    month = Ledger(store).read(ledger_month(now))
    return Budget(month.micro_usd / 1e6, limit_usd or month.limit_micro_usd / 1e6)


def headline(backlog: Backlog, workers: int) -> str:
    """All in a sentence."""
    waiting = backlog.ready + backlog.delayed
    waits = f"{counted(waiting, 'video')} {'waits' if waiting == 1 else 'wait'}" if waiting else "Nothing waits"
    works = f"{counted(workers, 'worker')} {'renders' if workers == 1 else 'render'}" if workers else "no worker is up"
    return f"{waits}, {works}."


def _at_work(
    reports: Sequence[RunReport], newest: Sequence[tuple[Listed, Count | None]], now: dt.datetime
) -> list[AtWork]:
    begun: dict[str, list[str]] = {}
    for batch, count in newest:
        for job, attempt in (count.started if count else {}).items():
            begun.setdefault(attempt.run, []).append(f"{batch.name}/{job}")
    found = [
        AtWork(report.run, report, tuple(begun.get(report.run, ())), silent_s(report, now))
        for report in reports
        if report.state == "running" and (not silent_s(report, now) or report.ended_at > noon_before(now))
    ]
    known = {report.run for report in reports}
    new = [run for run in begun if run not in known and started_just_now(run, now)]
    return [*(AtWork(run, None, tuple(begun[run])) for run in new), *found]
