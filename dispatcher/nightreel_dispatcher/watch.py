"""A folder as the entrance: what is dropped into it is taken in, also what was dropped while nobody watched."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import structlog
from watchfiles import watch

from nightreel_queue.errors import QueueUnavailable
from nightreel_storage.errors import StoreError

from .desk import Desk
from .folder_tray import FolderTray
from .inbox import Busy, Dropped, Inbox
from .intake import Intake

log = structlog.get_logger()

SETTLE_S = 1.0  # for which a file must stay as it is: whoever writes it may not be done
LOOK_AGAIN_S = 10.0  # what a network drive does not tell is seen then, and trouble may be over

Version = tuple[int, int, int]
"""Inode, size in bytes, and time of the last change in ns."""


@dataclass(slots=True)
class _Seen:
    version: Version
    since: float
    """By the monotonic clock."""
    done: bool = False


@dataclass(slots=True)
class Watcher:
    """Looks into one folder. `look` is not to be called from two threads."""

    desk: Desk
    tray: FolderTray
    _seen: dict[str, _Seen] = field(default_factory=dict)

    def run(self, stop: threading.Event) -> None:
        """Look whenever something changes, until `stop`."""
        looked = 0.0
        for changes in _changes(self.tray.folder, stop):
            if changes or not self._is_settled or time.monotonic() - looked > LOOK_AGAIN_S:
                looked = time.monotonic()
                self._look_calmly()

    def look(self, now: float) -> None:
        """Take in what has settled by `now` (monotonic clock). Raises StoreError, QueueUnavailable."""
        lying = {
            path.name: (path, (found.st_ino, found.st_size, found.st_mtime_ns)) for path, found in self.tray.look()
        }
        self._seen = {name: seen for name, seen in self._seen.items() if name in lying}
        for name, (path, version) in lying.items():
            seen = self._seen.get(name)
            if seen is None or seen.version != version:
                self._seen[name] = _Seen(version, now)
            elif not seen.done and now - seen.since >= SETTLE_S:
                seen.done = self._take(path, version)

    @property
    def _is_settled(self) -> bool:
        return all(seen.done for seen in self._seen.values())

    def _look_calmly(self) -> None:
        """Trouble with queue, store or folder is told, and tried again."""
        try:
            self.look(time.monotonic())
        except (StoreError, QueueUnavailable) as exc:
            log.warning("watching_failed", folder=str(self.tray.folder), reason=str(exc))

    def _take(self, path: Path, version: Version) -> bool:
        """Returns whether that is done with."""
        digest = _digest(path)
        if digest is None:
            return False
        desk = self.desk
        inbox = Inbox(Intake(desk), desk.store, self.tray, desk.own.intake_timeout_s)
        dropped = Dropped(str(self.tray.folder), path.name, version[2], digest)
        try:
            inbox.take(dropped)
        except Busy:
            return False
        return True


def _changes(folder: Path, stop: threading.Event) -> Iterator[object]:
    """What changed since the last time; nothing, when nothing did for SETTLE_S."""
    return watch(
        folder,
        stop_event=stop,
        recursive=False,
        step=50,
        rust_timeout=int(SETTLE_S * 1000),
        yield_on_timeout=True,
        raise_interrupt=False,
    )


def _digest(path: Path) -> str | None:
    """sha256 (hex) of a file's content; None when it is gone, or cannot be read."""
    import hashlib

    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None
