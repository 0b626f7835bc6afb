"""Temporary files of a run, which are gone when the run is, however it ends."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import shutil
import tempfile
import uuid
from pathlib import Path
from typing import IO, Self

from nightreel_pipelines.errors import BadVideo, FilmFailed

from .errors import RendererUnavailable

_PREFIX = "nightreel-"


class Scratch:
    """A folder for one run. A lock tells it from those of killed runs, which the next run removes."""

    def __init__(self, parent: Path | None = None) -> None:
        self._parent = parent or Path(tempfile.gettempdir())
        self._lock: IO[str] | None = None
        self.folder = Path()

    def __enter__(self) -> Self:
        """Raises RendererUnavailable when there is no folder to be had."""
        try:
            self._make()
        except OSError as exc:
            trouble = f"the scratch folder cannot be used ({exc}): set NIGHTREEL_SCRATCH to one that you may write to"
            raise RendererUnavailable(self.full if lacks_room(exc) else trouble) from exc
        return self

    def _make(self) -> None:
        self._parent.mkdir(parents=True, exist_ok=True)
        for stale in self._parent.glob(f"{_PREFIX}*/alive"):
            _remove_if_dead(stale)
        self.folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=self._parent))
        unlocked = self.folder / "not-yet-alive"
        self._lock = unlocked.open("w")
        fcntl.flock(self._lock, fcntl.LOCK_EX)
        unlocked.rename(self.folder / "alive")  # visible to other runs only with its lock held

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self.folder, ignore_errors=True)
        if self._lock:
            self._lock.close()

    def job_folder(self) -> Path:
        """A name for one delivery's folder, to be made by whoever works on it."""
        return self.folder / f"job-{uuid.uuid4().hex}"

    @property
    def full(self) -> str:
        """What to say when there is no room left in it."""
        return (
            f"no room left in {self._parent}: make room, or set NIGHTREEL_SCRATCH to a folder with more, and run again"
        )


def lacks_room(error: Exception) -> bool:
    """Did a disk fill up? The renderer and ffmpeg can say so in words only."""
    told = isinstance(error, OSError | FilmFailed | BadVideo)
    return told and any(os.strerror(code) in str(error) for code in (errno.ENOSPC, errno.EDQUOT))


def _remove_if_dead(lock: Path) -> None:
    with contextlib.suppress(OSError), lock.open("r+") as file:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # BlockingIOError: its run is alive
        shutil.rmtree(lock.parent, ignore_errors=True)
