"""Google's identity tokens: the dispatcher's only module that imports Google's SDK."""

from __future__ import annotations

import time
from typing import Any

from google.auth import transport
from google.auth.exceptions import GoogleAuthError, TransportError
from google.auth.transport.requests import Request
from google.oauth2 import id_token

from .identity import NotProven, Unreachable, Verify

CERTS_URL = "https://www.googleapis.com/oauth2/v1/certs"
CERTS_KEPT_S = 3600.0  # Google announces its keys days before it uses them
CLOCK_SKEW_S = 10
ISSUERS = ("accounts.google.com", "https://accounts.google.com")


class _Kept:
    """A transport that asks for an address once an hour. Threads may ask at the same time."""

    def __init__(self) -> None:
        self._request = Request()
        self._kept: dict[str, tuple[float, transport.Response]] = {}

    def __call__(self, url: str, method: str = "GET", **options: Any) -> transport.Response:
        until, response = self._kept.get(url, (0.0, None))
        if response is None or time.monotonic() > until:
            response = self._request(url, method, **options)
            if response.status == 200:
                self._kept[url] = (time.monotonic() + CERTS_KEPT_S, response)
        return response


def verifier(audience: str, certs_url: str = CERTS_URL) -> Verify:
    """What an identity token proves: the e-mail address, if Google signed it for `audience` and it has not run out."""
    kept: Any = _Kept()  # as good as google-auth's abstract transport, whose signature says nothing

    def verify(token: str) -> str:
        try:
            claims = id_token.verify_token(token, kept, audience, certs_url, CLOCK_SKEW_S)
        except TransportError as exc:
            raise Unreachable(str(exc)) from exc
        except (ValueError, GoogleAuthError) as exc:
            raise NotProven(str(exc)) from exc
        if claims.get("iss") not in ISSUERS:
            raise NotProven("Google did not issue it")
        if not claims.get("email") or claims.get("email_verified") is not True:
            raise NotProven("it names no verified e-mail address")
        return str(claims["email"])

    return verify
