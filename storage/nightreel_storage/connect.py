"""Addresses of stores."""

from __future__ import annotations

from pathlib import Path

from .base import Store
from .errors import StoreUnavailable
from .folder import FolderStore


def open_store(url: str) -> Store:
    """Open the store at an address: a folder's path, which is made if need be. Raises StoreUnavailable."""
    if "://" in url:
        raise StoreUnavailable(f"cannot open store {url!r}: give a folder")
    return FolderStore(Path(url))
