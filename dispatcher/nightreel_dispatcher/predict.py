"""Submit one job and wait for it, as callers of prediction services do."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated

import structlog
from fastapi import APIRouter, Query, Request
from fastapi.responses import JSONResponse
from starlette.concurrency import run_in_threadpool

from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.manifest import read_manifest
from nightreel_storage.base import Store
from nightreel_storage.receipts import Receipt, Receipts, receipt_name

from .answers import Pending
from .desk import Desk
from .intake import Intake
from .jobs import MANIFEST_BODY, DeskOf, check_room, refusals
from .reading import BodyBytes, NameQuery, file_name
from .settings import PREDICT_MAX_S

PAUSES_S = (0.1, 3.0)  # the first and the longest between two looks; each is half as long again as the one before

log = structlog.get_logger()

router = APIRouter(tags=["jobs"])


@router.post(
    "/predict",
    response_model=Receipt,
    responses=refusals(409, 413, 415, 422, 429)
    | {202: {"model": Pending, "description": "it had not ended when the wait was over"}},
    openapi_extra=MANIFEST_BODY,
    summary="Enqueue one job and wait until it has ended",
)
async def predict(
    request: Request,
    desk: DeskOf,
    body: BodyBytes,
    name: NameQuery = "predict",
    wait_s: Annotated[float | None, Query(ge=0, le=PREDICT_MAX_S, description="seconds, 900 at most")] = None,
) -> JSONResponse:
    """200 with the receipt, which may be that of a job that failed; 202 when the wait was over before.

    Who hangs up stops waiting; the job goes on.
    """
    batch, job = await run_in_threadpool(_submit, desk, body, file_name(request, name))
    wait = desk.own.predict_wait_s if wait_s is None else wait_s
    receipt = await _ended(request, desk.store, batch, job, wait)
    if receipt is not None:
        return JSONResponse(receipt.model_dump(mode="json"))
    status = f"/jobs/{batch}/{job}"
    pending = Pending(batch=batch, job=job, status=status)
    return JSONResponse(pending.model_dump(), 202, {"Location": status})


def _submit(desk: Desk, body: bytes, name: str) -> tuple[str, str]:
    check_room(desk)
    intake = Intake(desk)
    intake.check_size(len(body), name)
    if (count := len(read_manifest(body, name).jobs)) > 1:
        raise InvalidJob([Problem(f"has {count} jobs: POST /predict takes one, POST /jobs takes many", place=name)])
    taken = intake.take(body, name)
    return taken.manifest.batch, taken.ids[0]


async def _ended(request: Request, store: Store, batch: str, job: str, wait_s: float) -> Receipt | None:
    """The receipt, once the job has ended; None when the wait is over, or nobody waits any more."""
    deadline = time.monotonic() + wait_s
    pause_s, longest_s = PAUSES_S
    while True:
        if receipt := await run_in_threadpool(_look, store, batch, job):
            return receipt
        left_s = deadline - time.monotonic()
        if left_s <= 0:
            return None
        if await request.is_disconnected():
            log.info("caller_hung_up", batch=batch, job=job)
            return None
        await asyncio.sleep(min(pause_s, left_s))
        pause_s = min(1.5 * pause_s, longest_s)


def _look(store: Store, batch: str, job: str) -> Receipt | None:
    if store.head(receipt_name(batch, job)) is None:  # the cheapest question, and nearly always the answer
        return None
    held = Receipts(store).read(batch, job)
    return held.receipt if held and held.receipt.ended else None
