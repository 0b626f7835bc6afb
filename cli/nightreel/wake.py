"""wake: look once whether workers should be started. workers: which ones there are."""

from __future__ import annotations

import contextlib
import datetime as dt
import json
import sys
from collections.abc import Iterator
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.launchers.base import Execution, LauncherError, NotAllowed
from nightreel_dispatcher.looked import Looked
from nightreel_dispatcher.opening import open_desk
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_dispatcher.waker import Waker
from nightreel_worker.logs import configure

from .common import (
    EXIT_BAD_INPUT,
    EXIT_UNAVAILABLE,
    JsonFlag,
    ModelFlag,
    QueueFlag,
    StoreFlag,
    complain,
    errors_in_one_line,
    settings_of,
    settings_with,
)

WIDE = 10_000  # a line's width where there is no terminal: words stay whole


def wake(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    again: Annotated[
        bool, typer.Option("--again", help="Start at once although earlier starts came to nothing: that is mended.")
    ] = False,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Look once whether workers should be started, start them, and say why. Exit code 3: something could not be had."""
    with _at_the_desk(queue, store, model) as waker:
        looked = waker.look("nightreel wake", dry_run=dry_run, again=again)
    print(looked.model_dump_json(indent=2) if as_json else _sentence(looked, dry_run))
    if looked.trouble:
        raise typer.Exit(EXIT_UNAVAILABLE)


def workers(
    cancel: Annotated[
        str | None, typer.Option(help="Id of a worker that is to give back what it has, and leave.")
    ] = None,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """List the workers that the launcher knows of: those that are up, and those that ended in the last hour."""
    with _at_the_desk(queue, store, None) as waker:
        if cancel is not None:
            waker.launcher.cancel(cancel)
            print(f"{cancel} was told to leave")
            return
        found = sorted(waker.launcher.executions(), key=lambda each: each.started_at)
    if as_json:
        print(json.dumps([_as_dict(each) for each in found]))
    elif found:
        _show(found)
    else:
        print("no workers")


@contextlib.contextmanager
def _at_the_desk(queue: str | None, store: str | None, model: str | None) -> Iterator[Waker]:
    settings = settings_with(queue=queue, store=store, model=model)
    own, policy = settings_of(DispatcherSettings), settings_of(PolicySettings)
    configure(settings)
    try:
        with errors_in_one_line():
            desk, waker = open_desk(settings, own, policy)
            with contextlib.closing(desk):
                yield _there(desk, waker)
    except NotAllowed as exc:
        complain(str(exc))
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except LauncherError as exc:
        complain(str(exc))
        raise typer.Exit(EXIT_UNAVAILABLE) from None


def _there(desk: Desk, waker: Waker | None) -> Waker:
    if waker is None:
        raise NotAllowed(
            f"nothing is set that could start workers for {desk.settings.queue_url}: set NIGHTREEL_DISPATCHER_LAUNCHER"
        )
    return waker


def _sentence(looked: Looked, dry_run: bool) -> str:
    if looked.started:
        done = "would start" if dry_run else "started"
        return f"{done} {looked.started} {'worker' if looked.started == 1 else 'workers'}: {looked.words}"
    again = f"; the answer changes in {looked.look_again_s:.0f} s" if looked.look_again_s is not None else ""
    return f"nothing to start: {looked.words}{again}"


def _show(found: list[Execution]) -> None:
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
    columns = (Column(name, no_wrap=True) for name in ("worker", "state", "since", "start"))
    table = Table(*columns, Column("what is said of it", overflow="fold"), box=None)
    for each in found:
        since = dt.datetime.fromtimestamp(each.ended_at or each.started_at, dt.UTC)
        table.add_row(each.id, each.state, f"{since:%Y-%m-%d %H:%M:%S} UTC", each.wake or "-", escape(each.words))
    console.print(table)


def _as_dict(each: Execution) -> dict[str, object]:
    return {
        "id": each.id,
        "state": each.state,
        "started_at": _iso(each.started_at),
        "ended_at": _iso(each.ended_at),
        "wake": each.wake,
        "words": each.words,
    }


def _iso(moment: float | None) -> str | None:
    return dt.datetime.fromtimestamp(moment, dt.UTC).isoformat(timespec="seconds") if moment is not None else None
