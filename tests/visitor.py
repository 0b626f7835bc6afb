"""Somebody who looks at the console: a browser's manners, without a browser."""

from __future__ import annotations

import re
from html import unescape
from pathlib import Path
from typing import Any

import httpx
from starlette.testclient import TestClient

from nightreel_dispatcher.app import create_app
from nightreel_dispatcher.desk import Desk
from nightreel_dispatcher.identity import Verify
from nightreel_dispatcher.opening import open_desk
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_worker.settings import Settings

TOKEN = "a-token-of-some-length"
HERE = "http://localhost:8080"
SCRIPT_FREE = "a lighthouse in the fog"
HTMX = {"HX-Request": "true"}
SAME_ORIGIN = {"Origin": HERE, "Sec-Fetch-Site": "same-origin"}


class Visitor:
    """A browser at a dispatcher of its own. Cookies are kept, forms carry what the page gave them."""

    def __init__(
        self,
        store: str | Path,
        *,
        token: str | None = None,
        own: dict[str, str] | None = None,
        policy: PolicySettings | None = None,
        verify: Verify | None = None,
        **settings: Any,
    ) -> None:
        """policy: what starts workers; without it nothing does."""
        given: dict[str, Any] = {**({"token": token} if token else {}), **(own or {})}
        known = Settings(store=str(store), **settings), DispatcherSettings(**given)
        self.desk, self.waker = open_desk(*known, policy) if policy else (Desk(*known), None)
        self.app = create_app(self.desk, verify, self.waker)
        self.client = TestClient(self.app, base_url=HERE, follow_redirects=False)

    def get(self, path: str, **headers: str) -> httpx.Response:
        return self.client.get(path, headers={"Accept": "text/html", **headers})  # type: ignore[return-value]  # httpx2 has the same

    def page(self, path: str) -> str:
        """A page that must be there, as text for people: without tags, blanks made one."""
        answer = self.get(path)
        assert answer.status_code == 200, answer.text
        return words(answer.text)

    @property
    def csrf(self) -> str:
        found = re.search(r'name="csrf" value="(\w+)"', self.get("/console/submit").text)
        assert found is not None
        return found[1]

    def send(self, path: str, fields: dict[str, str] | None = None, **options: Any) -> httpx.Response:
        """Send a form of one of our own pages."""
        data = {"csrf": self.csrf} | (fields or {})
        headers = SAME_ORIGIN | options.pop("headers", {})
        return self.client.post(path, data=data, headers=headers, **options)  # type: ignore[return-value]  # as above

    def close(self) -> None:
        self.client.close()
        self.desk.close()


def words(html: str) -> str:
    """What a page says."""
    return " ".join(unescape(re.sub(r"<[^>]*>", " ", html)).split())
