"""Backends: how each is, what a video costs there, and which one gets the next worker; prefer one, start a worker at one."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.responses import RedirectResponse
from markupsafe import Markup

from ..backend_lines import Line, lines
from ..board import Board
from ..fleet import Fleet, trouble
from .door import ROOT, SESSION
from .forms import Form, text
from .pages import changed, live, page, part
from .shelf import Shelf, ShelfOf

HERE = f"{ROOT}/backends"
AT = f"{HERE}/now"
EVERY_S = 30
BY = "the console"  # where nobody said who is at it

router = APIRouter()


@dataclass(frozen=True, slots=True)
class Bar:
    """What a video costs at a backend, beside the others."""

    line: Line
    share: float
    """Of the dearest one, in per cent."""


@router.get("/backends")
def backends(request: Request, shelf: ShelfOf, did: str = "") -> Response:
    body, said = _body(request, shelf)
    return page(request, "backends.html", live=live(body, AT, said, EVERY_S), said=said, did=did)


@router.get("/backends/now")
def backends_now(request: Request, shelf: ShelfOf, was: str = "") -> Response:
    body, said = _body(request, shelf)
    return changed(body, AT, was, said, EVERY_S)


@router.post("/backends/prefer")
def prefer(request: Request, shelf: ShelfOf, form: Form) -> Response:
    """The backend `name`; none without one."""
    name = text(form, "name")
    if name:
        _check_name(_chosen(shelf), name)
    _chosen(shelf).prefer(name, request.scope[SESSION].account or BY)
    return RedirectResponse(f"{HERE}?did={'preferred' if name else 'unpreferred'}-0-0", 303)


@router.post("/backends/ask")
def ask(shelf: ShelfOf, form: Form) -> Response:
    _chosen(shelf).check()
    return RedirectResponse(f"{HERE}?did=asked-0-0", 303)


@router.post("/backends/start")
def start(shelf: ShelfOf, form: Form) -> Response:
    """One worker at the backend `name`, as the waker starts them; 409 with the reason when none was."""
    fleet, waker, name = shelf.fleet, shelf.waker, text(form, "name")
    _check_name(fleet, name)
    if waker is None:
        raise HTTPException(409, "nothing starts workers here: set NIGHTREEL_DISPATCHER_LAUNCHER")
    why = f"a worker was asked for by hand at {name}"
    if fleet is waker.launcher:
        looked = waker.start_one(why, lambda begun: fleet.start_at(name, begun.id), lambda: fleet.against(name))
    else:
        looked = waker.start_one(why)
    if looked.trouble or not looked.started:
        raise HTTPException(409, looked.words)
    return RedirectResponse(f"{HERE}?did=begun-0-0", 303)


def headline(found: Sequence[Line]) -> str:
    """All in a sentence."""
    if takes := next((line for line in found if line.next), None):
        return f"The next worker starts at {takes.name}."
    if busy := [line.name for line in found if line.running]:
        return f"At work: {', '.join(busy)}. No backend may start another worker now."
    return "No backend may start a worker now."


def bars(found: Sequence[Line]) -> list[Bar]:
    """In the same order. The dearest fills the width; what costs nothing has no bar."""
    most = max((line.video_usd for line in found), default=0.0)
    return [Bar(line, 100 * line.video_usd / most if most else 0.0) for line in found]


def _body(request: Request, shelf: Shelf) -> tuple[Markup, str]:
    fleet, several = shelf.fleet, _is_of_a_file(shelf)
    board = fleet.board() if several else fleet.glance()
    found = lines(fleet, board)
    said = headline(found)
    body = part(
        request,
        "_backends.html",
        said=said,
        lines=found,
        troubles={line.name: _trouble(line, board) for line in found},
        bars=bars(found),
        prefer=_preference(board, fleet),
        several=several,
    )
    return body, said


def _trouble(line: Line, board: Board) -> str:
    """What its breaker says beside the card's state; the reason is not told twice."""
    said = trouble(board.state(line.name).breaker, time.time())
    return said if said in line.state else said.replace(line.state, "as above")


def _preference(board: Board, fleet: Fleet) -> object:
    """As it counts: one for a backend that the file has lost does not."""
    named = {member.name for member in fleet.members}
    return board.prefer if board.prefer and board.prefer.name in named else None


def _is_of_a_file(shelf: Shelf) -> bool:
    return shelf.waker is not None and shelf.fleet is shelf.waker.launcher


def _chosen(shelf: Shelf) -> Fleet:
    """Raises HTTPException where there is nothing to choose from."""
    if not _is_of_a_file(shelf):
        raise HTTPException(409, "there is one backend: name more in a file, NIGHTREEL_DISPATCHER_BACKENDS")
    return shelf.fleet


def _check_name(fleet: Fleet, name: str) -> None:
    names = [member.name for member in fleet.members]
    if name not in names:
        raise HTTPException(422, f"no backend {name[:40]}; there are {', '.join(names)}")
