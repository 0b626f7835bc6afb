"""The one way in: a manifest's bytes, from whatever entrance, become a batch and its messages."""

from __future__ import annotations

from dataclasses import dataclass

import structlog

from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.manifest import Manifest, read_manifest

from .desk import Desk
from .submit import submit

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Taken:
    """A manifest that was taken in."""

    manifest: Manifest
    """As it was published: every job has its batch, id and model."""

    @property
    def ids(self) -> list[str]:
        return [str(job.id) for job in self.manifest.jobs]


class Intake:
    """Takes manifests in. Whoever sends one from elsewhere may name no files of this machine."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def take(self, data: bytes, name: str) -> Taken:
        """Record a manifest as a batch, publish its jobs, and say so; the suffix of `name` tells its form.

        All or none, and done again it does what is missing. Raises InvalidJob, IdTaken, and what cannot be reached.
        """
        self.check_size(len(data), name)
        desk = self._desk
        manifest = submit(read_manifest(data, name), desk.settings, desk.store, desk.queue)
        log.info("manifest_taken", manifest=name, batch=manifest.batch, jobs=len(manifest.jobs))
        desk.wake(f"{len(manifest.jobs)} jobs of {name}")
        return Taken(manifest)

    def check_size(self, size_bytes: int, name: str) -> None:
        """Raises InvalidJob for more than an entrance takes."""
        most_mb = self._desk.own.max_manifest_mb
        if size_bytes > most_mb * 10**6:
            raise InvalidJob([Problem(f"is larger than {most_mb:g} MB: split it", place=name)])
