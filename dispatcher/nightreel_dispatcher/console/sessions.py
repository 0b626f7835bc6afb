"""Who is signed in, without anything being kept: a cookie that the dispatcher has signed.

    claim    ENDS_AT.NONCE.ACCOUNT in base64
    cookie   claim.HMAC-SHA256(key, "session" claim)
    csrf     HMAC-SHA256(key, "csrf" cookie)

The key is made of the dispatcher's token by scrypt, so that a cookie is no help in guessing the token, dispatchers that
share a token share their sessions, and another token ends them all. Without a token the key is random: sessions end with
the process.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

SESSION_S = 12 * 3600
_SCRYPT = {"n": 2**14, "r": 8, "p": 1, "dklen": 32}  # 16 MiB, about 50 ms, once a process


@dataclass(frozen=True, slots=True)
class Session:
    """One browser that may ask, for a while."""

    cookie: str
    csrf: str
    """What each request of it that changes something must carry; no other site can read it."""
    account: str
    """Who came in by a signed identity; empty for who showed the token, or is on this machine."""


class Sessions:
    """Makes sessions and knows its own again."""

    def __init__(self, token: str | None, clock: Callable[[], float] = time.time) -> None:
        self._token, self._clock = token, clock
        secret = token.encode() if token else secrets.token_bytes(32)
        self._key = hashlib.scrypt(secret, salt=b"nightreel console", **_SCRYPT)

    def new(self, account: str = "") -> Session:
        name = base64.urlsafe_b64encode(account.encode()).decode()
        claim = f"{int(self._clock()) + SESSION_S}.{secrets.token_urlsafe(16)}.{name}"
        return self._session(f"{claim}.{self._sign('session', claim)}")

    def open(self, token: str) -> Session | None:
        """A session for whoever knows the token; None for anybody else, and where there is no token."""
        if self._token is None or not hmac.compare_digest(self._token.encode(), token.encode()):
            return None
        return self.new()

    def read(self, cookie: str) -> Session | None:
        """The session of a cookie; None for one that has run out, or is not ours."""
        claim, _, signature = cookie.rpartition(".")
        if not hmac.compare_digest(self._sign("session", claim).encode(), signature.encode("utf-8", "replace")):
            return None
        parts = claim.split(".")
        return self._session(cookie) if len(parts) == 3 and int(parts[0]) > self._clock() else None

    def _session(self, cookie: str) -> Session:
        account = base64.urlsafe_b64decode(cookie.split(".")[2]).decode()
        return Session(cookie, self._sign("csrf", cookie), account)

    def _sign(self, purpose: str, text: str) -> str:
        return hmac.new(self._key, f"{purpose} {text}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()
