"""Addresses of stores."""

from __future__ import annotations

from pathlib import Path

from .base import Store
from .errors import StoreUnavailable
from .folder import FolderStore


def open_store(url: str, *, make: bool = True) -> Store:
    """Open the store at an address: a folder's path, or gs://BUCKET/PREFIX.

    A folder that is not there is made, or with `make` False refused. Raises StoreUnavailable.
    """
    if url.startswith("gs://"):
        return _open_bucket(url)
    if "://" in url:
        raise StoreUnavailable(f"cannot open store {url!r}: give a folder, or gs://BUCKET/PREFIX")
    if not make and not FolderStore.may_be_at(Path(url)):
        raise StoreUnavailable(f"there is no store at {url}: name one with --store or NIGHTREEL_STORE")
    return FolderStore(Path(url))


def fetch_object(address: str, path: Path, *, limit_s: float, limit_bytes: int) -> None:
    """Copy gs://BUCKET/NAME to a new local file. Raises as `gcs_objects.fetch` does."""
    try:
        from .gcs_objects import fetch
    except ImportError as exc:
        raise _needs_google(address) from exc
    fetch(address, path, limit_s=limit_s, limit_bytes=limit_bytes)


def _open_bucket(url: str) -> Store:
    try:
        from .gcs import GcsStore  # a second that only buckets cost
    except ImportError as exc:
        raise _needs_google(url) from exc
    return GcsStore(url)


def _needs_google(url: str) -> StoreUnavailable:
    return StoreUnavailable(f"{url} needs Google's client: pip install 'nightreel[gcp]'")
