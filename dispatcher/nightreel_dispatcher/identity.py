"""Who may ask: holders of a token, or Google accounts by their signed identity; without either, this machine alone.

On Cloud Run, IAM has looked before. The dispatcher looks again, so that one wrong grant does not open it to everybody.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Mapping, Sequence
from urllib.parse import urlsplit

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers
from starlette.responses import JSONResponse, RedirectResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from .settings import DispatcherSettings

OPEN = ("/health", "/healthz")
LOOPBACK = ("localhost", "127.0.0.1", "::1")
READING = ("GET", "HEAD", "OPTIONS")

Verify = Callable[[str], str]
"""The e-mail address that an identity token proves. Raises NotProven, and Unreachable without Google's keys."""


class NotProven(Exception):
    """Raised when a token proves nothing."""


class Unreachable(Exception):
    """Raised when Google's keys cannot be had."""


class Refused(Exception):
    """Raised when a request is not answered; carries the status and the words."""

    def __init__(self, status: int, words: str) -> None:
        self.status = status
        super().__init__(words)


class Keeper:
    """Decides who may ask. `verify` says who sent an identity token; Google's by default."""

    def __init__(self, own: DispatcherSettings, verify: Verify | None = None) -> None:
        self._own = own
        self._verify = verify or _google_verifier(own)

    @property
    def guarded(self) -> bool:
        return self._own.guarded

    async def check(self, method: str, headers: Mapping[str, str]) -> str:
        """The account that asks; empty for this machine, and for who holds the token. Raises Refused."""
        if not self._own.guarded:
            _check_near(method, headers)
            return ""
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not given:
            raise Refused(401, "send a token: Authorization: Bearer TOKEN")
        if self._is_token(given):
            return ""
        if self._verify is None:
            raise Refused(401, "the token is not the dispatcher's")
        return await run_in_threadpool(self._account, self._verify, given)

    def _is_token(self, given: str) -> bool:
        token = self._own.token
        return token is not None and hmac.compare_digest(token.get_secret_value().encode(), given.encode())

    def _account(self, verify: Verify, given: str) -> str:
        try:
            account = verify(given)
        except NotProven as exc:
            raise Refused(401, f"the token is not accepted: {exc}") from exc
        except Unreachable as exc:
            raise Refused(503, f"the token cannot be checked now: {exc}") from exc
        if account.lower() not in self._own.allowed:
            raise Refused(403, f"{account} may not ask: NIGHTREEL_DISPATCHER_ACCOUNTS does not name it")
        return account


class Guard:
    """Looks at each request before anything of its body is read. What is below an `elsewhere` has a guard of its own."""

    def __init__(self, app: ASGIApp, keeper: Keeper, elsewhere: Sequence[str] = ()) -> None:
        self._app, self._keeper = app, keeper
        self._elsewhere = tuple(elsewhere)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._passes(scope["path"]):
            try:
                await self._keeper.check(scope["method"], Headers(scope=scope))
            except Refused as exc:
                await self._answer(exc, scope)(scope, receive, send)
                return
        await self._app(scope, receive, send)

    def _answer(self, refused: Refused, scope: Scope) -> ASGIApp:
        """A browser that comes without a token is led to where it can sign in."""
        if refused.status == 401 and scope["path"] == "/" and "text/html" in Headers(scope=scope).get("accept", ""):
            return RedirectResponse(f"{self._elsewhere[0]}/", 303)
        return _refusal(refused)

    def _passes(self, path: str) -> bool:
        return path in OPEN or any(path == part or path.startswith(f"{part}/") for part in self._elsewhere)


def _check_near(method: str, headers: Mapping[str, str]) -> None:
    """Only this machine asks, and no web page that is open in its browser."""
    host = urlsplit(f"//{headers.get('host', '')}")
    if host.hostname not in LOOPBACK:
        raise Refused(403, "without a token only this machine may ask: set NIGHTREEL_DISPATCHER_TOKEN")
    origin = headers.get("origin")
    if origin and method not in READING and urlsplit(origin).netloc != host.netloc:
        raise Refused(403, "a web page of another origin may not ask")


def _refusal(refused: Refused) -> JSONResponse:
    headers = {401: {"WWW-Authenticate": "Bearer"}, 503: {"Retry-After": "5"}}.get(refused.status)
    return JSONResponse({"problems": [{"place": "", "field": "", "message": str(refused)}]}, refused.status, headers)


def _google_verifier(own: DispatcherSettings) -> Verify | None:
    if not own.audience:
        return None
    from .google_tokens import verifier  # only where Google's identities are asked for

    return verifier(own.audience)
