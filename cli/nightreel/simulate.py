"""simulate: what waking workers this way or that would cost."""

from __future__ import annotations

import datetime as dt
import json
import math
import sys
import zoneinfo
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from nightreel_dispatcher.chart import chart, lasting
from nightreel_dispatcher.simulation import Jobs, Outcome
from nightreel_dispatcher.strategies import compare
from nightreel_dispatcher.traces import BUILT_IN, BadTrace, read_trace, receipts_trace
from nightreel_dispatcher.wake import Policy
from nightreel_storage.connect import open_store
from nightreel_worker.prices import machine_price

from .common import EXIT_BAD_INPUT, JsonFlag, StoreFlag, complain, errors_in_one_line, settings_with

PRICE = "cloudrun-l4"


def simulate(
    trace: Annotated[
        str | None,
        typer.Argument(help="nightly, office, poisson, launch, or a CSV file; the store's receipts when left out."),
    ] = None,
    store: StoreFlag = None,
    start_s: Annotated[float, typer.Option(help="Seconds from a worker's start to its first keyframe.")] = 75.0,
    max_wait: Annotated[float, typer.Option(help="Seconds that a job may wait for a worker to be started.")] = 900.0,
    share: Annotated[float, typer.Option(help="A start is worth it at this share of the bill, or less.")] = 0.1,
    finish_within: Annotated[float, typer.Option(help="Seconds in which all that waits should be done.")] = 3600.0,
    max_workers: Annotated[int, typer.Option(help="The most workers at once.")] = 5,
    nightly: Annotated[str | None, typer.Option(help="Hour at which whatever waits is rendered: 02:00.")] = None,
    zone: Annotated[str, typer.Option(help="Time zone of that hour: Europe/Berlin.")] = "UTC",
    price: Annotated[str, typer.Option(help="What a worker costs: a listed name, or US dollars an hour.")] = PRICE,
    svg: Annotated[Path | None, typer.Option(help="Write a chart here.")] = None,
    as_json: JsonFlag = False,
) -> None:
    """Replay arrivals on a virtual clock, and compare ways to wake workers by cost and waiting."""
    _check("--start-s", start_s, 0.001, 86_400)
    _check("--max-wait", max_wait, 0, 31_536_000)
    _check("--share", share, 0.001, 1)
    _check("--finish-within", finish_within, 1, 31_536_000)
    _check("--max-workers", max_workers, 1, 10_000)
    with errors_in_one_line():
        usd_per_hour = machine_price(price, settings_with().prices).machine_usd_per_hour
    policy = Policy(start_s, share, max_wait, finish_within, max_workers, _hour(nightly), _zone(zone))
    name, jobs = _trace(trace, store)
    outcomes = compare(jobs, policy)
    if svg is not None:
        _write(svg, chart(f"{name}: {len(jobs):,} jobs", jobs, outcomes, usd_per_hour))
    if as_json:
        rows = [_figures(outcome, outcomes[0], usd_per_hour) for outcome in outcomes]
        print(json.dumps({"trace": name, "jobs": len(jobs), "strategies": rows}))
    else:
        _show(jobs, outcomes, usd_per_hour)


def _trace(trace: str | None, store: str | None) -> tuple[str, Jobs]:
    """What to call it, and the jobs."""
    if trace is not None and store is not None:
        complain("--store goes without a trace: leave one of the two out")
        raise typer.Exit(EXIT_BAD_INPUT)
    try:
        if trace in BUILT_IN:
            return trace, BUILT_IN[trace]()
        if trace is not None:
            return Path(trace).stem, read_trace(Path(trace))
        address = settings_with(store=store).store
        with errors_in_one_line():
            return address, receipts_trace(open_store(address))
    except BadTrace as exc:
        for line in str(exc).splitlines():
            complain(line)
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _check(flag: str, value: float, least: float, most: float) -> None:
    if not least <= value <= most:
        complain(f"{flag}: {value:g}; must be from {least:g} to {most:,.0f}")
        raise typer.Exit(EXIT_BAD_INPUT)


def _hour(text: str | None) -> dt.time | None:
    try:
        return dt.datetime.strptime(text, "%H:%M").time() if text else None
    except ValueError:
        complain(f"--nightly: {text!r} is no hour such as 02:00")
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _zone(name: str) -> str:
    try:
        if name != "UTC":
            zoneinfo.ZoneInfo(name)
    except (ValueError, OSError):  # OSError: a folder of zones, such as Europe
        complain(f"--zone: {name!r} is no time zone such as Europe/Berlin")
        raise typer.Exit(EXIT_BAD_INPUT) from None
    except zoneinfo.ZoneInfoNotFoundError:
        mend = "" if zoneinfo.available_timezones() else ": this machine has no time zones; pip install tzdata"
        complain(f"--zone: {name!r} is no time zone such as Europe/Berlin{mend}")
        raise typer.Exit(EXIT_BAD_INPUT) from None
    return name


def _write(path: Path, text: str) -> None:
    try:
        path.write_text(text, encoding="utf-8")
    except OSError as exc:
        complain(f"--svg: cannot write {path}: {exc.strerror}")
        raise typer.Exit(EXIT_BAD_INPUT) from None


def _figures(outcome: Outcome, least: Outcome, usd_per_hour: float) -> dict[str, Any]:
    usd = outcome.worker_s / 3600 * usd_per_hour
    return {
        "strategy": outcome.name,
        "usd_per_video": usd / outcome.jobs if outcome.jobs else None,
        "usd": usd,
        "times_clairvoyant": outcome.worker_s / least.worker_s if least.worker_s else 1.0,
        "starts": outcome.starts,
        "gpu_hours": outcome.worker_s / 3600,
        "idle_hours": outcome.idle_s / 3600,
        "waiting_p50_s": outcome.wait_s(0.5),
        "waiting_p95_s": outcome.wait_s(0.95),
    }


def _show(jobs: Jobs, outcomes: Sequence[Outcome], usd_per_hour: float) -> None:
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else 200)
    table = Table("strategy", box=None)
    for name in ("$/video", "$", "x clairvoyant", "starts", "GPU h", "idle h", "waiting p50", "p95"):
        table.add_column(name, justify="right")
    for outcome in outcomes:
        figures = _figures(outcome, outcomes[0], usd_per_hour)
        table.add_row(
            outcome.name, f"{figures['usd_per_video'] or math.nan:.4f}", f"{figures['usd']:,.2f}",
            f"{figures['times_clairvoyant']:.3f}", f"{outcome.starts:,}", f"{figures['gpu_hours']:,.1f}",
            f"{figures['idle_hours']:,.1f}", lasting(outcome.wait_s(0.5)), lasting(outcome.wait_s(0.95)),
        )  # fmt: skip
    console.print(table)
    work_h = math.fsum(job.work_s for job in jobs) / 3600
    console.print(
        f"{len(jobs):,} jobs with {work_h:,.1f} h of work. Cost is metered from a worker's start to its exit."
    )
