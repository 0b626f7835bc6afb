"""Why workers are up, or not: what whoever starts them last said about it."""

from __future__ import annotations

from nightreel_storage.base import Store


def why(store: Store) -> str | None:
    """In words; None when nobody starts workers for this store."""
    return None
