"""The console: pages for whoever operates it, below /console, with nothing loaded from elsewhere.

It is an app of its own below the dispatcher's, so that its errors are pages, its door asks for sessions, and programs find
none of it in the OpenAPI.
"""

from __future__ import annotations

from collections.abc import Callable
from urllib.parse import urlsplit

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException

from nightreel_pipelines.errors import SourceUnavailable
from nightreel_queue.errors import InvalidJob, QueueUnavailable
from nightreel_storage.errors import Conflict, NotFound, StoreError, StoreUnavailable
from nightreel_storage.receipts import AlreadyEnded
from nightreel_worker.errors import BadPrice

from ..backends import BadBackends
from ..desk import Desk
from ..identity import Keeper
from ..waker import Waker
from . import actions, backends, batches, files, runs, submit, tonight
from .door import ROOT, Door, cookie_line
from .forms import SIGN_IN_BYTES, Form, read_form, text
from .pages import asset, page, problem_page
from .sessions import Sessions
from .shelf import Shelf

HOME = f"{ROOT}/"
RETRY_S = 5
STATUS_OF: dict[type[Exception], int] = {
    InvalidJob: 422,
    AlreadyEnded: 409,
    NotFound: 404,
    QueueUnavailable: 503,
    StoreUnavailable: 503,
    BadPrice: 503,
    SourceUnavailable: 503,
    BadBackends: 503,
    Conflict: 409,
    StoreError: 500,
}

log = structlog.get_logger()


def create_console(desk: Desk, keeper: Keeper, waker: Waker | None = None) -> FastAPI:
    """The console at a desk, and at who starts its workers. Whoever mounts it calls `close` of its `state.shelf` at the end."""
    token = desk.own.token
    app = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    app.state.desk, app.state.shelf = desk, Shelf(desk, waker)
    app.state.sessions = Sessions(token.get_secret_value() if token else None)
    for part in (tonight, backends, batches, files, actions, submit, runs):
        app.include_router(part.router)
    app.add_api_route("/sign-in", sign_in_page)
    app.add_api_route("/sign-in", sign_in, methods=["POST"])
    app.add_api_route("/sign-out", sign_out, methods=["POST"])
    app.add_api_route("/static/{name}", static)
    for kind, status in STATUS_OF.items():
        app.add_exception_handler(kind, _problem(status))
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _wrong_address)
    app.add_middleware(Door, keeper=keeper, sessions=app.state.sessions, store=desk.settings.store)
    return app


def sign_in_page(request: Request, to: str = HOME) -> Response:
    can = request.app.state.desk.own.token is not None
    return page(request, "sign_in.html", to=_own_page(to), wrong=False, can=can)


async def sign_in(request: Request) -> Response:
    """The one form without a CSRF token: there is no session yet, and whoever sends it knows the token."""
    form = await read_form(request, SIGN_IN_BYTES)
    to, token = _own_page(text(form, "to")), text(form, "token")
    session = await run_in_threadpool(request.app.state.sessions.open, token)
    if session is None:
        log.warning("sign_in_refused")
        return page(request, "sign_in.html", 401, to=to, wrong=True, can=True)
    return RedirectResponse(to, 303, {"Set-Cookie": cookie_line(session, request.headers)})


def sign_out(request: Request, form: Form) -> Response:
    return RedirectResponse(f"{ROOT}/sign-in", 303, {"Set-Cookie": cookie_line(None, request.headers)})


def static(name: str) -> Response:
    return asset(name)


def _own_page(address: str) -> str:
    """An address within the console, and nowhere else."""
    parts = urlsplit(address)
    ours = parts.path.startswith(HOME)
    return address if ours and not parts.scheme and not parts.netloc and "\\" not in address else HOME


def _problem(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, exc: Exception) -> Response:
        if status >= 500:
            log.warning("unavailable", path=request.url.path, reason=str(exc))
        return problem_page(status, str(exc).splitlines(), RETRY_S if status == 503 else None)

    return answer


def _http_problem(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    words = "there is no such page" if exc.status_code == 404 else exc.detail
    return problem_page(exc.status_code, [words])


def _wrong_address(request: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    return problem_page(422, [f"{error['loc'][-1]}: {error['msg']}" for error in exc.errors()])
