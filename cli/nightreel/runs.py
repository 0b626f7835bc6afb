"""runs: what the last runs did, and where the seconds of one of them went."""

from __future__ import annotations

import sys
from typing import Annotated

import typer
from pydantic import TypeAdapter
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import NotFound
from nightreel_worker.history import LAST_RUNS, History
from nightreel_worker.report import RunReport, run_name

from .common import JsonFlag, StoreFlag, errors_in_one_line, settings_with

STAGES = ("start", "import", "load", "wait", "render", "film", "upload", "idle", "drain")
BAR = 40  # characters of the longest stage
WIDE = 10_000  # a line's width where there is no terminal: reasons stay whole


def runs(
    run: Annotated[
        str | None, typer.Argument(help="A run's id, or how it begins; the last runs when left out.")
    ] = None,
    store: StoreFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what the last runs did and cost, or where each second of one run went."""
    settings = settings_with(store=store)
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else WIDE)
    with errors_in_one_line():
        kept = open_store(settings.store, make=False)
        found = list(History.read(kept).runs) if run is None else [one_run(kept, run)]
    if as_json:
        whole = TypeAdapter(list[RunReport]).dump_json(found) if run is None else found[0].to_bytes()
        print(whole.decode())
    elif run is None:
        _show_all(console, found)
    else:
        _show_one(console, found[0])


def one_run(store: Store, run: str) -> RunReport:
    """The report of the run whose id begins so. Raises NotFound unless it is exactly one."""
    names = [entry.name for entry in store.list(run_name("")) if entry.name.endswith(".json")]
    matching = [name for name in names if name.removeprefix(run_name("")).startswith(run)]
    if len(matching) != 1:
        what = f"{len(matching)} runs begin" if matching else "no run begins"
        raise NotFound(f"{what} with {run}; see: nightreel runs")
    return RunReport.from_bytes(store.get(matching[0])[0], matching[0])


def _show_all(console: Console, found: list[RunReport]) -> None:
    if not found:
        console.print("no run has left a report yet")
        return
    columns = ("run", "began", "jobs", "seconds", "rendering", "starting", "idle", "USD")
    table = Table(*(Column(name, no_wrap=True) for name in columns), Column("why it ended", overflow="fold"), box=None)
    for each in found:
        spent = each.stages_s
        table.add_row(
            each.run,
            f"{each.started_at:%Y-%m-%d %H:%M}",
            _jobs(each),
            f"{each.seconds:.0f}",
            f"{sum(spent.get(stage, 0.0) for stage in ('render', 'film', 'upload')):.0f}",
            f"{sum(spent.get(stage, 0.0) for stage in ('start', 'import', 'load')):.0f}",
            f"{spent.get('idle', 0.0):.0f}",
            f"{each.usd:.4f}",
            escape(_why(each)),
        )
    console.print(table)
    if len(found) == LAST_RUNS:
        console.print(f"the last {LAST_RUNS}")


def _show_one(console: Console, report: RunReport) -> None:
    console.print(f"run {report.run}, {report.started_at:%Y-%m-%d %H:%M:%S} to {report.ended_at:%H:%M:%S} UTC")
    console.print(f"{_jobs(report)}; {_why(report)}", markup=False)
    console.print()
    longest_s = max(report.stages_s.values(), default=0.0)
    for stage in STAGES:
        if seconds := report.stages_s.get(stage):
            share = seconds / report.seconds
            bar = "#" * max(1, round(BAR * seconds / longest_s))
            console.print(f"{stage:>8} {seconds:10.1f} s {share:6.1%}  {bar}")
    console.print(f"{'in all':>8} {report.seconds:10.1f} s")
    console.print()
    console.print(f"{report.usd:.6f} USD at {report.price or 'no price'}", markup=False)
    console.print(
        f"{report.jobs_usd:.6f} on receipts, {report.shared_usd:.6f} shared: starting, loading, waiting, leaving"
    )
    if report.done:
        console.print(
            f"{report.usd / report.done:.6f} a video, all shared out; {report.seconds / report.done:.1f} s a video"
        )
    if report.lost_s:
        console.print(f"{report.lost_s:.1f} s went to jobs that got no receipt from this run")


def _jobs(report: RunReport) -> str:
    told = [(report.done, "made"), (report.failed, "failed"), (report.cancelled, "cancelled"), (report.rejected, "rejected"),
            (report.returned, "given back"), (report.renderer_restarts, "renderers replaced")]  # fmt: skip
    return ", ".join(f"{count} {what}" for count, what in told if count) or "no jobs"


def _why(report: RunReport) -> str:
    if report.state == "running":
        return f"running, or killed after {report.ended_at:%H:%M:%S}"
    return report.why
