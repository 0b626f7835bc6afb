"""Temporary files of a run, which are gone when the run is, however it ends."""

from __future__ import annotations

import contextlib
import fcntl
import shutil
import tempfile
from pathlib import Path
from typing import IO, Self

_PREFIX = "nightreel-"


class Scratch:
    """A folder for one run. A lock tells it from those of killed runs, which the next run removes."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or Path(tempfile.gettempdir())
        self._lock: IO[str] | None = None
        self.folder = Path()

    def __enter__(self) -> Self:
        self._parent.mkdir(parents=True, exist_ok=True)
        for stale in self._parent.glob(f"{_PREFIX}*/alive"):
            _remove_if_dead(stale)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        unlocked = self.folder / "not-yet-alive"
        self._lock = unlocked.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unlocked.rename(self.folder / "alive")  # visible to other runs only with its lock held
        return self

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock:
            self._lock.close()

    def job_folder(self) -> Path:
        """A new, empty folder for one delivery."""
        return Path(tempfile.mkdtemp(prefix="job-", dir=self.folder))


def _remove_if_dead(lock: Path) -> None:
    with contextlib.suppress(OSError), lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its run is alive
        shutil.rmtree(lock.parent, ignore_errors=True)
