"""Addresses of queues."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from .base import Queue
from .errors import QueueUnavailable
from .sqlite import LEASE_S, SqliteQueue


def open_queue(url: str, *, make: bool = True) -> Queue:
    """Open the queue at an address. Raises QueueUnavailable; with `make` False also for a file that is not there.

    sqlite:///jobs.db      a file, relative to the current folder
    sqlite:////srv/jobs.db a file, by its absolute path
    ...?lease_s=60         with leases of 60 s instead of 15

    pubsub://PROJECT/SUBSCRIPTION   Google Pub/Sub, with leases of 60 s unless ?lease_s= says otherwise
    ...?empty_after_s=30            empty when nothing came for 30 s instead of 10
    """
    parts = urlsplit(url)
    if parts.scheme == "sqlite" and not parts.netloc and len(parts.path) > 1:
        path = Path(unquote(parts.path[1:]))
        if not make and not os.path.lexists(path):
            raise QueueUnavailable(f"there is no queue at {url}: name one with --queue or NIGHTREEL_QUEUE")
        return SqliteQueue(path, lease_s=_options(url, parts.query, lease_s=LEASE_S)["lease_s"])
    if parts.scheme == "pubsub":
        return _open_pubsub(url, parts.query)
    raise QueueUnavailable(f"cannot open queue {url!r}: write sqlite:///FILE or pubsub://PROJECT/SUBSCRIPTION")


def _open_pubsub(url: str, query: str) -> Queue:
    try:  # here, because publishers to other queues have no Google in their environment
        from . import pubsub_queue
        from .pubsub import Address
    except ImportError as exc:
        raise QueueUnavailable(f"cannot open queue {url!r}: run: pip install 'nightreel[gcp]' ({exc})") from exc
    options = _options(url, query, lease_s=pubsub_queue.LEASE_S, empty_after_s=pubsub_queue.EMPTY_AFTER_S)
    return pubsub_queue.PubSubQueue(Address.of(url), **options)


def _options(url: str, query: str, **defaults: float) -> dict[str, float]:
    """What an address says behind its question mark: seconds, each from 1 to 600."""
    said = dict(parse_qsl(query, keep_blank_values=True))
    with contextlib.suppress(ValueError):
        options = defaults | {name: float(text) for name, text in said.items()}
        if options.keys() == defaults.keys() and all(1 <= options[name] <= 600 for name in said):
            return options
    allowed = "the only option is lease_s" if len(defaults) == 1 else f"the only options are {' and '.join(defaults)}"
    raise QueueUnavailable(f"cannot open queue {url!r}: {allowed}, from 1 to 600 seconds")
