"""The keyframe cache: pictures, and whole clips, by the fingerprint of their recipe. It is the only way in which a job resumes.

Clips are kept as keyframes are, beside them. Keyframes are what costs GPU time, so each is stored, lossless, as soon as it is made, and equal recipes are never paid
for twice: not by a redelivered job, not by a changed camera move, not by another job with the same shot.
"""

from __future__ import annotations

import contextlib
import hashlib
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from .base import ABSENT, Store
from .errors import Conflict, Damaged, NotFound

FOLDER = ".nightreel/keyframes/"
CLIP = ".mp4"
_TYPES = {".png": "image/png", CLIP: "video/mp4"}


@dataclass(frozen=True, slots=True)
class Keyframe:
    """A keyframe that the store had, copied to a local file."""

    path: Path
    attempt: str
    """Id of the attempt that made it."""


class Keyframes:
    """The keyframes of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def fetch(self, fingerprint: str, path: Path) -> Keyframe | None:
        """Copy a keyframe, or the clip that a path ending in .mp4 is for, to `path`; None when the store has none, or a damaged one."""
        try:
            entry = self._store.fetch(_name(fingerprint, path), path)
        except (NotFound, Damaged):
            return None
        if entry.sha256 != hashlib.sha256(path.read_bytes()).hexdigest():
            path.unlink()
            return None
        return Keyframe(path, entry.metadata.get("attempt", ""))

    def put(self, fingerprint: str, path: Path, attempt: str) -> None:
        """Store a finished keyframe (a PNG) or clip (an MP4). One that is there is left as it is, unless it is damaged."""
        name, data = _name(fingerprint, path), path.read_bytes()
        try:
            self._write(name, data, attempt, ABSENT)
        except Conflict:
            if (damaged := self._damaged(name)) is not None:
                with contextlib.suppress(Conflict):  # somebody else mended it first
                    self._write(name, data, attempt, damaged)

    def fingerprints(self) -> frozenset[str]:
        """Of all keyframes and clips that the store has."""
        names = (PurePosixPath(entry.name) for entry in self._store.list(FOLDER))
        return frozenset(name.stem for name in names if name.suffix in _TYPES)

    def _damaged(self, name: str) -> int | None:
        """The generation of a keyframe that must be mended; None for one that is whole."""
        found = self._store.head(name)
        try:
            content, entry = self._store.get(name)
        except Damaged:
            return found.generation if found else ABSENT
        except NotFound:
            return ABSENT
        return None if entry.sha256 == hashlib.sha256(content).hexdigest() else entry.generation

    def _write(self, name: str, data: bytes, attempt: str, generation: int) -> None:
        content_type = _TYPES[PurePosixPath(name).suffix]
        self._store.put(name, data, generation=generation, content_type=content_type, metadata={"attempt": attempt})


def _name(fingerprint: str, path: Path) -> str:
    return f"{FOLDER}{fingerprint[:2]}/{fingerprint}{CLIP if path.suffix == CLIP else '.png'}"
