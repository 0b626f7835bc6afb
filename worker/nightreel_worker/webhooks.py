"""Webhooks as https://www.standardwebhooks.com describes them: who signs a message, and how."""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
from collections.abc import Sequence

SECRET_PREFIX = "whsec_"
KEY_BYTES = (24, 64)  # shortest and longest key


def webhook_keys(secret: str) -> tuple[bytes, ...]:
    """The keys in a setting: `whsec_` and base64; two, separated by a comma, while one is being replaced.

    Raises ValueError, whose words do not have the secret.
    """
    return tuple(_key(part.strip()) for part in secret.split(",") if part.strip())


def signed_headers(keys: Sequence[bytes], id_: str, at_s: int, body: bytes) -> dict[str, str]:
    """What goes with a body. `at_s`: the time of this try, in seconds since 1970; receivers refuse old ones."""
    content = b".".join((id_.encode(), str(at_s).encode(), body))
    marks = [base64.b64encode(hmac.digest(key, content, hashlib.sha256)).decode() for key in keys]
    return {
        "Content-Type": "application/json",
        "webhook-id": id_,
        "webhook-timestamp": str(at_s),
        "webhook-signature": " ".join(f"v1,{mark}" for mark in marks),
    }


def _key(text: str) -> bytes:
    how = f"must be {SECRET_PREFIX} and the base64 of {KEY_BYTES[0]} to {KEY_BYTES[1]} random bytes"
    try:
        key = base64.b64decode(text.removeprefix(SECRET_PREFIX), validate=True)
    except binascii.Error:
        raise ValueError(how) from None
    if not text.startswith(SECRET_PREFIX) or not KEY_BYTES[0] <= len(key) <= KEY_BYTES[1]:
        raise ValueError(how)
    return key
