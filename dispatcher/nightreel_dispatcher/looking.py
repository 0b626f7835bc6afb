"""How jobs and batches are, by what the store knows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from nightreel_storage.attempts import Attempts
from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batch, Batches
from nightreel_storage.errors import NotFound
from nightreel_storage.receipts import Held, Receipt, Receipts, State, utc_now

from .answers import BatchAnswer, JobAnswer, JobLine, Recent

_BATCHES = ".nightreel/batches/"
_SHOWN = 10  # of the latest batches


def look_at_job(store: Store, batch: str, job: str) -> JobAnswer:
    """Raises NotFound."""
    held = Receipts(store).read(batch, job)
    if held is None:
        asked_for(store, batch, job)
    return how_is(store, batch, job, held)


def how_is(store: Store, batch: str, job: str, held: Held | None) -> JobAnswer:
    """A job that is known to be one; `held` is its receipt, if there is one."""
    if held and held.receipt.ended:
        return _ended(store, held.receipt)
    round_ = held.receipt.round if held else 1
    history = Attempts(store).history(batch, job, round_)
    state = "started" if history and history[-1].end == "" else "waiting"
    reason = next((attempt.reason for attempt in reversed(history) if attempt.reason), "")
    return JobAnswer(batch=batch, job=job, state=state, round=round_, reason=reason)


def asked_for(store: Store, batch: str, job: str) -> Asked:
    """A job as it was asked for. Raises NotFound."""
    batches = Batches(store)
    asked = batches.find(_known(batches, batch), job)
    if asked is None:
        raise NotFound(f"batch {batch} has no job {job}")
    return asked


def look_at_batch(store: Store, name: str, offset: int, limit: int) -> BatchAnswer:
    """With the jobs from `offset` (counted from 0), `limit` at most. Raises NotFound."""
    batches = Batches(store)
    batch = _known(batches, name)
    states = _states(store, name)
    ended = Counter(states.values())
    page, more = _page(batches.jobs(batch), offset, limit)
    return BatchAnswer(
        batch=name,
        title=batch.title,
        enqueued_at=batch.enqueued_at,
        count=batch.count,
        ended={"done": ended["done"], "failed": ended["failed"], "cancelled": ended["cancelled"]},
        open=max(0, batch.count - ended.total()),
        where=store.url(name),
        jobs=[JobLine.model_validate({"job": each.id, "state": states.get(each.id, "waiting")}) for each in page],
        next=offset + limit if more else None,
    )


def open_jobs(store: Store, name: str) -> Iterator[Asked]:
    """The jobs of a batch that have not ended. Raises NotFound."""
    batches = Batches(store)
    states = _states(store, name)
    return (asked for asked in batches.jobs(_known(batches, name)) if asked.id not in states)


def call_off(store: Store, batch: str, asked: Asked) -> Receipt:
    """End a job as cancelled. Raises AlreadyEnded."""
    receipt = Receipt(
        state="cancelled",
        batch=batch,
        job=asked.id,
        fingerprint=asked.fingerprint,
        reason="cancelled by hand",
        request=asked.message,
        ended_at=utc_now(),
    )
    return Receipts(store).cancel(receipt)


def latest(store: Store) -> list[Recent]:
    """The batches that were last written to, latest first."""
    heads = [entry for entry in store.list(_BATCHES) if "/" not in entry.name.removeprefix(_BATCHES)]
    newest = sorted(heads, key=lambda entry: entry.generation, reverse=True)[:_SHOWN]  # generations are times
    batches = [Batch.from_bytes(store.get(entry.name)[0], entry.name) for entry in newest]
    return [Recent(batch=b.name, title=b.title, enqueued_at=b.enqueued_at, count=b.count) for b in batches]


def known_batch(store: Store, name: str) -> Batch:
    """The batch's record, or one made of its receipts for jobs that were published without one. Raises NotFound."""
    if known := Batches(store).read(name):
        return known
    if receipts := list(Receipts(store).list(name)):
        jobs = tuple(Asked(id=r.job, fingerprint=r.fingerprint, duration_s=0.0, message=r.request) for r in receipts)
        return Batch(name=name, title="", enqueued_at=min(r.ended_at for r in receipts), jobs=jobs)
    names = [batch.name for batch in Batches(store).list()]
    raise NotFound(f"no batch {name}; there are {', '.join(names[-5:]) if names else 'none yet'}")


def no_job(batch: str, job: str) -> NotFound:
    return NotFound(f"batch {batch} has no job {job}; see: nightreel status {batch}")


def _known(batches: Batches, name: str) -> Batch:
    if (batch := batches.read(name)) is None:
        raise NotFound(f"no batch {name}")
    return batch


def _ended(store: Store, receipt: Receipt) -> JobAnswer:
    assert receipt.state != "queued"
    return JobAnswer(
        batch=receipt.batch,
        job=receipt.job,
        state=receipt.state,
        round=receipt.round,
        reason=receipt.reason,
        where=next((store.url(file.name) for file in receipt.outputs), ""),
        receipt=receipt,
    )


def _states(store: Store, batch: str) -> dict[str, State]:
    """How the jobs of a batch ended, by id; those that are open are not in it."""
    standings = Receipts(store).standings(batch)
    return {job: standing.state for job, standing in standings.items() if standing.ended}


def _page(jobs: Iterator[Asked], offset: int, limit: int) -> tuple[list[Asked], bool]:
    page: list[Asked] = []
    for index, asked in enumerate(jobs):
        if index >= offset + limit:
            return page, True
        if index >= offset:
            page.append(asked)
    return page, False
