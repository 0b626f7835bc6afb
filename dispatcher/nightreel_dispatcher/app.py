"""The dispatcher's HTTP service: work comes in, and those who wait for it can look."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import AsyncIterator, Callable
from http import HTTPStatus
from typing import Any

import structlog
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, RedirectResponse
from starlette.exceptions import HTTPException

from nightreel_queue.errors import InvalidJob, QueueUnavailable
from nightreel_queue.schema import job_schema, manifest_schema
from nightreel_storage.batches import IdTaken
from nightreel_storage.errors import NotFound, StoreUnavailable
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import AlreadyEnded

from . import jobs, predict, told
from .answers import Healthy, Overview, Waiting
from .backend_lines import last_seen
from .console.app import create_console
from .console.door import ROOT as CONSOLE
from .desk import Desk
from .identity import Guard, Keeper, Verify
from .inbox import Busy
from .jobs import DeskOf, refusals
from .looked import last
from .looking import latest
from .replies import mistakes_of
from .waker import Waker

log = structlog.get_logger()

RETRY_S = 5  # after which a queue or a store may be back

STATUS_OF: dict[type[Exception], int] = {
    InvalidJob: 422,
    IdTaken: 409,
    AlreadyEnded: 409,
    NotFound: 404,
    QueueUnavailable: 503,
    StoreUnavailable: 503,
    Busy: 503,
}


def create_app(desk: Desk, verify: Verify | None = None, waker: Waker | None = None) -> FastAPI:
    """The app at a desk, which it closes at its end. `verify` says who sent an identity token; Google's by default.

    waker: starts workers for the desk, if anything does.
    """

    keeper = Keeper(desk.own, verify)
    console = create_console(desk, keeper, waker)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        yield
        console.state.shelf.close()
        desk.close()

    app = FastAPI(
        title="Nightreel dispatcher",
        description="Takes jobs in and says how they are.",
        version=importlib.metadata.version("nightreel"),
        lifespan=life,
        docs_url=None,  # these pages would load scripts from elsewhere
        redoc_url=None,
    )
    app.state.desk = desk
    for part in (jobs, predict, told):
        app.include_router(part.router)
    for path in ("/healthz", "/health"):  # Cloud Run's front end answers some /healthz itself
        app.add_api_route(path, health, response_model=Healthy, summary="The process answers", tags=["looking"])
    app.add_api_route(
        "/", overview, response_model=Overview, responses=refusals(), summary="At a glance", tags=["looking"]
    )
    _answer_errors(app)
    app.openapi = lambda: _openapi(app)  # type: ignore[method-assign]  # FastAPI's own way to change it
    app.mount(CONSOLE, console)
    app.add_middleware(Guard, keeper=keeper, elsewhere=[CONSOLE])
    return app


async def health() -> Healthy:
    """Needs no token."""
    return Healthy()


def overview(request: Request, desk: DeskOf) -> Response:
    """JSON; a browser is led to the console."""
    if "text/html" in request.headers.get("accept", ""):
        return RedirectResponse(f"{CONSOLE}/", 303)
    backlog = desk.queue.backlog()
    hold = Holds(desk.store).read()
    found = Overview(
        version=request.app.version,
        queue=Waiting(ready=backlog.ready, delayed=backlog.delayed, leased=backlog.leased, dead=backlog.dead),
        hold=hold.reason if hold else None,
        looked=last(desk.store),
        backends=last_seen(desk.store),
        batches=latest(desk.store),
    )
    return JSONResponse(found.model_dump(mode="json"))


def _answer_errors(app: FastAPI) -> None:
    for kind, status in STATUS_OF.items():
        app.add_exception_handler(kind, _answer(status))
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _wrong_request)


def _answer(status: int) -> Callable[[Request, Exception], Response]:
    def answer(request: Request, exc: Exception) -> Response:
        if status >= 500:
            log.warning("unavailable", path=request.url.path, reason=str(exc))
        retry_s = round(exc.wait_s) + 1 if isinstance(exc, Busy) else RETRY_S
        headers = {"Retry-After": str(retry_s)} if status == 503 else None
        return _problems([mistake.model_dump() for mistake in mistakes_of(exc)], status, headers)

    return answer


def _http_problem(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, HTTPException)
    words = exc.detail or HTTPStatus(exc.status_code).phrase
    return _problems([{"message": words}], exc.status_code, exc.headers)


def _wrong_request(_: Request, exc: Exception) -> Response:
    assert isinstance(exc, RequestValidationError)
    found = [{"field": str(error["loc"][-1]), "message": error["msg"]} for error in exc.errors()]
    return _problems(found, 422)


def _problems(found: list[dict[str, Any]], status: int, headers: Any = None) -> JSONResponse:
    full = [{"place": "", "field": ""} | problem for problem in found]
    return JSONResponse({"problems": full}, status, headers)


def _openapi(app: FastAPI) -> dict[str, Any]:
    """FastAPI's own, with the schemas of jobs and manifests in it."""
    if app.openapi_schema is None:
        schema = FastAPI.openapi(app)
        parts = schema["components"]["schemas"]
        for name, whole in (("Job", job_schema()), ("Manifest", manifest_schema())):
            inner = json.loads(json.dumps(whole).replace("#/$defs/", f"#/components/schemas/{name}."))
            parts |= {f"{name}.{part}": each for part, each in inner.pop("$defs", {}).items()}
            parts[name] = {key: value for key, value in inner.items() if not key.startswith("$")}
        bearer = {"type": "http", "scheme": "bearer", "description": "a token, or Google's identity token"}
        schema["components"]["securitySchemes"] = {"bearer": bearer}
        schema["security"] = [{}, {"bearer": []}]
    assert app.openapi_schema is not None
    return app.openapi_schema
