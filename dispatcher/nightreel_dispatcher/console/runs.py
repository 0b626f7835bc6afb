"""Runs: what each cost, and where each of its seconds went."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from nightreel_storage.receipts import utc_now
from nightreel_worker.report import RunReport

from .pages import page
from .runbook import silent_s
from .shelf import Shelf, ShelfOf

LISTED = 30  # runs on a page
LOOKED_THROUGH = 20  # of the newest batches, for what failed in a run
STAGES = {
    "start": "the process starts",
    "import": "libraries are imported",
    "load": "the model is loaded",
    "render": "keyframes are rendered",
    "film": "films are made, and no keyframe is",
    "upload": "videos are verified and put, and nothing is rendered or filmed",
    "wait": "it waits for the queue or the store, with work in hand",
    "idle": "nothing waits",
    "drain": "it leaves",
}

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Stage:
    """What part of a run went to something."""

    name: str
    meaning: str
    seconds: float
    begin: float
    """On the bar, in per cent of the run."""
    share: float
    """In per cent."""


@router.get("/runs")
def runs(request: Request, shelf: ShelfOf, at: Annotated[int, Query(ge=1, le=10**6)] = 1) -> Response:
    found, more = shelf.runbook.newest((at - 1) * LISTED, LISTED)
    now = utc_now()
    rows = [(report, stages(report), silent_s(report, now)) for report in found]
    return page(request, "runs.html", rows=rows, at=at, more=more)


@router.get("/runs/{run}")
def run(request: Request, shelf: ShelfOf, run: Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]) -> Response:
    report = shelf.runbook.find(run)
    silent = silent_s(report, utc_now())
    failed = list(_failed(shelf, report)) if report.failed else []
    return page(request, "run.html", report=report, stages=stages(report), failed=failed, silent=silent)


def stages(report: RunReport) -> list[Stage]:
    """In the order in which a run passes through them; those that took no time are left out."""
    whole_s = sum(report.stages_s.values())
    found, begin = [], 0.0
    for name in [*STAGES, *(other for other in report.stages_s if other not in STAGES)]:
        seconds = report.stages_s.get(name, 0.0)
        if seconds > 0:
            share = 100 * seconds / whole_s
            found.append(Stage(name, STAGES.get(name, ""), seconds, begin, share))
            begin += share
    return found


def _failed(shelf: Shelf, report: RunReport) -> Iterator[tuple[str, str, str]]:
    """Batch, job and reason of what failed in this run, as far as the newest batches tell."""
    batches, _ = shelf.catalogue.newest(0, LOOKED_THROUGH)
    for batch in batches:
        count = shelf.census.count(batch)
        for each in count.failed if count else ():
            if each.run == report.run:
                yield batch.name, each.job, each.reason
