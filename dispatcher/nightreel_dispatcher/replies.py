"""What is answered to a manifest that was dropped somewhere: taken, or refused with every mistake."""

from __future__ import annotations

import datetime as dt
from typing import Literal, Self

from nightreel_queue.errors import InvalidJob
from nightreel_storage.receipts import Record, utc_now

from .intake import Taken


class Mistake(Record):
    """One thing that is wrong."""

    place: str
    """File and line: nightly.yaml:14."""
    field: str
    message: str


class Reply(Record):
    """`replies/NAME.json`, the answer to `manifests/NAME`."""

    format: Literal[1] = 1
    ok: bool
    manifest: str
    """NAME."""
    generation: int
    """Which version of the manifest this is about: it changes with every write of it."""
    batch: str = ""
    jobs: int = 0
    repeated: int = 0
    """Jobs that were listed twice."""
    remarks: tuple[str, ...] = ()
    problems: tuple[Mistake, ...] = ()
    at: dt.datetime

    @classmethod
    def good(cls, name: str, generation: int, taken: Taken) -> Self:
        manifest = taken.manifest
        return cls(
            ok=True,
            manifest=name,
            generation=generation,
            batch=manifest.batch,
            jobs=len(manifest.jobs),
            repeated=manifest.repeated,
            remarks=manifest.remarks,
            at=utc_now(),
        )

    @classmethod
    def bad(cls, name: str, generation: int, problems: tuple[Mistake, ...]) -> Self:
        return cls(ok=False, manifest=name, generation=generation, problems=problems, at=utc_now())


def mistakes_of(error: Exception) -> tuple[Mistake, ...]:
    """What an error says, one by one."""
    if isinstance(error, InvalidJob):
        return tuple(Mistake(place=each.place, field=each.field, message=each.message) for each in error.problems)
    return (Mistake(place="", field="", message=str(error)),)
