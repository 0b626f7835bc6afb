"""plan: what a manifest will take, before anything of it runs."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nightreel_dispatcher.submit import check_models
from nightreel_pipelines import abilities
from nightreel_pipelines.errors import Unrenderable
from nightreel_pipelines.models import ModelSpec, load_models, own_steps
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.job import Job
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import utc_now
from nightreel_worker.forecast import Forecast, JobForecast, forecast
from nightreel_worker.prices import Price, find_price, load_prices
from nightreel_worker.remotes import Remotes

from .common import (
    EXIT_NOT_ALL_MADE,
    JsonFlag,
    ModelFlag,
    StoreFlag,
    complain,
    errors_in_one_line,
    remotes,
    settings_with,
)
from .submit import read

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
    """Say what a manifest will take: keyframes, seconds, dollars, storage. Runs nothing. Exit code 1: too much."""
    settings = settings_with(store=store, model=model, price=price)
    with errors_in_one_line():
        models = load_models(settings.models)
        batch = read(manifest).resolved(settings.model, own_steps(models))
        check_models(batch.jobs, models)
        elsewhere = remotes()
        _check_abilities(batch.jobs, models, elsewhere)
        price_of = find_price(settings.price, settings.prices)
        prices = load_prices(settings.prices)
        found = forecast(batch.jobs, open_store(settings.store), models, price_of, utc_now(), elsewhere, prices)
    _print_json(found, batch.batch) if as_json else _show(found)
    if max_cost is not None and found.usd > max_cost:
        complain(f"about {_usd(found.usd)}, and --max-cost is {max_cost:g}")
        raise typer.Exit(EXIT_NOT_ALL_MADE)
    if any(each.over for each in found.jobs):
        raise typer.Exit(EXIT_NOT_ALL_MADE)


def _check_abilities(jobs: Sequence[Job], models: Mapping[str, ModelSpec], elsewhere: Remotes) -> None:
    """What a source over the network would refuse, in the worker's words. Raises InvalidJob, SourceUnavailable."""
    problems = []
    for job in jobs:
        spec = models[job.render.model or ""]
        if known := elsewhere.describe(spec):
            try:
                abilities.check(job, spec, known)
            except Unrenderable as exc:
                problems.append(Problem(str(exc), place=f"job {job.id}"))
    if problems:
        raise InvalidJob(problems)


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
        yield f"{found.there:,} of the videos {'is' if found.there == 1 else 'are'} there already."
    if not found.jobs:
        return
    keyframes = sum(each.estimate.keyframes for each in found.jobs)
    shared = sum(each.there for each in found.jobs)
    video_s = sum(each.job.duration_s for each in found.jobs)
    yield (
        f"{len(found.jobs):,} job{'s' if len(found.jobs) > 1 else ''}, {_clock(video_s)} of video: {keyframes:,} keyframes to render"
        + (f", {shared:,} {'is' if shared == 1 else 'are'} there or shared" if shared else "")
        + "."
    )
    yield f"About {_clock(found.seconds)} on one worker, {_clock(found.around_s)} of it to start, load and leave."
    clips = f", {_usd(found.clips_usd)} of it for clips" if found.clips_usd else ""
    yield f"About {_usd(found.usd)} at {_rate(found.price)}{clips}."
    yield f"About {found.stored_bytes / 1e6:,.0f} MB of storage."
    if found.guessed:
        yield "Partly a guess: no run in this store has measured this model at work yet; it may be off by half or double."
    else:
        last = f"the last {found.runs} runs" if found.runs > 1 else "the last run"
        yield f"From what {last} in this store took."


def _rate(price: Price) -> str:
    each = (
        f"{price.usd_per_video_s:g} a second of video"
        if price.of_a_service
        else f"{price.machine_usd_per_hour:.2f} an hour"
    )
    return f"{each} ({price.name}{f', list of {price.dated}' if price.dated else ''})"


def _usd(usd: float) -> str:
    return f"{usd:.2f} USD" if usd >= 1 else f"{usd:.4f} USD"


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
            "keyframes_s": round(each.estimate.keyframes_s, 3),
            "film_s": round(each.estimate.film_s, 3),
            "verify_s": round(each.estimate.verify_s, 3),
            "seconds": round(each.seconds, 3),
            "usd": round(each.usd, 6),
            "clips_usd": round(each.clips_usd, 6),
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
        "around_s": round(found.around_s, 3),
        "usd": round(found.usd, 6),
        "clips_usd": round(found.clips_usd, 6),
        "price": found.price.name,
        "stored_bytes": found.stored_bytes,
        "runs": found.runs,
        "jobs": rows,
    }
    print(json.dumps(whole))
