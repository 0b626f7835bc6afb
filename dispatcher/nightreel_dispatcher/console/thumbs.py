"""Posters small enough for a page of sixty."""

from __future__ import annotations

import io
from functools import lru_cache

from nightreel_storage.base import Store

PIXELS = 480  # of the longer side: twice what a page shows, for screens of two pixels each
QUALITY = 78
KEPT = 1000  # about 10 kB each


class Thumbs:
    """Of one store. Safe to use from several threads."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._made = lru_cache(KEPT)(self._make)

    def webp(self, name: str, version: str) -> bytes:
        """A poster in small. `version` changes with its content. Raises NotFound; OSError for what is no picture."""
        return self._made(name, version)

    def _make(self, name: str, version: str) -> bytes:
        from PIL import Image  # only where pictures are looked at

        data, _ = self._store.get(name)
        out = io.BytesIO()
        with Image.open(io.BytesIO(data), formats=("JPEG",)) as poster:
            poster.draft("RGB", (PIXELS, PIXELS))
            poster.thumbnail((PIXELS, PIXELS))
            poster.convert("RGB").save(out, "WEBP", quality=QUALITY)
        return out.getvalue()
