"""Content on its way to and from Google Cloud Storage, and its checksums."""

from __future__ import annotations

import base64
import hashlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import IO, Self

import google_crc32c

from .disk import chunks


@dataclass(frozen=True, slots=True)
class Sums:
    """Size and checksums of content."""

    size_bytes: int
    sha256: str
    """Hex."""
    crc32c: str
    """As Google writes it: big-endian, base64."""

    @classmethod
    def of(cls, content: IO[bytes]) -> Self:
        sha256, crc32c, size_bytes = hashlib.sha256(), google_crc32c.Checksum(), 0
        for chunk in chunks(content):
            sha256.update(chunk)
            crc32c.update(chunk)
            size_bytes += len(chunk)
        return cls(size_bytes, sha256.hexdigest(), _base64(crc32c))


class Ticking:
    """A file that tells when it is read: the SDK reads a chunk when the one before has gone over."""

    def __init__(self, file: IO[bytes], tick: Callable[[], None]) -> None:
        self._file, self._tick = file, tick

    def read(self, size: int = -1) -> bytes:
        self._tick()
        return self._file.read(size)

    def tell(self) -> int:
        return self._file.tell()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        return self._file.seek(offset, whence)


class Checked:
    """A file that knows the checksum of what was written to it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._sum = file, google_crc32c.Checksum()

    def write(self, chunk: bytes) -> int:
        self._sum.update(chunk)
        return self._file.write(chunk)

    @property
    def crc32c(self) -> str:
        return _base64(self._sum)


def _base64(crc32c: google_crc32c.Checksum) -> str:
    return base64.b64encode(crc32c.digest()).decode()
