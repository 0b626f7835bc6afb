"""HTML: templates, the files that pages load, and parts that keep themselves up to date."""

from __future__ import annotations

import hashlib
import importlib.metadata
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup
from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from . import words

_HERE = Path(__file__).parent
_TYPES = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml", ".txt": "text/plain"}
POLL_S = 10
FOREVER = "public, max-age=31536000, immutable"


def page(request: Request, template: str, status: int = 200, **values: Any) -> HTMLResponse:
    """A whole page for whoever is signed in."""
    session = request.scope["nightreel.session"]
    desk = request.app.state.desk
    values["note"] = words.did(values.pop("did", ""))
    known = {"csrf": session.csrf if session else "", "store": desk.settings.store, "path": request.url.path}
    known["guarded"] = desk.own.guarded
    return HTMLResponse(_templates().get_template(template).render(known | values), status)


def part(request: Request, template: str, **values: Any) -> Markup:
    """A part of a page, as HTML."""
    session = request.scope["nightreel.session"]
    return Markup(_templates().get_template(template).render({"csrf": session.csrf} | values))


def live(body: Markup, address: str, said: str = "", every_s: int = POLL_S) -> Markup:
    """A part that asks for itself at `address` every so often, and is replaced when it has changed.

    `said`: one sentence for screen readers, which hear it when it changes.
    """
    was = f"{_digest(body)}-{_digest(said)}"
    joint = "&" if "?" in address else "?"
    text = _templates().get_template("_live.html")
    return Markup(text.render(body=body, address=f"{address}{joint}was={was}", poll_s=every_s))


def changed(
    body: Markup, address: str, was: str, said: str = "", every_s: int = POLL_S, *, rests: bool = False
) -> Response:
    """What such a part is answered: nothing to swap (204) while all is as it `was`, so that nothing flickers.

    `rests`: it will not change by itself any more, and need not ask again.
    """
    before, _, said_before = was.partition("-")
    if before == _digest(body):
        return Response(status_code=204)
    told = _templates().get_template("_said.html").render(said=said) if said_before != _digest(said) else ""
    return HTMLResponse((body if rests else live(body, address, said, every_s)) + Markup(told))


def problem_page(status: int, problems: Sequence[str], retry_s: int | None = None) -> HTMLResponse:
    """What is wrong, for whoever may not be signed in."""
    text = (
        _templates()
        .get_template("problem.html")
        .render(status=status, problems=problems, csrf="", store="", path="", guarded=False)
    )
    return HTMLResponse(text, status, {"Retry-After": str(retry_s)} if retry_s else None)


def asset(name: str) -> Response:
    """A file of ours. Its address changes with its content, so that browsers may keep it."""
    found = _assets().get(name)
    if found is None:
        return problem_page(404, [f"there is no {name}"])
    return Response(found, media_type=_TYPES[Path(name).suffix], headers={"Cache-Control": FOREVER})


def _asset_address(name: str) -> str:
    return f"/console/static/{name}?v={_digest(_assets()[name])}"


@cache
def _assets() -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (_HERE / "static").iterdir() if path.suffix in _TYPES}


@cache
def _templates() -> Environment:
    found = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    filters = {"usd": words.usd, "lasting": words.lasting, "moment": words.moment, "size": words.size}
    found.filters |= {**filters, "count": words.count}
    found.globals |= {"asset": _asset_address, "version": importlib.metadata.version("nightreel")}
    return found


def _digest(content: str | bytes) -> str:
    data = content.encode() if isinstance(content, str) else content
    return hashlib.sha256(data).hexdigest()[:12]
