"""plan: what a manifest will take, before anything of it runs."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nightreel_pipelines.base import Description
from nightreel_pipelines.errors import SourceUnavailable
from nightreel_pipelines.models import ModelSpec, load_models
from nightreel_queue.manifest import load_manifest
from nightreel_storage.connect import open_store
from nightreel_worker.errors import RendererUnavailable
from nightreel_worker.forecast import UNKNOWN, Forecast, JobForecast, forecast
from nightreel_worker.prices import find_price
from nightreel_worker.renderer import Limits, Renderer
from nightreel_worker.settings import Settings

from .common import EXIT_NOT_ALL_MADE, JsonFlag, ModelFlag, StoreFlag, complain, errors_in_one_line, settings_with
from .submit import check_models

SHOWN = 20  # jobs; a table of ten thousand is no overview


def plan(
    manifest: Annotated[Path, typer.Argument(help="A manifest file.", show_default=False)],
    store: StoreFlag = None,
    model: ModelFlag = None,
    price: Annotated[
        str | None, typer.Option("--price", help="What the machine costs: a listed name, or US dollars an hour.")
    ] = None,
    max_cost: Annotated[
        float | None, typer.Option("--max-cost", help="Exit with 1 if the batch would cost more, in US dollars.", min=0)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what a manifest will take: keyframes, seconds, dollars, storage. Runs nothing.

    Exit code 1: a job is over its own limits, or the batch over --max-cost.
    """
    settings = settings_with(store=store, model=model, price=price)
    with errors_in_one_line():
        batch = load_manifest(manifest).resolved(settings.model)
        check_models(batch.jobs, settings)
        with _describing(settings) as describe:
            found = forecast(
                batch.jobs,
                open_store(settings.store),
                load_models(settings.models),
                find_price(settings.price, settings.prices),
                describe,
            )
    _print_json(found, batch.batch) if as_json else _show(found)
    if max_cost is not None and found.usd > max_cost:
        complain(f"about {found.usd:.2f} USD, and --max-cost is {max_cost:g}")
        raise typer.Exit(EXIT_NOT_ALL_MADE)
    if any(each.over for each in found.jobs):
        raise typer.Exit(EXIT_NOT_ALL_MADE)


@contextlib.contextmanager
def _describing(settings: Settings) -> Iterator[Callable[[ModelSpec], Description]]:
    """Asks a renderer what a model is here; where it cannot be had, keyframes that are stored cannot be told."""
    renderer: Renderer | None = None

    def describe(spec: ModelSpec) -> Description:
        nonlocal renderer
        renderer = renderer or Renderer(Limits(settings.stall_s, settings.load_timeout_s), settings.weights, "fast")
        try:
            return renderer.describe(spec.tuned(**settings.tuning))
        except (SourceUnavailable, RendererUnavailable) as exc:
            complain(f"which keyframes the store has already cannot be told here: {exc}")
            return UNKNOWN

    try:
        yield describe
    finally:
        if renderer:
            renderer.close()


def _show(found: Forecast) -> None:
    console = Console(highlight=False, soft_wrap=True)
    right = [Column(name, justify="right") for name in ("shots", "keyframes", "frames", "video", "seconds", "USD")]
    table = Table("job", *right, box=None)
    for each in found.jobs[:SHOWN]:
        table.add_row(escape(str(each.job.id)), *_cells(each))
    if found.jobs:
        console.print(table)
    if len(found.jobs) > SHOWN:
        console.print(f"and {len(found.jobs) - SHOWN:,} more; --json tells all")
    for each in found.jobs:
        if each.over:
            console.print(f"[red]over its limit[/red] {escape(str(each.job.id))}: {each.over}")
    console.print()
    console.print("\n".join(_summary(found)), markup=False)


def _cells(each: JobForecast) -> list[str]:
    estimate = each.estimate
    there = f" (+{each.there})" if each.there else ""
    return [
        str(len(each.job.shots)),
        f"{estimate.keyframes}{there}",
        str(estimate.frames),
        f"{each.job.duration_s:g} s",
        f"{each.seconds:.1f}",
        f"{each.usd:.4f}",
    ]


def _summary(found: Forecast) -> Iterator[str]:
    if found.there:
        yield f"{found.there} videos are there already."
    if not found.jobs:
        return
    keyframes = sum(each.estimate.keyframes for each in found.jobs)
    shared = sum(each.there for each in found.jobs)
    video_s = sum(each.job.duration_s for each in found.jobs)
    yield (
        f"{len(found.jobs):,} jobs, {_clock(video_s)} of video: {keyframes:,} keyframes to render"
        + (f", {shared:,} are there or shared" if shared else "")
        + "."
    )
    yield f"About {_clock(found.seconds)} on one worker, {_clock(found.start_s)} of it to start and load."
    hourly = found.price.machine_usd_per_hour
    dated = f", list of {found.price.dated}" if found.price.dated else ""
    yield f"About {found.usd:.2f} USD at {hourly:.2f} an hour ({found.price.name}{dated})."
    yield f"About {found.stored_bytes / 1e6:,.0f} MB of storage."
    if found.guessed:
        yield "Partly a guess: no run in this store has measured this model at work yet; it may be off by half or double."
    else:
        yield f"From what the last {found.runs} run{'s' if found.runs > 1 else ''} in this store took."


def _clock(seconds: float) -> str:
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min {rest} s"


def _print_json(found: Forecast, batch: str) -> None:
    rows: list[dict[str, Any]] = [
        {
            "job": each.job.id,
            "shots": len(each.job.shots),
            "keyframes": each.estimate.keyframes,
            "keyframes_there": each.there,
            "evaluations": each.estimate.evaluations,
            "frames": each.estimate.frames,
            "video_s": each.job.duration_s,
            "seconds": round(each.seconds, 3),
            "usd": round(each.usd, 6),
            "stored_bytes": each.estimate.video_bytes + each.estimate.kept_bytes,
            "basis": each.estimate.basis,
            "over": each.over,
        }
        for each in found.jobs
    ]
    whole = {
        "batch": batch,
        "videos_there": found.there,
        "seconds": round(found.seconds, 3),
        "start_s": round(found.start_s, 3),
        "usd": round(found.usd, 6),
        "price": found.price.name,
        "stored_bytes": found.stored_bytes,
        "runs": found.runs,
        "jobs": rows,
    }
    print(json.dumps(whole))
