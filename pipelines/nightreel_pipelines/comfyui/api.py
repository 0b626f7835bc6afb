"""ComfyUI's HTTP interface, as its server.py has it (version 0.3.64): one request, one answer, within limits."""

from __future__ import annotations

import http.client
import json
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

from .errors import Forgotten, Gone, NoEntry, Overloaded, PromptRefused
from .words import refusal

ANSWER_S = (
    20.0  # for any answer but a picture: the server answers while its GPU works, if slowly while it loads a model
)
PICTURE_S = 120.0  # for a whole picture
MAX_ANSWER_BYTES = 16_000_000
MAX_PICTURE_BYTES = 64_000_000
CHUNK_BYTES = 262_144
AGENT = "nightreel"


@dataclass(frozen=True, slots=True)
class Picture:
    """A picture as the server names it."""

    filename: str
    subfolder: str
    type: str


class Api:
    """One server. Keeps no connection; safe to use from several threads."""

    def __init__(self, address: str, token: str = "") -> None:
        """address: http://HOST:PORT or https://HOST, and a path if a proxy wants one. token: sent as a bearer token."""
        url = urlsplit(address)
        assert url.hostname is not None
        self.address = address
        self.headers = {"Authorization": f"Bearer {token}"} if token else {}
        self._secure, self._host, self._port, self._path = url.scheme == "https", url.hostname, url.port, url.path

    @property
    def socket_address(self) -> str:
        return f"ws{self.address.removeprefix('http')}/ws"

    def submit(self, nodes: Mapping[str, Any], client: str, prompt: str) -> str:
        """Queue a workflow; returns the id that the server gave it: `prompt`, unless the server is an old one.

        Raises PromptRefused, and what `_ask` raises.
        """
        body = {"prompt": nodes, "client_id": client, "prompt_id": prompt}
        status, answer = self._ask("POST", "/prompt", json.dumps(body).encode(), known=(400,))
        said = self._read(answer)
        if status != 200 or not isinstance(said.get("prompt_id"), str):
            raise PromptRefused(f"{self.address}: {refusal(said, nodes)}")
        return str(said["prompt_id"])

    def history(self, prompt: str) -> dict[str, Any] | None:
        """What the server keeps of a prompt that has ended; None when it keeps nothing."""
        found = self._json(f"/history/{quote(prompt, safe='')}").get(prompt)
        return found if isinstance(found, dict) else None

    def queued(self) -> frozenset[str]:
        """Ids of the prompts that run or wait."""
        said = self._json("/queue")
        rows = [*(said.get("queue_running") or ()), *(said.get("queue_pending") or ())]
        return frozenset(str(row[1]) for row in rows if isinstance(row, list) and len(row) > 1)

    def running(self) -> frozenset[str]:
        """Ids of the prompts that run."""
        rows = self._json("/queue").get("queue_running") or ()
        return frozenset(str(row[1]) for row in rows if isinstance(row, list) and len(row) > 1)

    def call_off(self, prompt: str) -> None:
        """Take a prompt out of the queue, or interrupt it if it is the one that runs; no other is touched."""
        self._ask("POST", "/queue", json.dumps({"delete": [prompt]}).encode())
        if prompt in self.running():  # versions before 0.3.57 do not look at the id, and interrupt what runs
            self._ask("POST", "/interrupt", json.dumps({"prompt_id": prompt}).encode())

    def stats(self) -> dict[str, Any]:
        """What the server is: its version, and its devices with their memory."""
        return self._json("/system_stats")

    def upload(self, name: str, data: bytes) -> str:
        """Put a picture into the server's input folder; returns the name by which LoadImage finds it."""
        mark = uuid.uuid4().hex
        fields = {"subfolder": "nightreel", "type": "input", "overwrite": "true"}
        parts = [f'--{mark}\r\nContent-Disposition: form-data; name="{key}"\r\n\r\n{fields[key]}\r\n' for key in fields]
        head = f'--{mark}\r\nContent-Disposition: form-data; name="image"; filename="{name}"\r\n'
        body = "".join(parts).encode() + head.encode() + b"Content-Type: application/octet-stream\r\n\r\n" + data
        kind = {"Content-Type": f"multipart/form-data; boundary={mark}"}
        _, answer = self._ask("POST", "/upload/image", body + f"\r\n--{mark}--\r\n".encode(), headers=kind)
        said = self._read(answer)
        return "/".join(part for part in (str(said.get("subfolder", "")), str(said.get("name", ""))) if part)

    def picture(self, picture: Picture) -> bytes:
        """The bytes of a finished picture. Raises Forgotten when the server has it no longer."""
        query = urlencode({"filename": picture.filename, "subfolder": picture.subfolder, "type": picture.type})
        status, data = self._ask(
            "GET", f"/view?{query}", known=(404,), limit_s=PICTURE_S, limit_bytes=MAX_PICTURE_BYTES
        )
        if status == 404:
            raise Forgotten(f"{self.address}: has not kept its picture {picture.filename}")
        return data

    def _json(self, path: str) -> dict[str, Any]:
        return self._read(self._ask("GET", path)[1])

    def _read(self, data: bytes) -> dict[str, Any]:
        try:
            found = json.loads(data)
        except ValueError as exc:
            raise Gone(f"{self.address}: answers no JSON: is it ComfyUI?") from exc
        if not isinstance(found, dict):
            raise Gone(f"{self.address}: answers other JSON than ComfyUI does: is it ComfyUI?")
        return found

    def _ask(
        self,
        method: str,
        path: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str] | None = None,
        known: tuple[int, ...] = (),
        limit_s: float = ANSWER_S,
        limit_bytes: int = MAX_ANSWER_BYTES,
    ) -> tuple[int, bytes]:
        """Status and body. Raises Gone, NoEntry, Overloaded; other statuses than 200 and those in `known` count as Gone."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=ANSWER_S)
        own = {"User-Agent": AGENT, "Content-Type": "application/json"} | self.headers | dict(headers or {})
        try:
            connection.request(method, self._path + path, body, own)
            answer = connection.getresponse()
            data = _whole(answer, time.monotonic() + limit_s, limit_bytes)
        except (OSError, http.client.HTTPException) as exc:
            raise Gone(f"{self.address}: {_why(exc)}") from exc
        finally:
            connection.close()
        if answer.status != 200 and answer.status not in known:
            raise self._error(answer, data)
        return answer.status, data

    def _error(self, answer: http.client.HTTPResponse, data: bytes) -> Exception:
        status = answer.status
        if status in (401, 403):
            return NoEntry(
                f"{self.address}: lets us not in ({status}): set NIGHTREEL_COMFYUI_TOKEN to what it asks for"
            )
        said = f"{self.address}: answers {status} {answer.reason}"
        if status == 429 or status >= 500:
            after = answer.headers.get("Retry-After", "")
            return Overloaded(said, float(after) if after.isascii() and after.isdigit() else None)
        return Gone(f"{said}: is it ComfyUI?")


def _whole(answer: http.client.HTTPResponse, ends_at: float, limit_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while part := answer.read(CHUNK_BYTES):
        parts.append(part)
        size += len(part)
        if size > limit_bytes:
            raise http.client.HTTPException(f"its answer has more than {limit_bytes:,} bytes")
        if time.monotonic() > ends_at:
            raise TimeoutError
    if answer.length:  # asked for parts, http.client takes an answer that was cut off for its end
        raise http.client.IncompleteRead(b"", answer.length)
    return b"".join(parts)


def _why(error: Exception) -> str:
    match error:
        case TimeoutError():
            return "does not answer in time: is it up, and not overloaded?"
        case ConnectionRefusedError():
            return "nobody listens there: start ComfyUI, or set NIGHTREEL_COMFYUI_SERVERS"
        case http.client.IncompleteRead() | http.client.RemoteDisconnected():
            return "broke off its answer: is it up?"
        case http.client.HTTPException():
            return f"{error or type(error).__name__}: does it speak HTTP?"
        case _:
            return f"{error or type(error).__name__}: is it up?"
