"""Addresses of queues."""

from __future__ import annotations

from pathlib import Path

from .base import Queue
from .errors import QueueUnavailable


def open_queue(url: str) -> Queue:
    """Open the queue at an address. Raises QueueUnavailable.

    sqlite:///jobs.db      a file, relative to the current folder
    sqlite:////srv/jobs.db a file, by its absolute path
    """
    scheme, _, rest = url.partition("://")
    if scheme == "sqlite" and rest.startswith("/") and len(rest) > 1:
        from .sqlite import SqliteQueue

        return SqliteQueue(Path(rest[1:]))
    raise QueueUnavailable(f"cannot open queue {url!r}: write sqlite:///FILE")
