"""backends: how the backends are, what they cost, and which one gets the next worker."""

from __future__ import annotations

import contextlib
import getpass
import json
import sys
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nightreel_dispatcher.backend_lines import Line, lines
from nightreel_dispatcher.board import Board
from nightreel_dispatcher.launchers.base import NotAllowed
from nightreel_dispatcher.opening import open_figures, open_fleet
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_worker.logs import configure

from .common import (
    EXIT_BAD_INPUT,
    EXIT_UNAVAILABLE,
    JsonFlag,
    QueueFlag,
    StoreFlag,
    complain,
    errors_in_one_line,
    settings_of,
    settings_with,
)

WIDE = 10_000  # a line's width where there is no terminal: reasons stay whole
_LIGHTS = {"green": "[green]green[/green]", "yellow": "[yellow]yellow[/yellow]", "red": "[red]red[/red]"}


def backends(
    check: Annotated[
        bool, typer.Option("--check", help="Ask each backend now. Exit code 3: none of them would get a worker.")
    ] = False,
    prefer: Annotated[str | None, typer.Option(help="Let a backend come first from now on.")] = None,
    no_preference: Annotated[bool, typer.Option("--no-preference", help="Go by the order of the file again.")] = False,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say how each backend is, what a video costs there, and which one gets the next worker, and why."""
    settings = settings_with(queue=queue, store=store)
    own, policy = settings_of(DispatcherSettings), settings_of(PolicySettings)
    configure(settings)
    try:
        with errors_in_one_line():
            desk, _, fleet = open_fleet(settings, own, policy, open_figures(settings))
            with contextlib.closing(desk):
                if prefer is not None or no_preference:
                    fleet.prefer(prefer or "", _who())
                board = fleet.check() if check else fleet.board()
                found = lines(fleet, board)
    except NotAllowed as exc:
        complain(str(exc))
        raise typer.Exit(EXIT_BAD_INPUT) from None
    if as_json:
        preferred = board.prefer.model_dump(mode="json") if board.prefer else None
        print(json.dumps({"prefer": preferred, "backends": [line.model_dump() for line in found]}))
    else:
        _show(found, board)
    if check and not any(line.next or line.running for line in found):
        raise typer.Exit(EXIT_UNAVAILABLE)


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a container's user may have no name
        return "nightreel backends"


def _show(found: list[Line], board: Board) -> None:
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
    short = ("backend", "launcher", "model", "state", "answers in", "workers", "price", "a video")
    table = Table(
        *(Column(name, no_wrap=True) for name in short), Column("next worker, and why", overflow="fold"), box=None
    )
    for line in found:
        table.add_row(
            line.name,
            line.launcher,
            line.model,
            _LIGHTS[line.light],
            f"{1000 * line.latency_s:.0f} ms" if line.latency_s is not None else "-",
            f"{line.running} of {line.max_workers}",
            line.price,
            f"{line.video_usd:.4f} USD, {line.video_s:.0f} s" + ("" if line.measured else ", guessed"),
            ("here: " if line.next else "no: ") + escape(line.reason),
        )
    console.print(table)
    for line in found:
        if line.light != "green" and line.state != line.reason:
            console.print(f"{line.name}: {line.state}", markup=False)
    if board.prefer:
        console.print(
            f"{board.prefer.name} comes first, said {board.prefer.by}, {board.prefer.at:%Y-%m-%d %H:%M} UTC",
            markup=False,
        )
