"""What a store keeps although nobody needs it any more.

Nothing here is needed for a result to be right: a film never reads a stored keyframe that its own worker made, and a
keyframe that is gone is rendered again. Deleting what is in use would cost money, though; so what is in use stays:

- keyframes that an attempt made whose job has not ended, whoever asked for the job;
- keyframes in the plans of jobs that have not ended, for everything that the last runs say of their models. When a job
  cannot be planned here (no run tells of its model; it takes a picture from the web, or a pose), all keyframes stay;
- inputs that such jobs name, their attempts, and the records of their batches;
- the last runs, of which plans are made.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from nightreel_pipelines import clips
from nightreel_pipelines.base import Description
from nightreel_pipelines.errors import PipelineError
from nightreel_pipelines.models import ModelSpec
from nightreel_pipelines.plan import plan
from nightreel_queue.errors import InvalidJob
from nightreel_queue.job import Job
from nightreel_queue.problems import parse_job
from nightreel_storage import attempts, batches, keyframes
from nightreel_storage.base import Entry, Store
from nightreel_storage.batches import Batches
from nightreel_storage.errors import Conflict, StoreError
from nightreel_storage.inputs import input_name, is_input
from nightreel_storage.keeping import GC_DAYS, INPUT_MIN_AGE_S, MIN_AGE_S
from nightreel_storage.receipts import Receipts, Standing

from .forecast import content
from .history import LAST_RUNS, History
from .report import run_name

AT_ONCE = 8  # deletions, which wait for a bucket's answers most of the time
DESCRIBED_BY = 200  # runs that are asked what models are
INPUTS = ".nightreel/inputs/"

Name = tuple[str, str]
"""Batch and id of a job."""


@dataclass(frozen=True, slots=True)
class Litter:
    """What may be deleted of one kind, in the order in which that is safe."""

    folder: str
    entries: tuple[Entry, ...]
    in_use: int
    """Objects that are old enough, and stay."""

    @property
    def kind(self) -> str:
        return self.folder.split("/")[1]

    @property
    def size_bytes(self) -> int:
        return sum(entry.size_bytes for entry in self.entries)

    @property
    def oldest(self) -> dt.datetime | None:
        return min((entry.put_at for entry in self.entries if entry.put_at), default=None)


@dataclass(slots=True)
class InUse:
    """What jobs need that have not ended."""

    open: set[Name] = field(default_factory=set)
    """These jobs."""
    batches: set[str] = field(default_factory=set)
    """Of these jobs."""
    inputs: set[str] | None = field(default_factory=set)
    """Names of objects; None: all of them."""
    keyframes: set[str] | None = field(default_factory=set)
    """Fingerprints; None: all of them."""


def find(
    store: Store, models: Mapping[str, ModelSpec], now: dt.datetime, older_than: dt.timedelta | None
) -> list[Litter]:
    """What may go, by kind; `older_than` instead of each kind's own days. Raises StoreError."""
    in_use = _in_use(store, models, now)
    return [_litter(store, folder, in_use, now - _age(folder, older_than)) for folder in GC_DAYS]


def delete(store: Store, litter: Litter) -> int:
    """Delete what has not changed since it was found; returns how many objects. Raises StoreError."""
    heads = [entry for entry in litter.entries if not _is_part(entry)]
    count = _delete(store, heads)
    parts = [entry for entry in litter.entries if _is_part(entry)]
    if parts:  # a head that was added to meanwhile has stayed
        named = Batches(store).parts()
        count += _delete(store, [entry for entry in parts if entry.name not in named])
    return count


def _delete(store: Store, entries: Collection[Entry]) -> int:
    def gone(entry: Entry) -> bool:
        try:
            store.delete(entry.name, generation=entry.generation)
        except Conflict:
            return False  # somebody put it anew, or was faster
        return True

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return sum(pool.map(gone, entries))


def _age(folder: str, older_than: dt.timedelta | None) -> dt.timedelta:
    least_s = INPUT_MIN_AGE_S if folder == INPUTS else MIN_AGE_S
    return max(dt.timedelta(days=GC_DAYS[folder]) if older_than is None else older_than, dt.timedelta(seconds=least_s))


def _litter(store: Store, folder: str, in_use: InUse, before: dt.datetime) -> Litter:
    listed = list(store.list(folder))
    old = [entry for entry in listed if entry.sha256 and entry.put_at and entry.put_at < before]  # not those of a hand
    needed = _needed(store, folder, in_use, listed)
    free = [entry for entry in old if entry.name not in needed]
    return Litter(folder, tuple(free), len(old) - len(free))


def _needed(store: Store, folder: str, in_use: InUse, listed: list[Entry]) -> Collection[str]:
    match folder:
        case keyframes.FOLDER:
            return {entry.name for entry in listed if _is_keyframe_in_use(entry, in_use)}
        case attempts.FOLDER:
            return {entry.name for entry in listed if _job_of(entry) in in_use.open}
        case batches.FOLDER:
            return _batch_records_in_use(store, in_use)
    if folder == INPUTS:
        return {entry.name for entry in listed} if in_use.inputs is None else in_use.inputs
    return sorted(entry.name for entry in listed)[-LAST_RUNS:] if folder == run_name("") else ()


def _is_keyframe_in_use(entry: Entry, in_use: InUse) -> bool:
    fingerprint = PurePosixPath(entry.name).stem
    maker = entry.metadata.get("attempt", "").split(".")  # RUN.BATCH.JOB.ROUND.NUMBER
    made_for = (maker[1], maker[2]) if len(maker) == 5 else None
    return in_use.keyframes is None or fingerprint in in_use.keyframes or made_for in in_use.open


def _batch_records_in_use(store: Store, in_use: InUse) -> set[str]:
    heads = [batch for batch in Batches(store).list() if batch.name in in_use.batches]
    return {name for batch in heads for name in (batches.head_name(batch.name), *(part.name for part in batch.parts))}


def _is_part(entry: Entry) -> bool:
    return entry.name.startswith(batches.FOLDER) and "/" in entry.name.removeprefix(batches.FOLDER)


def _job_of(attempt: Entry) -> Name:
    batch, _, rest = attempt.name.removeprefix(attempts.FOLDER).partition("/")
    return batch, rest.partition("/")[0]


def _in_use(store: Store, models: Mapping[str, ModelSpec], now: dt.datetime) -> InUse:
    messages, ended = dict[Name, str](), set[Name]()
    begun = _begun(store, now)
    asked = {batch.name: batch for batch in Batches(store).list()}
    for name in asked.keys() | {batch for batch, _ in begun}:
        standings = Receipts(store).standings(name)
        ended |= {(name, job) for job, standing in standings.items() if standing.ended}
        messages |= {(name, job): text for job, text in _requested(store, name, standings)}
        if name in asked:
            jobs = Batches(store).jobs(asked[name])
            messages |= {(name, each.id): each.message for each in jobs if (name, each.id) not in ended}
    bare = begun - ended - messages.keys()
    in_use = InUse(open=messages.keys() | bare, batches={batch for batch, _ in messages})
    if bare:
        in_use.inputs = None  # the store does not know what they name
    _plan_all(store, messages, models, in_use)
    return in_use


def _begun(store: Store, now: dt.datetime) -> set[Name]:
    """Jobs that were tried, as long as an input is kept; later nobody waits any more for one that never ended."""
    since = now - dt.timedelta(days=GC_DAYS[INPUTS])
    return {_job_of(entry) for entry in store.list(attempts.FOLDER) if entry.put_at and entry.put_at > since}


def _requested(store: Store, batch: str, standings: Mapping[str, Standing]) -> Iterator[tuple[str, str]]:
    """Jobs of which another round has been asked for."""
    for job in (job for job, standing in standings.items() if not standing.ended):
        held = Receipts(store).read(batch, job)
        if held and held.receipt.request and not held.receipt.ended:
            yield job, held.receipt.request


def _plan_all(store: Store, messages: Mapping[Name, str], models: Mapping[str, ModelSpec], in_use: InUse) -> None:
    """Find the inputs and keyframes that jobs need."""
    history = History.read(store, DESCRIBED_BY) if messages else History(())
    for text in messages.values():
        try:
            job = parse_job(text.encode())
        except InvalidJob:  # of a newer version
            in_use.inputs = in_use.keyframes = None
            continue
        if in_use.inputs is not None:
            in_use.inputs |= {input_name(address) for address in job.inputs if is_input(address)}
        if in_use.keyframes is not None:
            planned = _planned(job, models, history)
            in_use.keyframes = None if planned is None else in_use.keyframes | planned


def _planned(job: Job, models: Mapping[str, ModelSpec], history: History) -> set[str] | None:
    """Fingerprints of a job's keyframes, on all machines that are known; None when nobody can tell."""
    model = job.render.model or ""
    elsewhere = any(not is_input(address) for address in job.inputs)  # nobody knows its content before it is fetched
    if elsewhere or any(shot.control for shot in job.shots):
        return None  # what stands in these recipes is in no run's report
    rows = {(row.source, row.revision, row.precision, row.device) for row in history.taken if row.model == model}
    known = [Description(*row) for row in rows]
    if model in models and models[model].clips:
        known = [clips.description(models[model])]
    if model not in models or not known:
        return None
    sums = {address: content(address) for address in job.inputs}
    try:
        plans = [plan(job, models[model], each, sums) for each in known]
    except (PipelineError, StoreError, ValueError):
        return None
    return {recipe.fingerprint for each in plans for recipe in each.recipes}
