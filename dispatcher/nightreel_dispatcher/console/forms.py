"""What browsers send: bounded, and only from our own pages."""

from __future__ import annotations

import hmac
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from fastapi.exceptions import HTTPException
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser

from ..reading import desk_of
from .sessions import Session

CSRF_FIELD = "csrf"
MAX_FIELDS = 20
SLACK_BYTES = 10_000  # of the fields around a manifest
SIGN_IN_BYTES = 10_000


async def form_of(request: Request) -> AsyncIterator[FormData]:
    """The fields of a form that one of our pages has sent in this session.

    Raises HTTPException: 403 for any other page's, 413 as soon as it is clear that it is too large, 400, 415.
    """
    form = await read_form(request, most_bytes(request))
    try:
        check_csrf(request.scope["nightreel.session"], text(form, CSRF_FIELD))
        yield form
    finally:
        await form.close()


Form = Annotated[FormData, Depends(form_of)]


def check_csrf(session: Session | None, given: str) -> None:
    """Raises HTTPException 403."""
    if session is None or not hmac.compare_digest(session.csrf.encode(), given.encode("utf-8", "replace")):
        raise HTTPException(403, "the page that sent this belongs to another session: load it again, and repeat")


def text(form: FormData, name: str) -> str:
    """A field's text; empty when there is none."""
    value = form.get(name)
    return value if isinstance(value, str) else ""


async def upload(form: FormData, name: str) -> tuple[str, bytes] | None:
    """An uploaded file's name and content; None when none was chosen."""
    value = form.get(name)
    if not isinstance(value, UploadFile) or not value.filename:
        return None
    return value.filename, await value.read()


async def read_form(request: Request, most: int) -> FormData:
    """Whoever sent it. Raises as `form_of` does. `most`: bytes."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind == "multipart/form-data":
        try:
            return await MultiPartParser(
                request.headers, _bounded(request, most), max_files=1, max_fields=MAX_FIELDS, max_part_size=most
            ).parse()
        except MultiPartException as exc:
            raise HTTPException(400, f"the form cannot be read: {exc.message}") from exc
    if kind == "application/x-www-form-urlencoded":
        return await FormParser(request.headers, _bounded(request, most)).parse()
    raise HTTPException(415, "send a form")


def most_bytes(request: Request) -> int:
    return int(desk_of(request).own.max_manifest_mb * 10**6) + SLACK_BYTES


async def _bounded(request: Request, most: int) -> AsyncGenerator[bytes, None]:
    got = 0
    async for chunk in request.stream():
        got += len(chunk)
        if got > most:
            raise HTTPException(413, f"is larger than {most / 1e6:g} MB: split it")
        yield chunk
