"""Marks: one at a time, taken over when their holder dies, given back in an outage; replies never go backwards."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from nightreel_dispatcher.bucket_tray import BucketTray
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.folder_tray import FolderTray
from nightreel_dispatcher.inbox import MAX_TRIES, Busy, Dropped, Inbox, Tray
from nightreel_dispatcher.intake import Intake
from nightreel_dispatcher.replies import Reply
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_queue.errors import QueueUnavailable
from nightreel_storage.receipts import utc_now
from nightreel_worker.settings import Settings

TIMEOUT_S = 60.0


@dataclass(slots=True)
class Place:
    """A desk, a folder of manifests, and a clock that stands still."""

    desk: Desk
    tray: FolderTray
    now: dt.datetime = field(default_factory=utc_now)
    told: list[str] = field(default_factory=list)

    def inbox(self, tray: Tray | None = None) -> Inbox:
        return Inbox(Intake(self.desk), self.desk.store, tray or self.tray, TIMEOUT_S, lambda: self.now)

    def drop(self, text: str = "a boat\n") -> Dropped:
        path = self.tray.folder / "a.txt"
        path.write_text(text)
        return Dropped(str(self.tray.folder), path.name, path.stat().st_mtime_ns)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    told: list[str] = []
    desk = Desk(Settings(store=str(tmp_path / "out"), model="testcard"), DispatcherSettings(), told.append)
    yield Place(desk, FolderTray(tmp_path / "inbox"), told=told)
    desk.close()


class Dying(FolderTray):
    """A tray whose holder dies while it reads."""

    def read(self, *_: object) -> bytes:
        raise KeyboardInterrupt


class Cut(FolderTray):
    """A tray that cannot be answered for now."""

    def reply(self, reply: Reply) -> None:
        raise QueueUnavailable("no way")


def test_a_version_belongs_to_who_began_it_until_the_time_is_up(place: Place) -> None:
    dropped = place.drop()
    with pytest.raises(KeyboardInterrupt):
        place.inbox(Dying(place.tray.folder)).take(dropped)

    place.now += dt.timedelta(seconds=TIMEOUT_S - 1)
    with pytest.raises(Busy) as caught:
        place.inbox().take(dropped)
    assert caught.value.wait_s == 1.0

    place.now += dt.timedelta(seconds=1)
    reply = place.inbox().take(dropped)
    assert reply is not None
    assert reply.ok
    assert place.told == ["1 jobs of a.txt"]

    # Done is done: the same reply, and nobody is woken
    assert place.inbox().take(dropped) == reply
    assert len(place.told) == 1


def test_an_outage_counts_as_no_try_and_the_next_one_begins_at_once(place: Place) -> None:
    dropped = place.drop()
    for _ in range(MAX_TRIES + 1):
        with pytest.raises(QueueUnavailable):
            place.inbox(Cut(place.tray.folder)).take(dropped)

    reply = place.inbox().take(dropped)

    assert reply is not None
    assert reply.ok


def test_who_dies_time_and_again_is_refused_in_the_end(place: Place) -> None:
    dropped = place.drop()
    for _ in range(MAX_TRIES):
        with pytest.raises(KeyboardInterrupt):
            place.inbox(Dying(place.tray.folder)).take(dropped)
        place.now += dt.timedelta(seconds=TIMEOUT_S)

    reply = place.inbox().take(dropped)

    assert reply is not None
    assert not reply.ok
    assert place.told == []


def test_a_version_that_is_gone_is_done_without_a_reply(place: Place) -> None:
    old = place.drop()
    place.drop("a tent\n")

    assert place.inbox().take(Dropped(old.place, old.name, old.generation - 1)) is None
    assert place.inbox().take(Dropped(old.place, "gone.txt", 1)) is None


@pytest.mark.parametrize("kind", ["bucket", "folder"])
def test_a_reply_never_replaces_one_to_a_later_version(place: Place, kind: str) -> None:
    tray: Tray = BucketTray(place.desk.store) if kind == "bucket" else place.tray
    at = utc_now()

    for generation in (2, 3, 1):
        tray.reply(Reply(ok=True, manifest="a.txt", generation=generation, at=at))

    folder = Path(place.desk.settings.store) if kind == "bucket" else place.tray.folder
    assert Reply.from_bytes((folder / "replies/a.txt.json").read_bytes(), "").generation == 3


def test_trouble_with_waking_undoes_nothing(place: Place) -> None:
    def fail(reason: str) -> None:
        raise RuntimeError(reason)

    desk = Desk(place.desk.settings, place.desk.own, fail)

    assert Intake(desk).take(b"a boat", "a.txt").ids
    assert desk.queue.backlog().total == 1
