"""What jobs need and had only on somebody's disk: pictures and sounds, kept by content.

An address `input:sha256:HEX.EXT` leads to `.nightreel/inputs/HEX.EXT` of the store that the worker has, and nowhere else.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import re
import tempfile
from pathlib import Path

from .base import ABSENT, Entry, Store
from .errors import Conflict, StoreError

REFRESH_DAYS = 7  # an input that is older is put anew, so that a bucket's rules leave it alone while its job waits

_ADDRESS = re.compile(r"input:sha256:([0-9a-f]{64})\.([a-z0-9]{2,4})")
_KEPT_SINCE = "kept-since"
_CHUNK_BYTES = 1 << 20
_TYPES = {
    "png": "image/png", "jpg": "image/jpeg", "webp": "image/webp", "wav": "audio/wav", "flac": "audio/flac",
    "ogg": "audio/ogg", "m4a": "audio/mp4", "mp3": "audio/mpeg",
}  # fmt: skip


class Changed(StoreError):
    """Raised when a file's content is no longer what its address says."""


def is_input(address: str) -> bool:
    """Does an address name something in the store's inputs?"""
    return address.startswith("input:")


def input_sha256(address: str) -> str:
    """The checksum (hex) of what an address names. Raises ValueError for one that names no input."""
    return _parts(address)[0]


def input_name(address: str) -> str:
    """The object that an address names. Raises ValueError for one that names no input."""
    digest, suffix = _parts(address)
    return f".nightreel/inputs/{digest}.{suffix}"


class StoredInputs:
    """The inputs of one store."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def put(self, address: str, path: Path, now: dt.datetime) -> bool:
        """Keep a file's content under its address; False when the store has it already.

        Raises Changed when the file's content is another one by now, StoreError when the store's is; OSError.
        """
        name = input_name(address)
        held = self._store.head(name)
        if held and held.sha256 != input_sha256(address):
            raise StoreError(f"{self._store.url(name)} does not hold what its name says: move it away")
        if held and _age(held, now) < dt.timedelta(days=REFRESH_DAYS):
            return False
        with tempfile.TemporaryDirectory() as folder:
            copied = Path(folder) / "input"
            if _copy(path, copied) != input_sha256(address):
                raise Changed(f"{path} changed while it was read: run the same command again")
            try:
                self._store.put(
                    name,
                    copied,
                    generation=held.generation if held else ABSENT,
                    content_type=_TYPES.get(name.rpartition(".")[2], "application/octet-stream"),
                    metadata={_KEPT_SINCE: now.isoformat()},
                )
            except Conflict:
                return False  # somebody else was faster with the same content
        return True


def _parts(address: str) -> tuple[str, str]:
    match = _ADDRESS.fullmatch(address)
    if match is None:
        raise ValueError(f"{address[:100]!r} is not input:sha256:HEX.EXT")
    return match[1], match[2]


def _age(entry: Entry, now: dt.datetime) -> dt.timedelta:
    try:
        return now - dt.datetime.fromisoformat(entry.metadata.get(_KEPT_SINCE, ""))
    except ValueError:
        return dt.timedelta.max


def _copy(source: Path, target: Path) -> str:
    """Copy a file in pieces; returns the sha256 (hex) of the copy."""
    digest = hashlib.sha256()
    with source.open("rb") as reading, target.open("wb") as writing:
        while chunk := reading.read(_CHUNK_BYTES):
            digest.update(chunk)
            writing.write(chunk)
    return digest.hexdigest()
