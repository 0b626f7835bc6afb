"""What Google tells about objects: Pub/Sub's push envelope, and CloudEvents of Eventarc, binary and structured.

    Pub/Sub push   {"message": {"attributes": {"eventType": "OBJECT_FINALIZE", "bucketId": ..., ...}}, ...}
    CloudEvents    header ce-type, or content type application/cloudevents+json; of Storage, or of Pub/Sub around the same

Sources: cloud.google.com/storage/docs/pubsub-notifications, cloud.google.com/eventarc/docs/cloudevents, and the HTTP
binding of CloudEvents 1.0.2.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

FINALIZED = "google.cloud.storage.object.v1.finalized"
PUBLISHED = "google.cloud.pubsub.topic.v1.messagePublished"
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"

Generation = Annotated[int, Field(gt=0, lt=2**63)]
T = TypeVar("T", bound=BaseModel)


class BadEvent(Exception):
    """Raised when a request is no event; says what is missing."""


class _Given(BaseModel):
    """Base of what Google sends: fields that are not named here are skipped."""

    model_config = ConfigDict(frozen=True, extra="ignore")


class Finalized(_Given):
    """An object that has come to be, or was overwritten."""

    bucket: str = Field(min_length=3, max_length=222)
    name: str = Field(min_length=1, max_length=1024)
    generation: Generation


class _Attributes(_Given):
    eventType: str = ""
    bucketId: str = ""
    objectId: str = ""
    objectGeneration: str = ""


class _PubSubMessage(_Given):
    attributes: _Attributes = _Attributes()


class _Push(_Given):
    message: _PubSubMessage


class _Envelope(_Given):
    specversion: Literal["1.0"]
    type: str = Field(min_length=1)
    source: str = Field(min_length=1)
    id: str = Field(min_length=1)
    data: Any = None
    data_base64: str | None = None


@dataclass(frozen=True, slots=True)
class Ignored:
    """An event that is about something else, and what about."""

    why: str


def read_event(headers: Mapping[str, str], body: bytes) -> Finalized | Ignored:
    """What an event says. `headers` are found whatever their case. Raises BadEvent."""
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type == BATCHED:
        raise BadEvent("batches of CloudEvents are not taken: send them one by one")
    data = _json(body)
    if content_type == STRUCTURED:
        envelope = _checked(_Envelope, data)
        return _of_type(envelope.type, _data_of(envelope))
    if "ce-type" in headers:
        named = {name: headers.get(f"ce-{name}", "") for name in ("specversion", "type", "source", "id")}
        return _of_type(_checked(_Envelope, named).type, data)
    return _pushed(data)


def _of_type(kind: str, data: Any) -> Finalized | Ignored:
    if kind == FINALIZED:
        return _checked(Finalized, data)
    return _pushed(data) if kind == PUBLISHED else Ignored(f"is of type {kind[:100]}")


def _pushed(data: Any) -> Finalized | Ignored:
    """A message that is no notification of a bucket is somebody's mistake, which sending it again would not mend."""
    attributes = _checked(_Push, data).message.attributes
    if attributes.eventType != "OBJECT_FINALIZE":
        return Ignored(f"has the attribute eventType {attributes.eventType[:100]!r}")
    found = {
        "bucket": attributes.bucketId,
        "name": attributes.objectId,
        "generation": attributes.objectGeneration,
    }
    try:
        return _checked(Finalized, found)
    except BadEvent as exc:
        return Ignored(f"is a notification without its parts: {exc}")


def _data_of(envelope: _Envelope) -> Any:
    if envelope.data_base64 is None:
        return envelope.data
    try:
        return _json(base64.b64decode(envelope.data_base64, validate=True))
    except binascii.Error as exc:
        raise BadEvent("data_base64: is not base64") from exc


def _json(body: bytes) -> Any:
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as exc:
        raise BadEvent("the body is not JSON") from exc


def _checked(kind: type[T], data: Any) -> T:
    try:
        return kind.model_validate(data)
    except ValidationError as exc:
        error = exc.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, error["loc"])) or "the body"
        raise BadEvent(f"{field}: {error['msg']}") from exc
