"""The console's door: who may come in with a browser, and what the browser may do with the pages.

With a token set, a browser shows it once and gets a session. Without one only this machine may ask, and every browser on
it gets a session unasked: not to keep it out, but so that no other site can act in its name. Whatever changes something
also needs the session's CSRF token, which `forms.py` looks for.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from urllib.parse import quote, urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..identity import READING, Keeper, Refused
from .pages import problem_page
from .sessions import SESSION_S, Session, Sessions

ROOT = "/console"
SIGN_IN = f"{ROOT}/sign-in"
STATIC = f"{ROOT}/static/"
SESSION = "nightreel.session"
"""Where a request's scope has its session; None at the sign-in page."""


class Door:
    """Looks at each request before the console does."""

    def __init__(self, app: ASGIApp, keeper: Keeper, sessions: Sessions, store: str) -> None:
        self._app, self._keeper, self._sessions = app, keeper, sessions
        self._headers = security_headers(store)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        cookies: tuple[str, ...] = ()
        try:
            session, is_new = await self._admit(scope["method"], scope["path"], headers)
        except Refused as exc:
            app: ASGIApp = _turned_away(exc, scope, headers)
        else:
            app, scope[SESSION] = self._app, session
            cookies = (cookie_line(session, headers),) if session and is_new else ()
        await app(scope, receive, self._dressed(send, cookies))

    async def _admit(self, method: str, path: str, headers: Mapping[str, str]) -> tuple[Session | None, bool]:
        """The request's session, and whether it is a new one. Raises Refused."""
        if method not in READING:
            check_same_site(headers)
        session = self._sessions.read(_cookie(headers))
        account = ""
        if not self._keeper.guarded:
            await self._keeper.check(method, headers)
        elif path == SIGN_IN or path.startswith(STATIC):
            return session, False
        elif session is None:
            try:
                account = await self._keeper.check(method, headers)
            except Refused as exc:  # whatever is wrong with the token that a proxy has sent: signing in helps
                raise Refused(401, str(exc)) from exc
        return session or self._sessions.new(account), session is None

    def _dressed(self, send: Send, cookies: tuple[str, ...]) -> Send:
        async def dressed(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(self._headers)
                headers.setdefault("Cache-Control", "no-store")
                for cookie in cookies:
                    headers.append("Set-Cookie", cookie)
            await send(message)

        return dressed


def security_headers(store: str) -> dict[str, str]:
    """Nothing inline, nothing from elsewhere; but videos in a bucket come from Google, by signed addresses."""
    bucket = os.environ.get("STORAGE_EMULATOR_HOST", "https://storage.googleapis.com")
    policy = (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self';"
        f" media-src 'self'{' ' + bucket if '://' in store else ''};"
        " form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    )
    return {
        "Content-Security-Policy": policy,
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "same-origin",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
    }


def check_same_site(headers: Mapping[str, str]) -> None:
    """Raises Refused for a request that another site's page makes.

    Browsers say so in Sec-Fetch-Site; where they do not (plain http to another machine), Origin must be our own host.
    """
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    same = site == "same-origin" if site else not origin or urlsplit(origin).netloc == headers.get("host")
    if not same:
        raise Refused(403, "a web page of another origin may not ask")


def cookie_name(headers: Mapping[str, str]) -> str:
    """With the port: browsers send a cookie to every port of a host, and two dispatchers would sign each other out."""
    port = headers.get("host", "").rpartition(":")[2]
    return f"nightreel-{port}" if port.isdigit() else "nightreel"


def cookie_line(session: Session | None, headers: Mapping[str, str]) -> str:
    """A Set-Cookie line; without a session it takes the cookie away."""
    value, lasts_s = (session.cookie, SESSION_S) if session else ("", 0)
    secure = "; Secure" if headers.get("x-forwarded-proto") == "https" else ""
    return f"{cookie_name(headers)}={value}; Max-Age={lasts_s}; Path={ROOT}; HttpOnly; SameSite=Strict{secure}"


def _cookie(headers: Mapping[str, str]) -> str:
    """Others on this machine may have set cookies of any form: what is odd about them must not hide ours."""
    return cookie_parser(headers.get("cookie", "")).get(cookie_name(headers), "")


def _turned_away(refused: Refused, scope: Scope, headers: Mapping[str, str]) -> Response:
    """To the sign-in page, if signing in would help."""
    if refused.status != 401:
        return problem_page(refused.status, [str(refused)])
    if headers.get("hx-request"):
        return Response(status_code=401, headers={"HX-Redirect": SIGN_IN})
    to = scope["path"] if scope["method"] in READING else f"{ROOT}/"
    return RedirectResponse(f"{SIGN_IN}?to={quote(to)}", 303)
