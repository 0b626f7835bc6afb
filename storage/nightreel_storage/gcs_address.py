"""Addresses in Google Cloud Storage: gs://BUCKET, or gs://BUCKET/PREFIX for a part of a bucket."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Self
from urllib.parse import quote

from .base import check_name
from .errors import BadName, StoreUnavailable

PREFIX_MAX_BYTES = 200  # with the longest name of an object (800) it stays below Google's 1024

_BUCKET = re.compile(r"[a-z0-9][a-z0-9_.\-]{1,220}[a-z0-9]")
_SCHEME = "gs://"


@dataclass(frozen=True, slots=True)
class GcsAddress:
    """A bucket, and the prefix that all names of a store in it have."""

    bucket: str
    prefix: str = ""
    """Empty, or ending in "/"."""

    @classmethod
    def parse(cls, url: str) -> Self:
        """Raises StoreUnavailable for an address that could not be one."""
        bucket, _, prefix = url.removeprefix(_SCHEME).partition("/")
        prefix = prefix.removesuffix("/")
        if not (url.startswith(_SCHEME) and _BUCKET.fullmatch(bucket) and _is_prefix(prefix)):
            raise StoreUnavailable(f"cannot open store {url[:300]!r}: give gs://BUCKET or gs://BUCKET/PREFIX")
        return cls(bucket, prefix and prefix + "/")

    def key(self, name: str) -> str:
        """What Google calls the object of that name. Raises BadName."""
        return self.prefix + check_name(name)

    def name(self, key: str) -> str | None:
        """Our name for an object of Google's; None for one that no store could have put there."""
        try:
            return check_name(key.removeprefix(self.prefix)) if key.startswith(self.prefix) else None
        except BadName:
            return None

    def console_url(self, name: str) -> str:
        """Where somebody who is signed in finds the object."""
        return f"https://storage.cloud.google.com/{self.bucket}/{quote(self.key(name))}"


def _is_prefix(prefix: str) -> bool:
    try:
        return prefix == "" or (len(prefix) <= PREFIX_MAX_BYTES and bool(check_name(prefix)))
    except BadName:
        return False
