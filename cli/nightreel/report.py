"""report: the page of a run: what it made and what not, what that cost, and what to do next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightreel_queue.errors import InvalidJob, Problem
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import NotFound
from nightreel_worker.history import History
from nightreel_worker.pages import keep_page, posters
from nightreel_worker.report import RunReport
from nightreel_worker.run_page import run_page
from nightreel_worker.run_text import run_text
from nightreel_worker.summary import Place

from .common import StoreFlag, errors_in_one_line, settings_with
from .runs import one_run

BROWSER = "https://storage.cloud.google.com/"  # where a signed-in person sees what gs:// names


def report(
    run: Annotated[str | None, typer.Argument(help="A run's id, or how it begins; the last run when left out.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Write the page to this file, not into the store.")
    ] = None,
    text: Annotated[bool, typer.Option("--text", help="Print it as text, and write nothing.")] = False,
    store: StoreFlag = None,
) -> None:
    """Make the page of a run: what it made, what failed and why, what it cost, what to do next."""
    settings = settings_with(store=store)
    place = Place.of(settings)
    with errors_in_one_line():
        kept = open_store(settings.store, make=False)
        found = one_run(kept, run) if run else _last(kept)
        if text:
            print(run_text(found, place), end="")
        elif html:
            _write(html, run_page(found, posters(kept, found), lambda name: _address(kept, name), place))
            print(html)
        else:
            print(kept.url(keep_page(kept, found, place)))


def _last(store: Store) -> RunReport:
    if not (runs := History.read(store, last=1).runs):
        raise NotFound("no run has left a report yet: render something first")
    return runs[-1]


def _address(store: Store, name: str) -> str:
    """What a browser finds, from anywhere on this machine."""
    url = store.url(name)
    return url.replace("gs://", BROWSER, 1) if url.startswith("gs://") else Path(url).absolute().as_uri()


def _write(path: Path, page: bytes) -> None:
    if path.suffix.lower() not in (".html", ".htm"):
        raise InvalidJob([Problem(f"--html {path}: pages are HTML files: call it {path.stem}.html")])
    if not path.absolute().parent.is_dir():
        raise InvalidJob([Problem(f"--html {path}: there is no folder {path.parent}: make it first")])
    if path.exists() and b'<p class="brand">Nightreel</p>' not in path.read_bytes():
        raise InvalidJob([Problem(f"--html {path} is there already and is no page of a run: move it away")])
    path.write_bytes(page)
