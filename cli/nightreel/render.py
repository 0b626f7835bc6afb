"""render: from a manifest or a prompt to videos, in one go."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from nightreel_dispatcher.submit import submit
from nightreel_pipelines.errors import PipelineError
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.manifest import KINDS, Manifest, from_prompt
from nightreel_storage.base import Store
from nightreel_storage.connect import open_store
from nightreel_storage.errors import StoreError, StoreUnavailable
from nightreel_storage.receipts import Receipt, Receipts
from nightreel_worker.logs import configure
from nightreel_worker.report import RunReport

from .common import (
    EXIT_BAD_INPUT,
    EXIT_NOT_ALL_MADE,
    EXIT_UNAVAILABLE,
    ModelFlag,
    QueueFlag,
    StoreFlag,
    complain,
    errors_in_one_line,
    settings_with,
)
from .progress import watching
from .sheet import sheets_of
from .submit import read
from .work import check_installed, check_model, drain


def render(
    what: Annotated[str, typer.Argument(help="A manifest file, or a prompt.", show_default=False)],
    output: Annotated[Path | None, typer.Option("-o", "--output", help="Copy the video of a single job here.")] = None,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
) -> None:
    """Enqueue, render everything that waits, and say what came of it. Exit code 1: not every video was made."""
    check_installed()
    settings = settings_with(queue=queue, store=store, model=model, idle_timeout_s=0)  # somebody waits for it
    configure(settings, level=settings.log_level if "log_level" in settings.model_fields_set else "critical")
    console = Console(highlight=False, soft_wrap=True)
    with errors_in_one_line():
        check_model(settings)
        manifest = _manifest(what)
        _check_output(output, manifest)
        kept = open_store(settings.store)
        batch = submit(manifest, settings, kept)
        with watching(console, batch.jobs) as watch:
            report = drain(settings, watch, wait_for_others=True)
        receipts = _receipts(kept, batch)
    _summarize(console, batch, receipts, report, kept)
    if not report.unavailable:
        _make_sheets(console, kept, batch)
    if report.unavailable:
        complain(report.why)
        raise typer.Exit(EXIT_UNAVAILABLE)
    if any(receipt is None or receipt.state != "done" for receipt in receipts.values()):
        raise typer.Exit(EXIT_NOT_ALL_MADE)
    if output:
        _copy(kept, next(iter(receipts.values())), output)


def _manifest(what: str) -> Manifest:
    """The manifest that the argument names; anything that does not look like a file is a prompt."""
    path = Path(what)
    is_path = "/" in what and not any(char.isspace() for char in what)
    is_file = is_path or path.suffix.lower() in KINDS or os.path.exists(what)  # noqa: PTH110 - False for a long prompt
    return read(path) if is_file else from_prompt(what)


def _check_output(output: Path | None, manifest: Manifest) -> None:
    if output is None:
        return
    if len(manifest.jobs) > 1:
        raise InvalidJob([Problem(f"-o takes one video, and {manifest.name} makes {len(manifest.jobs)}: leave it out")])
    if output.suffix.lower() != ".mp4":
        raise InvalidJob([Problem(f"-o {output}: videos are MP4 files: call it {output.with_suffix('.mp4').name}")])
    if output.exists():
        raise InvalidJob([Problem(f"-o {output} is there already: move it away, or choose another name")])
    if not output.absolute().parent.is_dir():
        raise InvalidJob([Problem(f"-o {output}: there is no folder {output.parent}: make it first")])


def _receipts(store: Store, batch: Manifest) -> dict[str, Receipt | None]:
    """The receipt of each job of the batch, or None."""
    receipts = Receipts(store)
    found = {job.id or "": receipts.read(batch.batch, job.id or "") for job in batch.jobs}
    return {job: held.receipt if held and held.receipt.ended else None for job, held in found.items()}


def _summarize(
    console: Console, batch: Manifest, receipts: dict[str, Receipt | None], report: RunReport, store: Store
) -> None:
    mine = [receipt for receipt in receipts.values() if receipt]
    made = [receipt for receipt in mine if receipt.state == "done"]
    earlier = sum(receipt.run != report.run for receipt in made)
    seconds = (report.ended_at - report.started_at).total_seconds()
    keyframes = f"{report.keyframes} keyframes rendered, {report.reused} from the store" if report.done else ""
    console.print()
    for receipt in mine:
        if receipt.state != "done":
            console.print(f"[red]{receipt.state}[/red] {receipt.job}: {escape(receipt.reason)}")
    for job in (job for job, receipt in receipts.items() if receipt is None):
        console.print(f"[yellow]not ended[/yellow] {job}: run the same command again to go on")
    if made and earlier == len(made) == len(receipts):
        console.print(f"All {len(made)} videos were there already; no model work was done.")
    else:
        text = f"{len(made)} of {len(receipts)} videos made in {seconds:.1f} s"
        console.print(
            text + (f" ({earlier} were there already)" if earlier else "") + (f", {keyframes}." if keyframes else ".")
        )
    console.print(f"They are in {store.url(batch.batch)}", markup=False)
    if any(receipt.state == "failed" for receipt in mine):
        console.print(f"Try the failed ones again with: nightreel retry {batch.batch}")


def _make_sheets(console: Console, store: Store, batch: Manifest) -> None:
    """What is made of finished videos must not make a run fail."""
    try:
        for place in sheets_of(store, batch.batch):
            console.print(f"Contact sheet: {place}", markup=False)
    except (StoreError, StoreUnavailable, PipelineError, OSError) as exc:
        complain(f"no contact sheet was made: {exc}")


def _copy(store: Store, receipt: Receipt | None, output: Path) -> None:
    assert receipt is not None
    video = next((file.name for file in receipt.outputs if file.name.endswith(".mp4")), None)
    if video is None:
        complain(f"the receipt of {receipt.job} names no video")
        raise typer.Exit(EXIT_BAD_INPUT)
    partial = output.with_name(output.name + ".part")
    partial.unlink(missing_ok=True)
    store.fetch(video, partial)
    shutil.move(partial, output)
    print(output)
