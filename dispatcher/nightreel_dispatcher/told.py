"""Entrances for Google's services: objects that were dropped in the bucket, and the scheduler's tick."""

from __future__ import annotations

import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import HTTPException

from nightreel_storage.gcs_address import GcsAddress

from .bucket_tray import MANIFESTS, BucketTray
from .desk import Desk
from .events import BadEvent, Finalized, Ignored, read_event
from .inbox import Dropped, Inbox
from .intake import Intake
from .jobs import DeskOf, refusals
from .reading import BodyBytes
from .replies import Reply

log = structlog.get_logger()

router = APIRouter(tags=["for Google's services"])

EVENT_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "object"}},
            "application/cloudevents+json": {"schema": {"type": "object"}},
        },
    }
}


@router.post(
    "/events",
    response_model=Reply,
    responses=refusals(400, 413) | {204: {"description": "not about a manifest, or about one that is gone"}},
    openapi_extra=EVENT_BODY,
    summary="A bucket's notification: a manifest was dropped",
)
def take_event(request: Request, desk: DeskOf, body: BodyBytes) -> Response:
    """Pub/Sub push, or a CloudEvent of Eventarc. What sending it again would not mend is answered with 2xx."""
    try:
        event = read_event(request.headers, body)
    except BadEvent as exc:
        raise HTTPException(400, f"is neither a Pub/Sub push nor a CloudEvent of a bucket: {exc}") from exc
    dropped = event if isinstance(event, Ignored) else _dropped(desk, event)
    if isinstance(dropped, Ignored):
        log.info("event_ignored", why=dropped.why)
        return Response(status_code=204)
    inbox = Inbox(Intake(desk), desk.store, BucketTray(desk.store), desk.own.intake_timeout_s)
    reply = inbox.take(dropped)
    if reply is None:
        return Response(status_code=204)
    return Response(reply.to_bytes(), media_type="application/json")


@router.post("/tick", status_code=204, responses=refusals(), summary="The scheduler's: look whether work waits")
def tick(desk: DeskOf) -> Response:
    """As often as you like: twice is as good as once."""
    desk.wake("tick")
    return Response(status_code=204)


def _dropped(desk: Desk, event: Finalized) -> Dropped | Ignored:
    """What an event is about, if it is a manifest of ours."""
    if not desk.settings.store.startswith("gs://"):
        return Ignored(f"is about a bucket, and the store is {desk.settings.store}")
    address = GcsAddress.parse(desk.settings.store)
    folder = address.prefix + MANIFESTS
    name = event.name.removeprefix(folder)
    if event.bucket != address.bucket or name == event.name or not name or name.endswith("/"):
        return Ignored(f"is about gs://{event.bucket}/{event.name}, not under gs://{address.bucket}/{folder}")
    return Dropped(place=f"gs://{address.bucket}/{folder}", name=name, generation=event.generation)
