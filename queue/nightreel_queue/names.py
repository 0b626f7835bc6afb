"""Names for outputs, made of what people write."""

from __future__ import annotations

import re
import unicodedata

NAME_CHARS = 64
FINGERPRINT_CHARS = 8  # at the end of a name


def name_from(words: str, fallback: str = "batch") -> str:
    """A name for outputs made of some words, with room for a fingerprint behind it."""
    ascii_words = unicodedata.normalize("NFKD", words[:1000]).encode("ascii", "ignore").decode()
    name = re.sub(r"[^A-Za-z0-9_]+", "-", ascii_words)[: NAME_CHARS - FINGERPRINT_CHARS - 1].strip("-")
    return name or fallback
