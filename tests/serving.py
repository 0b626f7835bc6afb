"""A dispatcher as a process of its own, and somebody who asks it."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import httpx
from house import House, Run, finish, kill, until
from proxy import free_port

SERVE = (sys.executable, "-m", "nightreel", "serve")
HEAD: dict[str, Any] = {
    "output": {"width": 64, "height": 64, "fps": 8},
    "transition": {"type": "cut"},
    "shot": {"duration": 0.5, "motion": "still"},
}


@dataclass(slots=True)
class Served:
    """A dispatcher that answers."""

    house: House
    process: subprocess.Popen[str]
    client: httpx.Client
    _run: Run | None = None

    def leave(self, number: signal.Signals = signal.SIGTERM) -> Run:
        """Ask it to leave, unless it has, and say how it ended."""
        if self._run is None:
            self.process.send_signal(number)
            self._run = finish(self.process)
        return self._run

    def die(self) -> None:
        """kill -9."""
        kill(self.process)
        self._run = Run(-signal.SIGKILL, "", "")

    def post(self, body: Any, path: str = "/jobs", **params: Any) -> httpx.Response:
        """Send a job or a manifest as JSON."""
        return self.client.post(path, json=body, params=params)

    def drop(self, text: str, name: str) -> httpx.Response:
        return self.client.post("/jobs", content=text, params={"name": name})


@contextlib.contextmanager
def serving(house: House, *flags: str, command: tuple[str, ...] = SERVE, **settings: str) -> Iterator[Served]:
    """Start a dispatcher, wait until it answers, and end it with the test; its client sends the token, if there is one."""
    port = free_port()
    process = house.start(*command, "--port", str(port), *flags, **settings)
    token = settings.get("dispatcher_token")
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=headers, timeout=60) as client:
        until(lambda: _answers(client), "an answer", process)
        served = Served(house, process, client)
        try:
            yield served
        finally:
            served.leave()


def manifest(*jobs: str, **fields: Any) -> dict[str, Any]:
    """A manifest of tiny jobs, one shot each; the prompt is the id."""
    return {"defaults": HEAD, "jobs": [{"id": name, "shots": [name]} for name in jobs], **fields}


def manifest_text(*jobs: str, **fields: Any) -> str:
    return json.dumps(manifest(*jobs, **fields))


def _answers(client: httpx.Client) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return client.get("/health").status_code == 200
    return False
