"""Entrances for programs: jobs in, and how they are."""

from __future__ import annotations

import time
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.exceptions import HTTPException

from nightreel_storage.receipts import AlreadyEnded

from .answers import BatchAnswer, Cancelled, JobAnswer, Problems, Submitted
from .desk import Desk
from .intake import Intake
from .looking import asked_for, call_off, look_at_batch, look_at_job, open_jobs
from .reading import SUFFIXES, BodyBytes, NameQuery, desk_of, file_name

FULL_RETRY_S = 60  # a job takes about as long; somebody else's may be first then
CANCEL_BATCH_S = 20.0  # of one request

Id = Annotated[str, Path(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
DeskOf = Annotated[Desk, Depends(desk_of)]


def refusals(*codes: int) -> dict[int | str, dict[str, Any]]:
    """How an entrance may refuse, for its OpenAPI; every one may refuse who asks, or be without store or queue."""
    words = {
        401: "no token, or one that is not accepted",
        403: "who asks may not",
        400: "it cannot be read",
        404: "no such job or batch",
        409: "it ended already, or the id is taken by other content",
        413: "larger than NIGHTREEL_DISPATCHER_MAX_MANIFEST_MB",
        415: "nothing tells the manifest's form",
        422: "the request is wrong: all that is, with line and field",
        429: "as many messages wait as may wait; see Retry-After",
        503: "the queue or the store cannot be reached; see Retry-After",
    }
    return {code: {"model": Problems, "description": words[code]} for code in sorted({401, 403, 503, *codes})}


MANIFEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            kind: {
                "schema": {"anyOf": [{"$ref": "#/components/schemas/Job"}, {"$ref": "#/components/schemas/Manifest"}]}
                if kind == "application/json"
                else {"type": "string", "description": f"a manifest as in a {suffix} file"}
            }
            for kind, suffix in SUFFIXES.items()
        },
    }
}

router = APIRouter(tags=["jobs"])


def check_room(desk: Desk) -> None:
    """Raises HTTPException 429 when as many messages wait as may wait."""
    if desk.is_full:
        words = f"{desk.own.queue_limit} messages or more wait: come back later"
        raise HTTPException(429, words, {"Retry-After": str(FULL_RETRY_S)})


@router.post(
    "/jobs",
    status_code=202,
    response_model=Submitted,
    responses=refusals(409, 413, 415, 422, 429),
    openapi_extra=MANIFEST_BODY,
    summary="Enqueue one job or a manifest, all or none",
)
def submit_jobs(
    request: Request, response: Response, desk: DeskOf, body: BodyBytes, name: NameQuery = "jobs"
) -> Submitted:
    """The same request again changes nothing and is answered alike."""
    check_room(desk)
    taken = Intake(desk).take(body, file_name(request, name))
    manifest = taken.manifest
    status = f"/batches/{manifest.batch}"
    response.headers["Location"] = status
    remarks = list(manifest.remarks)
    return Submitted(batch=manifest.batch, jobs=taken.ids, repeated=manifest.repeated, remarks=remarks, status=status)


@router.get("/jobs/{batch}/{job}", response_model=JobAnswer, responses=refusals(404, 422), summary="How a job is")
def get_job(desk: DeskOf, batch: Id, job: Id) -> JobAnswer:
    return look_at_job(desk.store, batch, job)


@router.delete(
    "/jobs/{batch}/{job}",
    response_model=Cancelled,
    responses=refusals(404, 409, 422),
    summary="Call a job off, also while it is being rendered",
)
def cancel_job(desk: DeskOf, batch: Id, job: Id) -> Cancelled:
    call_off(desk.store, batch, asked_for(desk.store, batch, job))
    return Cancelled(cancelled=1)


@router.get("/batches/{batch}", response_model=BatchAnswer, responses=refusals(404, 422), summary="How a batch is")
def get_batch(
    desk: DeskOf,
    batch: Id,
    offset: Annotated[int, Query(ge=0, le=10**6)] = 0,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
) -> BatchAnswer:
    return look_at_batch(desk.store, batch, offset, limit)


@router.delete(
    "/batches/{batch}",
    response_model=Cancelled,
    responses=refusals(404, 422),
    summary="Call off all jobs of a batch that have not ended",
)
def cancel_batch(desk: DeskOf, batch: Id) -> Cancelled:
    """Stops after 20 seconds and says how many are left."""
    deadline = time.monotonic() + CANCEL_BATCH_S
    cancelled = left = 0
    for asked in open_jobs(desk.store, batch):
        if time.monotonic() > deadline:
            left += 1
            continue
        try:
            call_off(desk.store, batch, asked)
        except AlreadyEnded:
            continue  # a worker was faster
        cancelled += 1
    return Cancelled(cancelled=cancelled, left=left)
