"""status, cancel, retry: what became of the work, and what to do about it."""

from __future__ import annotations

import contextlib
import json
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Column, Table

from nightreel_dispatcher.again import ask_again
from nightreel_dispatcher.looked import last
from nightreel_dispatcher.looking import call_off, known_batch, no_job
from nightreel_pipelines.models import load_models
from nightreel_queue.connect import open_queue
from nightreel_queue.job import Job
from nightreel_storage.attempts import Attempts
from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batch, Batches
from nightreel_storage.connect import open_store
from nightreel_storage.holds import Holds
from nightreel_storage.receipts import AlreadyEnded, Receipts, State
from nightreel_worker.clips import give_up_orders

from .common import EXIT_BAD_INPUT, JsonFlag, QueueFlag, StoreFlag, complain, errors_in_one_line, settings_with

UNCUT_CHARS = (
    10_000  # a line's width where there is no terminal: paths and reasons stay whole for those who search them
)
AT_ONCE = 8  # requests to a store, which wait for its answers most of the time
ENDED: Sequence[State] = ("done", "failed", "cancelled")
_COLORS = {"done": "green", "failed": "red", "cancelled": "yellow"}


@dataclass(frozen=True, slots=True)
class JobStatus:
    """One job of a batch, as far as the store knows."""

    job: str
    state: str
    """waiting, started, or the receipt's."""
    reason: str
    round: int
    where: str


def status(
    batch: Annotated[str | None, typer.Argument(help="A batch's name; all of them when left out.")] = None,
    queue: QueueFlag = None,
    store: StoreFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what was asked for and what became of it."""
    settings = settings_with(queue=queue, store=store)
    console = Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else UNCUT_CHARS)
    with errors_in_one_line():
        kept = open_store(settings.store, make=False)
        if batch is None:
            rows = [_batch_row(kept, each) for each in Batches(kept).list()]
            with contextlib.closing(open_queue(settings.queue_url, make=False)) as waiting:
                backlog = waiting.backlog()
            held, looked = Holds(kept).read(), last(kept)
            if as_json:
                counts = {
                    "ready": backlog.ready,
                    "delayed": backlog.delayed,
                    "leased": backlog.leased,
                    "dead": backlog.dead,
                }
                told = {"hold": held.reason if held else None, "looked": looked and looked.model_dump(mode="json")}
                print(json.dumps({"batches": rows, "queue": counts, **told}))
                return
            _show_batches(console, rows)
            if held:
                since = held.since.isoformat(timespec="seconds")
                console.print(f"on hold since {since}: {escape(held.reason)}; lift it with: nightreel resume")
            console.print(
                f"queue: {backlog.ready} ready, {backlog.delayed} delayed, {backlog.leased} held by workers, "
                f"{backlog.dead} dead letters"
            )
            if looked:
                console.print(looked.sentence, markup=False)
            return
        jobs = list(statuses(kept, known_batch(kept, batch)))
    if as_json:
        print(json.dumps({"batch": batch, "jobs": [_as_dict(job) for job in jobs]}))
    else:
        _show_jobs(console, jobs)


def cancel(
    batch: Annotated[str, typer.Argument(help="A batch's name.", show_default=False)],
    job: Annotated[str | None, typer.Argument(help="One job; all that have not ended when left out.")] = None,
    store: StoreFlag = None,
) -> None:
    """Call a batch off, or one job of it: it ends as cancelled, also while it is being rendered."""
    settings = settings_with(store=store)
    with errors_in_one_line():
        kept = open_store(settings.store, make=False)
        known = known_batch(kept, batch)
        if job is None:
            print(_cancel_all(kept, known))
            return
        asked = Batches(kept).find(known, job)
        if asked is None:
            raise no_job(batch, job)
        try:
            call_off(kept, batch, asked)
        except AlreadyEnded as exc:
            complain(f"{exc}: nothing to cancel")
            raise typer.Exit(EXIT_BAD_INPUT) from None
    print(f"{batch}/{job} is cancelled")


def _cancel_all(store: Store, batch: Batch) -> str:
    """Cancel what has not ended, several at once; returns what to say of it."""
    standings = Receipts(store).standings(batch.name)
    left = [asked for asked in Batches(store).jobs(batch) if not (at := standings.get(asked.id)) or not at.ended]

    def cancelled(asked: Asked) -> bool:
        try:
            call_off(store, batch.name, asked)
        except AlreadyEnded:
            return False  # meanwhile
        return True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        count = sum(pool.map(cancelled, left))
    return f"{count} jobs of {batch.name} are cancelled; {batch.count - count} had ended before"


def retry(
    batch: Annotated[str, typer.Argument(help="A batch's name.", show_default=False)],
    job: Annotated[str | None, typer.Argument(help="One job; all that failed or were cancelled when left out.")] = None,
    without_limits: Annotated[
        bool, typer.Option("--without-limits", help="Lift the limits that the jobs themselves set.")
    ] = False,
    resubmit: Annotated[
        bool,
        typer.Option(
            "--resubmit", help="Order clips anew that were ordered and have not come: they are paid for again."
        ),
    ] = False,
    queue: QueueFlag = None,
    store: StoreFlag = None,
) -> None:
    """Ask for another round of jobs that failed or were cancelled."""
    settings = settings_with(queue=queue, store=store)
    with errors_in_one_line():
        kept = open_store(settings.store, make=False)
        known = known_batch(kept, batch)
        wanted = [job] if job else [r.job for r in Receipts(kept).list(batch) if r.state != "done"]
        messages = ask_again(kept, known, wanted, without_limits=without_limits)
        models = load_models(settings.models) if resubmit else {}
        given_up = sum(
            give_up_orders(kept, Job.model_validate_json(each.body), models) for each in messages if resubmit
        )
        with contextlib.closing(open_queue(settings.queue_url, make=False)) as waiting:
            waiting.publish(messages)
    anew = f"; {given_up} clips are ordered anew" if given_up else ""
    print(f"{len(messages)} jobs of {batch} enqueued again{anew}" if messages else f"nothing in {batch} needs a retry")


def statuses(store: Store, batch: Batch) -> Iterator[JobStatus]:
    """From two listings; only what has a reason to tell, or is under way, is read."""
    receipts, attempts = Receipts(store), Attempts(store)
    standings, begun = receipts.standings(batch.name), attempts.begun(batch.name)
    for asked in Batches(store).jobs(batch):
        at = standings.get(asked.id)
        if at and at.state == "done":
            yield JobStatus(asked.id, "done", "", at.round, store.url(f"{batch.name}/{asked.id}.mp4"))
        elif at and at.ended:
            held = receipts.read(batch.name, asked.id)
            yield JobStatus(asked.id, at.state, held.receipt.reason if held else "", at.round, "")
        else:
            round_ = at.round if at else 1
            tried = attempts.history(batch.name, asked.id, round_) if (asked.id, round_) in begun else ()
            state = "started" if tried and tried[-1].end == "" else "waiting"
            reason = next((attempt.reason for attempt in reversed(tried) if attempt.reason), "")
            yield JobStatus(asked.id, state, reason, round_, "")


def _batch_row(store: Store, batch: Batch) -> dict[str, Any]:
    states = Counter(standing.state for standing in Receipts(store).standings(batch.name).values())
    ended: dict[str, int] = {state: states[state] for state in ENDED}
    return {
        "batch": batch.name,
        "from": batch.title,
        "enqueued_at": batch.enqueued_at.isoformat(timespec="seconds"),
        "jobs": batch.count,
        **ended,
        "open": max(0, batch.count - sum(ended.values())),
        "where": store.url(batch.name),
    }


def _show_batches(console: Console, rows: list[dict[str, Any]]) -> None:
    table = Table("batch", "jobs", "done", "failed", "cancelled", "open", Column("where", overflow="fold"), box=None)
    for row in rows:
        table.add_row(*(escape(str(row[str(column.header)])) for column in table.columns))
    console.print(table if rows else "No batches yet.")


def _show_jobs(console: Console, jobs: list[JobStatus]) -> None:
    table = Table("job", "state", Column("reason, or where", overflow="fold"), box=None)
    for job in jobs:
        color = _COLORS.get(job.state, "default")
        table.add_row(job.job, f"[{color}]{job.state}[/]", escape(job.reason or job.where))
    console.print(table)


def _as_dict(job: JobStatus) -> dict[str, Any]:
    return {"job": job.job, "state": job.state, "reason": job.reason, "round": job.round, "where": job.where}
