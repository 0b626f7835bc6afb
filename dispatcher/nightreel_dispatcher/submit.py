"""From a manifest to a queue: what `nightreel enqueue` and all entrances of the dispatcher do."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nightreel_pipelines import abilities
from nightreel_pipelines.abilities import wrong_steps
from nightreel_pipelines.clips import description
from nightreel_pipelines.errors import Unrenderable
from nightreel_pipelines.models import ModelSpec, load_models, no_model, own_steps
from nightreel_pipelines.plan import plan
from nightreel_queue.base import Message, Queue
from nightreel_queue.connect import open_queue
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.job import Job
from nightreel_queue.manifest import Manifest
from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batches
from nightreel_storage.inputs import StoredInputs
from nightreel_storage.receipts import utc_now
from nightreel_worker.settings import Settings


def submit(manifest: Manifest, settings: Settings, store: Store, queue: Queue | None = None) -> Manifest:
    """Copy a manifest's files into the store, record it as a batch and publish its jobs; returns it as published.

    Done again after it was cut off, it does what is missing. `queue` is one that is open already. Raises InvalidJob,
    IdTaken.
    """
    models = load_models(settings.models)
    batch = manifest.resolved(settings.model, own_steps(models))
    check_models(batch.jobs, models)
    _check_reach(manifest, settings)
    _keep_files(manifest, store)
    messages = [Message.of(job) for job in batch.jobs]
    Batches(store).record(batch.batch, batch.name, utc_now(), _Requests(batch, messages))
    with contextlib.nullcontext(queue) if queue else contextlib.closing(open_queue(settings.queue_url)) as waiting:
        waiting.publish(messages)
    return batch


@dataclass(frozen=True, slots=True)
class _Requests:
    """Jobs as a batch's record has them, one at a time."""

    batch: Manifest
    messages: Sequence[Message]

    def __iter__(self) -> Iterator[Asked]:
        fingerprints = self.batch.fingerprints
        for job, message in zip(self.batch.jobs, self.messages, strict=True):
            name, text = str(job.id), message.body.decode()
            yield Asked(id=name, fingerprint=fingerprints[name], duration_s=job.duration_s, message=text)


def _check_reach(manifest: Manifest, settings: Settings) -> None:
    """Workers elsewhere cannot read a folder of this machine that nobody has chosen for them."""
    if manifest.files and "store" not in settings.model_fields_set and not settings.queue_url.startswith("sqlite:"):
        first = next(iter(manifest.files.values()))
        words = f"names {first}, which goes into the store, and none is given: name the workers' own with --store"
        raise InvalidJob([Problem(words, place=manifest.name)])


def _keep_files(manifest: Manifest, store: Store) -> None:
    kept, now = StoredInputs(store), utc_now()
    for address, path in manifest.files.items():
        try:
            kept.put(address, path, now)
        except OSError as exc:
            raise InvalidJob([Problem(f"{path} cannot be read: {exc.strerror}", place=manifest.name)]) from exc


def check_models(jobs: Sequence[Job], known: Mapping[str, ModelSpec]) -> None:
    """What the worker would refuse for its model, while somebody is there who can mend it. Raises InvalidJob."""
    unknown = sorted({job.render.model or "" for job in jobs} - known.keys())
    if unknown:
        raise InvalidJob([Problem(no_model(name, known), "render.model") for name in unknown])
    wrong = {job.id or "": wrong_steps(job, known[job.render.model or ""]) for job in jobs}
    if any(wrong.values()):
        raise InvalidJob([Problem(why, "render.steps", f"job {name}") for name, why in wrong.items() if why])
    refused = {job.id or "": _refused(job, known[job.render.model or ""]) for job in jobs}
    if any(refused.values()):
        raise InvalidJob([Problem(why, place=f"job {name}") for name, why in refused.items() if why])


def _refused(job: Job, spec: ModelSpec) -> str:
    """Why a model of clips would not make a job: its entry tells that without asking anybody. Empty when it would."""
    if not spec.clips:
        return ""
    try:
        abilities.check(job, spec, description(spec))
        plan(job, spec, description(spec), dict.fromkeys(job.inputs, ""))
    except Unrenderable as exc:
        return str(exc)
    return ""
