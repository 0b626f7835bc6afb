"""A Hugging Face hub with one model, on a free port: as much of its protocol as downloading needs."""

from __future__ import annotations

import hashlib
import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class FakeHub:
    """Serves a folder as org/name; asks for a token if one is given; can break off in the middle of a file."""

    def __init__(self, folder: Path, token: str = "") -> None:
        self.breaks = ""
        """Name of a file of which only the half is sent, once."""
        self.sent: list[str] = []
        hub = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                hub.answer(self, folder, token, with_body=True)

            def do_HEAD(self) -> None:
                hub.answer(self, folder, token, with_body=False)

            def log_message(self, format: str, *args: object) -> None:
                """Say nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()

    def answer(self, request: BaseHTTPRequestHandler, folder: Path, token: str, *, with_body: bool) -> None:
        path = request.path.partition("?")[0]
        if token and request.headers.get("Authorization") != f"Bearer {token}":
            self._reply(request, 401, b"{}", {"X-Error-Code": "GatedRepo"}, with_body)
        elif path.startswith("/api/models/org/name"):
            names = sorted(each.relative_to(folder).as_posix() for each in folder.rglob("*") if each.is_file())
            siblings = [{"rfilename": name} for name in names]
            tree = [
                {"type": "file", "path": name, "size": (folder / name).stat().st_size, "oid": "0"} for name in names
            ]
            about = tree if "/tree/" in path else {"id": "org/name", "sha": COMMIT, "siblings": siblings}
            self._reply(request, 200, json.dumps(about).encode(), {}, with_body)
        elif path.startswith(f"/org/name/resolve/{COMMIT}/") and (file := folder / path.split("/", 5)[5]).is_file():
            self._file(request, file, with_body)
        else:
            self._reply(request, 404, b"{}", {"X-Error-Code": "RepoNotFound"}, with_body)

    def _file(self, request: BaseHTTPRequestHandler, file: Path, with_body: bool) -> None:
        data = file.read_bytes()
        headers = {"ETag": f'"{hashlib.sha256(data).hexdigest()}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
        start = int(request.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")[0])
        if start:
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
        if with_body:
            self.sent.append(f"{file.name} from {start}")
        self._reply(
            request, 206 if start else 200, data[start:], headers, with_body, cut=with_body and file.name == self.breaks
        )
        if with_body and file.name == self.breaks:
            self.breaks = ""

    def _reply(
        self,
        request: BaseHTTPRequestHandler,
        status: int,
        data: bytes,
        headers: dict[str, str],
        with_body: bool,
        cut: bool = False,
    ) -> None:
        request.send_response(status)
        for name, value in ({"Content-Length": str(len(data)), "Content-Type": "application/json"} | headers).items():
            request.send_header(name, value)
        request.end_headers()
        if with_body:
            request.wfile.write(data[: len(data) // 2] if cut else data)
        if cut:
            request.close_connection = True
