"""Files that survive a power cut, and what a disk's troubles mean for a store."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from .errors import StoreFull, StoreUnavailable

COPY_CHUNK_BYTES = 1 << 20


def chunks(source: IO[bytes]) -> Iterator[bytes]:
    while chunk := source.read(COPY_CHUNK_BYTES):
        yield chunk


def copy(source: Iterator[bytes], target: IO[bytes]) -> str:
    """Write all of it to `target`, and return its sha256 (hex)."""
    digest = hashlib.sha256()
    for chunk in source:
        digest.update(chunk)
        target.write(chunk)
    target.flush()
    return digest.hexdigest()


def write_new(path: Path, source: Iterator[bytes]) -> tuple[os.stat_result, str]:
    """Make a new, durable file; returns its state and its sha256. Its name is durable once its folder is synced."""
    with path.open("xb") as file:
        sha256 = copy(source, file)
        os.fsync(file.fileno())
        return os.fstat(file.fileno()), sha256


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folders(folder: Path) -> None:
    """Make a folder and those above it, durably."""
    if folder.is_dir():
        return
    make_folders(folder.parent)
    folder.mkdir(exist_ok=True)
    sync_folder(folder.parent)


def remove_empty_folders(lowest: Path, top: Path) -> None:
    """Remove `lowest` and what is above it, below `top`, as long as nothing is in it."""
    with contextlib.suppress(OSError):  # not empty, or never made
        for folder in (lowest, *lowest.parents):
            if folder == top:
                break
            folder.rmdir()


@contextlib.contextmanager
def translated(root: Path, size_bytes: int = 0) -> Iterator[None]:
    """Raises StoreFull and StoreUnavailable instead of OSError, for a store at `root`."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise StoreFull(_no_room(root, error, size_bytes)) from error
        raise StoreUnavailable(
            f"{error.filename or root} cannot be used ({error.strerror}): the store needs {root} to be a folder that"
            " you may read and write"
        ) from error


def _no_room(root: Path, error: OSError, size_bytes: int) -> str:
    needs = f"the object needs {size_bytes / 1e6:.1f} MB"
    if error.errno == errno.EFBIG:
        return f"no file in {root} may grow so large, {needs}: raise the limit (ulimit -f) and run again"
    free_bytes = shutil.disk_usage(root).free
    return f"no room left in {root}: {free_bytes / 1e6:.1f} MB free, {needs}; make room and run again"
