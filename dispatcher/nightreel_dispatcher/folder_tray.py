"""Manifests in a folder: dropped into it, answered in its `replies/`."""

from __future__ import annotations

import contextlib
import os
import stat
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

from nightreel_queue.errors import InvalidJob, Problem
from nightreel_queue.manifest import KINDS
from nightreel_storage.errors import StoreError, StoreUnavailable

from .bucket_tray import REPLIES
from .inbox import Dropped
from .replies import Reply

_TEMPORARY = (".", "~", "#")  # how editors and spreadsheets call their own files


class FolderTray:
    """A tray in a folder, which is made when there is none. Links are not followed. Raises StoreUnavailable."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        with self._translated():
            self._replies.mkdir(parents=True, exist_ok=True)

    def look(self) -> Iterator[tuple[Path, os.stat_result]]:
        """The manifests that lie there, by name; what editors keep beside them is none. Raises StoreUnavailable."""
        with self._translated():
            for path in sorted(self.folder.iterdir()):
                if path.suffix.lower() not in KINDS or path.name.startswith(_TEMPORARY):
                    continue
                with contextlib.suppress(FileNotFoundError):
                    found = path.lstat()
                    if stat.S_ISREG(found.st_mode):
                        yield path, found

    def read(self, dropped: Dropped, check_size: Callable[[int], None]) -> bytes | None:
        """As in the protocol. Raises InvalidJob for a file that cannot be read."""
        path = self.folder / dropped.name
        try:
            with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW), "rb") as file:
                before = os.fstat(file.fileno())
                if before.st_mtime_ns != dropped.generation:
                    return None
                check_size(before.st_size)
                data = file.read(before.st_size + 1)
                after = os.fstat(file.fileno())
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise InvalidJob([Problem(f"cannot be read: {exc.strerror}", place=dropped.name)]) from exc
        return data if after.st_mtime_ns == before.st_mtime_ns and after.st_size == len(data) else None

    def reply(self, reply: Reply) -> None:
        target = self._replies / f"{reply.manifest}.json"
        with contextlib.suppress(OSError, StoreError):
            if Reply.from_bytes(target.read_bytes(), target.name).generation > reply.generation:
                return
        partial = self._replies / f".{uuid.uuid4().hex}"
        with self._translated():
            partial.write_bytes(reply.to_bytes())
            partial.replace(target)

    @property
    def _replies(self) -> Path:
        return self.folder / REPLIES

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as exc:
            raise StoreUnavailable(f"{self.folder} cannot be used: {exc.strerror or exc}") from exc
