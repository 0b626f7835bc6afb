"""Fetching what a job names: pictures and sounds that are there already.

Jobs are untrusted, so the operator says from where. Files are only copied here, never decoded: that is the renderer's work, which has no secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Self

from nightreel_queue.job import Job
from nightreel_storage.base import Store
from nightreel_storage.connect import fetch_object
from nightreel_storage.errors import Damaged, NotFound, ObjectTooLarge, StoreError, StoreUnavailable
from nightreel_storage.inputs import input_name, input_sha256, is_input

from .errors import Missing, Refused, TooLarge, Unreachable, WebError
from .settings import Settings
from .web import Web

MB = 1_000_000

_MEND = "enqueue its manifest again, from where the file is, then retry"


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows."""

    buckets: Collection[str] = ()
    https: bool = False
    max_mb: float = 200.0
    """All files of one job together."""
    limit_s: float = 60.0
    """Fetching all of them may take."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        buckets = settings.listed("input_buckets")
        return cls(buckets, settings.input_https, settings.input_max_mb, settings.input_timeout_s)


@dataclass(frozen=True, slots=True)
class Input:
    """A file in the scratch folder."""

    sha256: str
    """Hex, of the content."""
    path: Path


class Inputs:
    """Copies the inputs of jobs into their scratch folders. `store` has those that were enqueued with their jobs."""

    def __init__(self, rules: Rules, web: Web, store: Store | None = None) -> None:
        self._rules = rules
        self._web = web
        self._store = store

    def check(self, job: Job) -> None:
        """Raises Refused, or Forbidden, when an address must not be asked. Asks nobody."""
        rules = self._rules
        for address, where in job.inputs.items():
            if is_input(address):
                continue  # it leads to the store's inputs only
            if address.startswith("gs://"):
                bucket = address.split("/")[2]
                if bucket not in rules.buckets:
                    raise Refused(
                        f"{where}: this worker takes no files from gs://{bucket}: use an allowed bucket, or have"
                        " NIGHTREEL_INPUT_BUCKETS name this one"
                    )
            elif not rules.https:
                raise Refused(
                    f"{where}: this worker takes no files from the web: put it into a bucket, or have"
                    " NIGHTREEL_INPUT_HTTPS set"
                )
            else:
                with _at(where):
                    self._web.check(address)

    def fetch(self, job: Job, folder: Path, have: Mapping[str, Path] = MappingProxyType({})) -> dict[str, Input]:
        """Copy every input of a job, by address; those of `have` are at hand.

        Raises Refused, Missing, Forbidden, TooLarge, Unreachable; OSError.
        """
        self.check(job)
        began, left_bytes = time.monotonic(), round(self._rules.max_mb * MB)
        found: dict[str, Input] = {}
        for number, (address, where) in enumerate(job.inputs.items()):
            if address in have:
                found[address] = Input(_sha256(have[address]), have[address])
                continue
            path = folder / f"input-{number}"
            left_s = began + self._rules.limit_s - time.monotonic()
            with _at(where):
                if left_s <= 0:
                    raise Unreachable(f"fetching the job's files takes longer than {self._rules.limit_s:g} s")
                self._fetch(address, path, left_s, left_bytes)
            left_bytes -= path.stat().st_size
            found[address] = Input(_sha256(path), path)
            if is_input(address) and found[address].sha256 != input_sha256(address):
                raise Missing(f"{where}: the store's {input_name(address)} holds other content: {_MEND}")
        return found

    def _fetch(self, address: str, path: Path, limit_s: float, limit_bytes: int) -> None:
        if is_input(address):
            self._fetch_own(address, path, limit_bytes)
            return
        if not address.startswith("gs://"):
            self._web.fetch(address, path, limit_s=limit_s, limit_bytes=limit_bytes)
            return
        try:
            fetch_object(address, path, limit_s=limit_s, limit_bytes=limit_bytes)
        except NotFound as exc:
            raise Missing(f"{exc}: put it there, then retry") from exc
        except ObjectTooLarge as exc:
            raise TooLarge(str(exc)) from exc
        except (StoreError, StoreUnavailable) as exc:  # other jobs may need nothing of this bucket
            raise Unreachable(str(exc)) from exc

    def _fetch_own(self, address: str, path: Path, limit_bytes: int) -> None:
        name = input_name(address)
        try:
            entry = self._store.head(name) if self._store else None
            if self._store is None or entry is None:
                raise Missing(f"the store has no {name}: {_MEND}")
            if entry.size_bytes > limit_bytes:
                raise TooLarge(f"{name} has {entry.size_bytes:,} bytes; {limit_bytes:,} are allowed")
            self._store.fetch(name, path)
        except NotFound as exc:
            raise Missing(f"{exc}: {_MEND}") from exc
        except Damaged as exc:  # a store that cannot be had is the whole run's trouble, not this job's
            raise Unreachable(str(exc)) from exc


@contextlib.contextmanager
def _at(where: str) -> Iterator[None]:
    """Put the place in the job before what is told of an address."""
    try:
        yield
    except WebError as exc:
        raise type(exc)(f"{where}: {exc}") from exc


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
