"""enqueue: from a manifest to a queue."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import typer

from nightreel_pipelines.models import load_models
from nightreel_queue.base import Message
from nightreel_queue.connect import open_queue
from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.job import Job
from nightreel_queue.manifest import Manifest, load_manifest
from nightreel_storage.base import Store
from nightreel_storage.batches import Asked, Batch, Batches
from nightreel_storage.connect import open_store
from nightreel_storage.receipts import utc_now
from nightreel_worker.settings import Settings

from .common import JsonFlag, ModelFlag, QueueFlag, StoreFlag, errors_in_one_line, no_model, settings_with


def enqueue(
    manifest: Annotated[Path, typer.Argument(help="YAML, JSON or JSONL file of jobs.", show_default=False)],
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a manifest's jobs into a queue, all or none."""
    settings = settings_with(queue=queue, store=store, model=model)
    with errors_in_one_line():
        asked = load_manifest(manifest)
        batch = submit(asked, settings, open_store(settings.store))
    if as_json:
        print(json.dumps({"batch": batch.batch, "jobs": [job.id for job in batch.jobs], "queue": settings.queue_url}))
    else:
        repeated = f" ({batch.repeated} more listed twice)" if batch.repeated else ""
        print(f"{len(batch.jobs)} jobs enqueued as batch {batch.batch}{repeated}, queue {settings.queue_url}")


def submit(manifest: Manifest, settings: Settings, store: Store) -> Manifest:
    """Record a manifest as a batch and publish its jobs; returns it as published. Raises InvalidJob, IdTaken."""
    batch = manifest.resolved(settings.model)
    check_models(batch.jobs, settings)
    Batches(store).record(_record_of(batch))
    with contextlib.closing(open_queue(settings.queue_url)) as queue:
        queue.publish([Message.of(job) for job in batch.jobs])
    return batch


def _record_of(batch: Manifest) -> Batch:
    asked = tuple(
        Asked(id=job.id or "", fingerprint=job.fingerprint, duration_s=job.duration_s, message=job.to_json())
        for job in batch.jobs
    )
    return Batch(name=batch.batch, title=batch.name, enqueued_at=utc_now(), jobs=asked)


def check_models(jobs: Sequence[Job], settings: Settings) -> None:
    """Raises InvalidJob for models that there are not."""
    known = load_models(settings.models)
    unknown = sorted({job.render.model or "" for job in jobs} - known.keys())
    if unknown:
        raise InvalidJob([Problem(no_model(name, known), "render.model") for name in unknown])
