"""serve: the dispatcher on this machine."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Annotated

import typer

from nightreel_dispatcher.clock import time_of_day
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_worker.logs import configure

from .common import (
    EXIT_BAD_INPUT,
    EXIT_UNAVAILABLE,
    ModelFlag,
    QueueFlag,
    StoreFlag,
    complain,
    errors_in_one_line,
    settings_of,
    settings_with,
)


def serve(
    host: Annotated[str, typer.Option(help="Address to listen at.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen at.", min=1, max=65535, envvar="PORT")] = 8080,
    watch: Annotated[Path | None, typer.Option(help="Folder whose manifests are taken in.")] = None,
    nightly: Annotated[str | None, typer.Option(help="Time of day, HH:MM, at which to look for waiting work.")] = None,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
) -> None:
    """Take work in over HTTP, from a bucket's events, or from a folder, until it is told to leave."""
    settings = settings_with(queue=queue, store=store, model=model)
    own = settings_of(DispatcherSettings)
    configure(settings)
    at = _time_of_day(nightly)
    try:
        from nightreel_dispatcher.desk import Desk
        from nightreel_dispatcher.server import CannotServe
        from nightreel_dispatcher.server import serve as serve_until_told
    except ImportError as exc:
        complain(f"serving needs {exc.name}: pip install 'nightreel[serve]'")
        raise typer.Exit(EXIT_UNAVAILABLE) from None
    with errors_in_one_line():
        try:
            serve_until_told(Desk(settings, own), host, port, watch=watch, nightly=at)
        except CannotServe as exc:
            complain(str(exc))
            raise typer.Exit(EXIT_BAD_INPUT) from None


def _time_of_day(text: str | None) -> dt.time | None:
    try:
        return time_of_day(text) if text else None
    except ValueError as exc:
        complain(f"--nightly: {exc}")
        raise typer.Exit(EXIT_BAD_INPUT) from None
