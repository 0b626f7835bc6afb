"""serve: the dispatcher on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nightreel_dispatcher.launchers.base import NotAllowed
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_worker.logs import configure

from .common import (
    EXIT_BAD_INPUT,
    EXIT_UNAVAILABLE,
    ModelFlag,
    NightlyFlag,
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
    nightly: NightlyFlag = None,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
) -> None:
    """Take work in over HTTP, from a bucket's events, or from a folder, until it is told to leave."""
    settings = settings_with(queue=queue, store=store, model=model)
    own, policy = settings_of(DispatcherSettings), settings_of(PolicySettings, nightly=nightly)
    configure(settings)
    try:
        from nightreel_dispatcher.opening import open_desk
        from nightreel_dispatcher.server import CannotServe
        from nightreel_dispatcher.server import serve as serve_until_told
    except ImportError as exc:
        complain(f"serving needs {exc.name}: pip install 'nightreel[serve]'")
        raise typer.Exit(EXIT_UNAVAILABLE) from None
    with errors_in_one_line():
        try:
            desk, waker = open_desk(settings, own, policy)
            serve_until_told(desk, host, port, watch=watch, waker=waker)
        except (CannotServe, NotAllowed) as exc:
            complain(str(exc))
            raise typer.Exit(EXIT_BAD_INPUT) from None
