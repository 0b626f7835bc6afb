"""Submitting: what a manifest would make and take is said while it is typed, and before it is enqueued."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.responses import HTMLResponse, RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData

from nightreel_queue.errors import InvalidJob, Problem, QueueUnavailable
from nightreel_queue.manifest import KINDS
from nightreel_storage.batches import IdTaken
from nightreel_storage.errors import StoreUnavailable

from ..desk import Desk
from ..intake import Intake
from ..jobs import check_room
from .checking import Checked, Given, check, given_file, given_text, text_of, with_lines
from .door import ROOT
from .forms import Form, text, upload
from .pages import page, part
from .shelf import ShelfOf

TYPED_BYTES = 300_000  # of a text that is checked while it is typed; larger ones when they are asked for
FIELDS = ("text", "kind", "name")
REFUSED: dict[type[Exception], int] = {
    InvalidJob: 422,
    IdTaken: 409,
    QueueUnavailable: 503,
    StoreUnavailable: 503,
    HTTPException: 429,
}

router = APIRouter()


@router.get("/submit")
def write(request: Request) -> Response:
    return _page(request, dict.fromkeys(FIELDS, ""))


@router.post("/submit/check")
async def look(request: Request, shelf: ShelfOf, form: Form) -> Response:
    """For htmx what was found, without scripts the whole page with it."""
    values, given, is_file = await _given(form)
    by_htmx, is_empty = bool(request.headers.get("hx-request")), not given.data.strip()
    if by_htmx and not is_empty and not is_file and len(given.data) > TYPED_BYTES:
        return HTMLResponse(part(request, "_found.html", checked=None, most_kb=TYPED_BYTES // 1000))
    checked = None if is_empty else await run_in_threadpool(check, shelf.desk, given)
    if by_htmx:
        return HTMLResponse(part(request, "_found.html", checked=checked) if checked else "")
    return await run_in_threadpool(_page, request, values | _echo(given, is_file), checked)


@router.post("/submit")
async def submit(request: Request, shelf: ShelfOf, form: Form) -> Response:
    """The same manifest again is the same batch, and changes nothing."""
    values, given, is_file = await _given(form)
    try:
        batch = await run_in_threadpool(_take, shelf.desk, given)
    except tuple(REFUSED) as exc:
        shown = values | _echo(given, is_file)
        status = exc.status_code if isinstance(exc, HTTPException) else REFUSED[_kind_of(exc)]
        return await run_in_threadpool(_page, request, shown, _refused(exc, given), status)
    return RedirectResponse(f"{ROOT}/batches/{batch}?did=submitted-0-0", 303)


def _take(desk: Desk, given: Given) -> str:
    check_room(desk)
    return Intake(desk).take(given.data, given.name).manifest.batch


async def _given(form: FormData) -> tuple[dict[str, str], Given, bool]:
    """The form's fields, what they hold, and whether it comes from a file, which wins over the text."""
    values = {name: text(form, name) for name in FIELDS}
    kind = values["kind"] if f".{values['kind']}" in KINDS else ""
    if file := await upload(form, "file"):
        return values, given_file(*file), True
    return values, given_text(values["name"], kind, values["text"]), False


def _echo(given: Given, is_file: bool) -> dict[str, str]:
    """A page cannot choose a file again: what was in it goes into the text, so that nothing is lost."""
    stem, _, kind = given.name.rpartition(".")
    return {"text": text_of(given), "kind": kind, "name": stem} if is_file else {}


def _refused(exc: Exception, given: Given) -> Checked:
    if isinstance(exc, InvalidJob):
        return Checked(given, with_lines(exc.problems, given))
    words = str(exc.detail) if isinstance(exc, HTTPException) else str(exc)
    return Checked(given, with_lines([Problem(words)], given))


def _kind_of(exc: Exception) -> type[Exception]:
    return next(kind for kind in REFUSED if isinstance(exc, kind))


def _page(request: Request, values: dict[str, Any], checked: Checked | None = None, status: int = 200) -> Response:
    kinds = [suffix.removeprefix(".") for suffix in KINDS if suffix != ".yml"]
    return page(request, "submit.html", status, values=values, checked=checked, kinds=kinds)
