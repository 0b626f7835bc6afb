"""enqueue: from a manifest to a queue."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from nightreel_dispatcher.submit import submit
from nightreel_queue.manifest import Manifest, load_manifest
from nightreel_storage.connect import open_store

from .common import JsonFlag, ModelFlag, QueueFlag, StoreFlag, complain, errors_in_one_line, settings_with


def enqueue(
    manifest: Annotated[
        Path, typer.Argument(help="File of jobs: YAML, JSON, JSONL, CSV, TSV or TXT.", show_default=False)
    ],
    queue: QueueFlag = None,
    store: StoreFlag = None,
    model: ModelFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Put a manifest's jobs into a queue, all or none."""
    settings = settings_with(queue=queue, store=store, model=model)
    with errors_in_one_line():
        asked = read(manifest)
        batch = submit(asked, settings, open_store(settings.store))
    if as_json:
        print(json.dumps({"batch": batch.batch, "jobs": [job.id for job in batch.jobs], "queue": settings.queue_url}))
    else:
        repeated = f" ({batch.repeated} more listed twice)" if batch.repeated else ""
        print(f"{len(batch.jobs)} jobs enqueued as batch {batch.batch}{repeated}, queue {settings.queue_url}")


def read(path: Path) -> Manifest:
    """The user's own manifest, which may name the user's own files; says on standard error what is worth a look."""
    manifest = load_manifest(path, local_files=True)
    for remark in manifest.remarks:
        complain(f"note: {remark}")
    return manifest
