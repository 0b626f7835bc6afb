"""Request bodies: read within limits, and named after what they are."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.exceptions import HTTPException

from nightreel_queue.manifest import KINDS

from .desk import Desk

NAME = r"^[A-Za-z0-9_][A-Za-z0-9_. \-]{0,99}$"
SUFFIXES = {
    "application/json": ".json",
    "application/x-ndjson": ".jsonl",
    "application/jsonl": ".jsonl",
    "application/yaml": ".yaml",
    "application/x-yaml": ".yaml",
    "text/yaml": ".yaml",
    "text/csv": ".csv",
    "text/tab-separated-values": ".tsv",
    "text/plain": ".txt",
}

NameQuery = Annotated[
    str,
    Query(
        pattern=NAME,
        description="the manifest's file name: its suffix tells the form, and the batch is called after it",
    ),
]


def desk_of(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


async def body_of(request: Request) -> bytes:
    """The body. Raises HTTPException 413 as soon as it is clear that it is too large."""
    most_mb = desk_of(request).own.max_manifest_mb
    most_bytes = int(most_mb * 10**6)
    too_large = HTTPException(413, f"is larger than {most_mb:g} MB: split it")
    if int(request.headers.get("content-length", "0")) > most_bytes:
        raise too_large
    data = bytearray()
    async for chunk in request.stream():
        data += chunk
        if len(data) > most_bytes:
            raise too_large
    return bytes(data)


def file_name(request: Request, name: str) -> str:
    """The name of the manifest in a request's body. Raises HTTPException 415 when nothing tells its form."""
    if Path(name).suffix.lower() in KINDS:
        return name
    content_type = re.split("[;,]", request.headers.get("content-type", ""))[0].strip().lower()
    if content_type not in SUFFIXES:
        kinds = ", ".join(SUFFIXES)
        raise HTTPException(415, f"is of type {content_type[:100]!r}: send one of {kinds}, or ?name= with a suffix")
    return name + SUFFIXES[content_type]


BodyBytes = Annotated[bytes, Depends(body_of)]
