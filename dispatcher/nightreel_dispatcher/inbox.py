"""Manifests that are dropped somewhere, in a bucket or a folder: each version is taken once, however often it is told.

    .nightreel/manifests/STEM-HASH+VERSION.json     a mark: begun until some moment, or done

The mark is made before anything is read, and ends after the reply was written. In between its holder may die: whoever
is told again after `intake_timeout_s` does it all once more. The batch's record and an SQLite queue take every job once;
Pub/Sub may then hold a message twice, and the second delivery of a job that ended is acked without work.

A manifest that ends its holder every time is refused after MAX_TRIES.
"""

from __future__ import annotations

import contextlib
import datetime as dt
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Protocol

import structlog

from nightreel_queue.errors import InvalidJob, Problem, QueueUnavailable
from nightreel_queue.names import name_from
from nightreel_storage.base import ABSENT, Store
from nightreel_storage.batches import IdTaken
from nightreel_storage.errors import Conflict, NotFound, StoreUnavailable
from nightreel_storage.receipts import Record, utc_now

from .intake import Intake
from .replies import Mistake, Reply, mistakes_of

log = structlog.get_logger()

MAX_TRIES = 5
_FOLDER = ".nightreel/manifests/"


@dataclass(frozen=True, slots=True)
class Dropped:
    """One version of a manifest that somebody has put somewhere."""

    place: str
    """gs://BUCKET or a folder's path: where the name belongs."""
    name: str
    """Below the tray's folder of manifests: nightly.yaml, or clients/nightly.yaml."""
    generation: int
    """Grows with every write of it."""
    digest: str = ""
    """Of its content (hex), where the generation alone could be that of another version."""

    @property
    def mark_name(self) -> str:
        """The object that says how far this version is. Its name may be in any writing, hence the hash."""
        key = hashlib.sha256(f"{self.place}\n{self.name}".encode("utf-8", "surrogatepass")).hexdigest()[:16]
        version = f"{self.generation}-{self.digest[:16]}" if self.digest else str(self.generation)
        return f"{_FOLDER}{name_from(PurePosixPath(self.name).stem, 'manifest')}-{key}+{version}.json"


class Tray(Protocol):
    """Where manifests are dropped, and where their senders look for the reply."""

    def read(self, dropped: Dropped, check_size: Callable[[int], None]) -> bytes | None:
        """The content of exactly this version; None when it is gone: there is a newer one, or none.

        `check_size` is given the size in bytes before anything is read; what it raises is raised.
        """
        ...

    def reply(self, reply: Reply) -> None:
        """Write the reply, unless one to a later version is there."""
        ...


class Mark(Record):
    """How far one version of a manifest is."""

    place: str
    name: str
    generation: int
    tries: int
    """How often it was begun by somebody who did not come back."""
    until: dt.datetime
    """Whoever began it has it until then."""
    done: bool = False
    reply: Reply | None = None
    """None while it is not done, and for a version that was gone before it could be read."""


class Busy(Exception):
    """Raised when somebody else is at this version at the moment; carries how long to wait, in seconds."""

    def __init__(self, wait_s: float) -> None:
        self.wait_s = wait_s
        super().__init__(f"somebody else is at this manifest; ask again in {wait_s:.0f} s")


class Inbox:
    """Takes dropped manifests in, once each, and replies. Several may share a store."""

    def __init__(
        self,
        intake: Intake,
        store: Store,
        tray: Tray,
        timeout_s: float,
        clock: Callable[[], dt.datetime] = utc_now,
    ) -> None:
        self._intake, self._store, self._tray = intake, store, tray
        self._timeout = dt.timedelta(seconds=timeout_s)
        self._clock = clock

    def take(self, dropped: Dropped) -> Reply | None:
        """Take a version in unless that was done before; returns the reply, None when the version was gone.

        What will not mend is a reply, what will is raised: Busy, QueueUnavailable, StoreUnavailable.
        """
        mark, generation = self._begin(dropped)
        if mark.done:
            return mark.reply
        try:
            reply = self._reply_to(dropped, mark.tries)
            if reply:
                self._tray.reply(reply)
        except (QueueUnavailable, StoreUnavailable):
            self._give_back(dropped, mark, generation)
            raise
        self._end(dropped, mark.model_copy(update={"done": True, "reply": reply}), generation)
        return reply

    def _reply_to(self, dropped: Dropped, tries: int) -> Reply | None:
        name, generation = dropped.name, dropped.generation
        try:
            if tries > MAX_TRIES:
                words = f"was begun {MAX_TRIES} times and never ended: the dispatcher's log may say why; split it"
                raise InvalidJob([Problem(words, place=name)])
            data = self._tray.read(dropped, lambda size: self._intake.check_size(size, name))
            if data is None:
                log.info("manifest_superseded", manifest=name, generation=generation)
                return None
            return Reply.good(name, generation, self._intake.take(data, PurePosixPath(name).name))
        except (InvalidJob, IdTaken) as exc:
            mistakes: tuple[Mistake, ...] = mistakes_of(exc)
            log.warning("manifest_refused", manifest=name, generation=generation, problems=len(mistakes))
            return Reply.bad(name, generation, mistakes)

    def _begin(self, dropped: Dropped) -> tuple[Mark, int]:
        """The mark, ours unless it is done, and its generation. Raises Busy."""
        while True:
            found, generation = self._read(dropped)
            now = self._clock()
            if found and found.done:
                return found, generation
            if found and found.until > now:
                raise Busy((found.until - now).total_seconds())
            mark = Mark(
                place=dropped.place,
                name=dropped.name,
                generation=dropped.generation,
                tries=found.tries + 1 if found else 1,
                until=now + self._timeout,
            )
            with contextlib.suppress(Conflict):  # somebody else was first: look what he says
                return mark, self._put(dropped, mark, generation)

    def _give_back(self, dropped: Dropped, mark: Mark, generation: int) -> None:
        """Let the next one who is told begin at once. An outage is no fault of the manifest's."""
        with contextlib.suppress(Conflict, StoreUnavailable):
            free = mark.model_copy(update={"tries": mark.tries - 1, "until": self._clock()})
            self._put(dropped, free, generation)

    def _end(self, dropped: Dropped, mark: Mark, generation: int) -> None:
        with contextlib.suppress(Conflict):  # we took so long that somebody else began anew: his end counts
            self._put(dropped, mark, generation)

    def _read(self, dropped: Dropped) -> tuple[Mark | None, int]:
        try:
            data, entry = self._store.get(dropped.mark_name)
        except NotFound:
            return None, ABSENT
        return Mark.from_bytes(data, entry.name), entry.generation

    def _put(self, dropped: Dropped, mark: Mark, generation: int) -> int:
        name = dropped.mark_name
        entry = self._store.put(name, mark.to_bytes(), generation=generation, content_type="application/json")
        return entry.generation
