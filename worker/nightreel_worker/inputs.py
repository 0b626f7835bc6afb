"""Fetching what a job names: pictures and sounds that are there already.

Jobs are untrusted, so the operator says from where. Files are only copied here, never decoded: that is the renderer's work, which has no secrets.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from nightreel_queue.job import Job
from nightreel_storage.connect import fetch_object
from nightreel_storage.errors import NotFound, ObjectTooLarge, StoreError, StoreUnavailable

from .errors import Missing, Refused, TooLarge, Unreachable, WebError
from .web import Web

MB = 1_000_000


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator allows."""

    buckets: Collection[str] = ()
    https: bool = False
    max_mb: float = 200.0
    """All files of one job together."""
    limit_s: float = 60.0
    """Fetching all of them may take."""


@dataclass(frozen=True, slots=True)
class Input:
    """A file in the scratch folder."""

    sha256: str
    """Hex, of the content."""
    path: Path


class Inputs:
    """Copies the inputs of jobs into their scratch folders."""

    def __init__(self, rules: Rules, web: Web) -> None:
        self._rules = rules
        self._web = web

    def check(self, job: Job) -> None:
        """Raises Refused, or Forbidden, when an address must not be asked. Asks nobody."""
        rules = self._rules
        for address, where in job.inputs.items():
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

    def fetch(self, job: Job, folder: Path) -> dict[str, Input]:
        """Copy every input of a job, by address. Raises Refused, Missing, Forbidden, TooLarge, Unreachable; OSError."""
        self.check(job)
        began, left_bytes = time.monotonic(), round(self._rules.max_mb * MB)
        found: dict[str, Input] = {}
        for number, (address, where) in enumerate(job.inputs.items()):
            path = folder / f"input-{number}"
            left_s = began + self._rules.limit_s - time.monotonic()
            with _at(where):
                if left_s <= 0:
                    raise Unreachable(f"fetching the job's files takes longer than {self._rules.limit_s:g} s")
                self._fetch(address, path, left_s, left_bytes)
            left_bytes -= path.stat().st_size
            found[address] = Input(_sha256(path), path)
        return found

    def _fetch(self, address: str, path: Path, limit_s: float, limit_bytes: int) -> None:
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
