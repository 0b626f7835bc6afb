"""Addresses of stores."""

from __future__ import annotations

from pathlib import Path

from .base import Store
from .errors import StoreUnavailable
from .folder import FolderStore


def open_store(url: str) -> Store:
    """Open the store at an address: a folder's path, which is made if need be, or gs://BUCKET/PREFIX.

    Raises StoreUnavailable.
    """
    if url.startswith("gs://"):
        return _open_bucket(url)
    if "://" in url:
        raise StoreUnavailable(f"cannot open store {url!r}: give a folder, or gs://BUCKET/PREFIX")
    return FolderStore(Path(url))


def _open_bucket(url: str) -> Store:
    try:
        from .gcs import GcsStore  # a second that only buckets cost
    except ImportError as exc:
        raise StoreUnavailable(f"{url} needs Google's client: pip install 'nightreel[gcp]'") from exc
    return GcsStore(url)
