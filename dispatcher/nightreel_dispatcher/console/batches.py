"""Batches: the list, the contact sheet of one, and one job of it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any, Literal
from urllib.parse import urlencode

from fastapi import APIRouter, Query, Request, Response
from markupsafe import Markup
from pydantic import ValidationError

from nightreel_queue.job import Job
from nightreel_storage.attempts import Attempts
from nightreel_storage.base import Store
from nightreel_storage.errors import NotFound
from nightreel_storage.receipts import Receipt, Receipts

from ..answers import JobAnswer
from ..jobs import Id
from ..looking import asked_for, how_is
from .catalogue import Listed, check_member
from .census import AT_ONCE
from .pages import POLL_S, changed, live, page, part
from .shelf import Shelf, ShelfOf

LISTED = 20  # batches on a page
TILES = 60  # jobs on a page
COUNTING_S = 1  # after which a page asks again whose batch is being counted
STATES = ("done", "failed", "cancelled", "started", "waiting")

Page = Annotated[int, Query(ge=1, le=10**6)]
OneState = Annotated[Literal["", "done", "failed", "cancelled", "started", "waiting"], Query()]

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Tile:
    """One job on the contact sheet."""

    job: str
    answer: JobAnswer

    @property
    def receipt(self) -> Receipt | None:
        return self.answer.receipt

    @property
    def poster(self) -> str:
        """Its content's checksum; empty without one."""
        return sha256_of(self.receipt, ".jpg")

    @property
    def video(self) -> str:
        return sha256_of(self.receipt, ".mp4")


@router.get("/batches")
def batches(request: Request, shelf: ShelfOf, at: Page = 1) -> Response:
    found, more = shelf.catalogue.newest((at - 1) * LISTED, LISTED)
    rows = [(batch, shelf.census.count(batch)) for batch in found]
    return page(request, "batches.html", rows=rows, at=at, more=more)


@router.get("/batches/{batch}")
def batch(request: Request, shelf: ShelfOf, batch: Id, at: Page = 1, state: OneState = "", did: str = "") -> Response:
    known = shelf.catalogue.find(batch)
    body, said, again_s = _sheet(request, shelf, known, at, state)
    shown = live(body, _sheet_address(batch, at, state), said, again_s) if again_s else body
    return page(request, "batch.html", batch=known, body=shown, said=said, did=did)


@router.get("/batches/{batch}/sheet")
def sheet(request: Request, shelf: ShelfOf, batch: Id, at: Page = 1, state: OneState = "", was: str = "") -> Response:
    body, said, again_s = _sheet(request, shelf, shelf.catalogue.find(batch), at, state)
    return changed(body, _sheet_address(batch, at, state), was, said, again_s or POLL_S, rests=not again_s)


@router.get("/batches/{batch}/{job}")
def job(request: Request, shelf: ShelfOf, batch: Id, job: Id, did: str = "") -> Response:
    """A page, or for htmx the part of it that goes above the contact sheet."""
    check_member(shelf.catalogue.find(batch), job)
    store = shelf.desk.store
    held = Receipts(store).read(batch, job)
    answer = how_is(store, batch, job, held)
    history = Attempts(store).history(batch, job, answer.round)
    asked = _as_asked(store, batch, job, answer)
    shown: dict[str, Any] = {"tile": Tile(job, answer), "batch": batch, "history": history, "asked": asked}
    if request.headers.get("hx-request"):
        return Response(part(request, "_job.html", **shown, above=True), media_type="text/html")
    return page(request, "job.html", **shown, did=did)


def _sheet(request: Request, shelf: Shelf, batch: Listed, at: int, state: str) -> tuple[Markup, str, int]:
    """The contact sheet, what there is to say of it, and in how many seconds to ask again; 0: nothing changes by itself."""
    count = shelf.census.count(batch)
    wanted: Sequence[str] = batch.jobs
    if state:  # whose jobs are not known before they are counted
        wanted = [job for job in batch.jobs if count.state_of(job) == state] if count else []
    first = (at - 1) * TILES
    tiles = _tiles(shelf.desk.store, batch.name, wanted[first : first + TILES])
    states = count.states if count else None
    said = ", ".join(f"{states[one]} {one}" for one in STATES if states[one]) if states else "being counted"
    body = part(
        request,
        "_batch.html",
        batch=batch,
        count=count,
        states=STATES,
        tiles=tiles,
        at=at,
        state=state,
        pages=-(-len(wanted) // TILES),
        shown=len(wanted),
    )
    if count is None:
        return body, said, COUNTING_S
    return body, said, POLL_S if count.open else 0


def _sheet_address(batch: str, at: int, state: str) -> str:
    return f"/console/batches/{batch}/sheet?" + urlencode({"at": at, "state": state})


def _tiles(store: Store, batch: str, jobs: Sequence[str]) -> list[Tile]:
    """As they are at this moment."""
    receipts = Receipts(store)

    def tile(job: str) -> Tile:
        return Tile(job, how_is(store, batch, job, receipts.read(batch, job)))

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(tile, jobs))


def _as_asked(store: Store, batch: str, job: str, answer: JobAnswer) -> Job | None:
    """None where nobody has kept it (published without a manifest, and done), or in a form that this version cannot read."""
    message = answer.receipt.request if answer.receipt else ""
    if not message:
        try:
            message = asked_for(store, batch, job).message
        except NotFound:
            return None
    try:
        return Job.model_validate_json(message) if message else None
    except ValidationError:
        return None


def sha256_of(receipt: Receipt | None, suffix: str) -> str:
    """Of a job's file; empty when there is none."""
    files = receipt.outputs if receipt else ()
    return next((file.sha256 for file in files if file.name.endswith(suffix)), "")
