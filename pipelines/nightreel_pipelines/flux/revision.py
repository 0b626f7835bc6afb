"""Which weights these are: a hash over a model's folder that is fast even for 34 GB."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_BLOCKS = 64
_BLOCK_BYTES = 64 * 1024
_WHOLE_BYTES = _BLOCKS * _BLOCK_BYTES  # files up to this size (4 MiB) are read whole
_READERS = 16  # a bucket volume answers in tens of milliseconds: several files are read at once


def revision(folder: Path) -> str:
    """First 16 hex digits of a sha256 over every file's name, size and content, read in 64 blocks where it is large.

    A large file is sampled from its first byte (the header of a safetensors file) to its last, so other weights, which
    differ nearly everywhere, always give another revision; a single byte changed between two blocks of a large file
    does not: this names weights, it does not guard them. Notes (*.md), hidden files, Nightreel's own notes on a folder
    (nightreel-*) and times of change do not count.
    """
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if _counts(path, folder))
    with ThreadPoolExecutor(_READERS) as readers:
        contents = readers.map(lambda name: _content_hash(folder / name), names)
        lines = [f"{name}\0{content}\n" for name, content in zip(names, contents, strict=True)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()[:16]


def _counts(path: Path, folder: Path) -> bool:
    hidden = any(part.startswith(".") for part in path.relative_to(folder).parts) or path.name.startswith("nightreel-")
    return not hidden and path.suffix.lower() != ".md" and path.is_file()


def _content_hash(path: Path) -> str:
    size_bytes = path.stat().st_size
    digest = hashlib.sha256(f"{size_bytes}\0".encode())
    with path.open("rb") as file:
        for offset, length in _spans(size_bytes):
            file.seek(offset)
            digest.update(file.read(length))
    return digest.hexdigest()


def _spans(size_bytes: int) -> Iterator[tuple[int, int]]:
    """(offset, length) of what is read: all of it, or blocks whose first is the file's start and whose last its end."""
    if size_bytes <= _WHOLE_BYTES:
        yield 0, size_bytes
        return
    for block in range(_BLOCKS):
        yield (size_bytes - _BLOCK_BYTES) * block // (_BLOCKS - 1), _BLOCK_BYTES
