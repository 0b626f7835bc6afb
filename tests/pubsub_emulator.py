"""Google's own Pub/Sub emulator as a process: its jar, started directly, because gcloud's wrapper orphans it."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

READY_S = 60.0  # that the emulator may take; it takes three seconds
STOP_S = 5.0  # for its answer to SIGTERM
MEND = (
    "needs Google's Pub/Sub emulator: install the gcloud CLI and Java, then: gcloud components install pubsub-emulator"
)


GUARD = '"$@" & read -r _; kill "$!"; wait "$!"'  # ends with the standard input: with us, however we end


class Missing(Exception):
    """Raised when the emulator is not installed; says what to install."""


class Emulator:
    """An emulator on a port of its own. It keeps everything in memory: one that was stopped comes back empty."""

    def __init__(self, log: Path) -> None:
        self._jar = find_jar()
        self._log = log
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    @property
    def host(self) -> str:
        """For PUBSUB_EMULATOR_HOST."""
        return f"127.0.0.1:{self.port}"

    def start(self) -> None:
        """Start, and wait until it answers."""
        java = ["java", "-Xmx512m", "-jar", str(self._jar), "--host=127.0.0.1", f"--port={self.port}"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                ["sh", "-c", GUARD, "sh", *java], stdin=subprocess.PIPE, stdout=log, stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + READY_S
        while not self._answers():
            if time.monotonic() > deadline:
                self.stop()
                raise RuntimeError(f"the emulator did not start:\n{self._log.read_text()}")
            time.sleep(0.05)

    def stop(self) -> None:
        """End it by SIGTERM, or by SIGKILL when that does not help."""
        if self._process is None or self._process.stdin is None:
            return
        self._process.stdin.close()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
        self._process = None

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().strip() == b"Ok"
        except OSError:
            return False
        finally:
            connection.close()


class Relay:
    """A port that leads to the emulator until it is cut, and again after it was mended."""

    def __init__(self, to_port: int) -> None:
        self._to_port = to_port
        self.port = free_port()
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self.mend()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    def mend(self) -> None:
        server = socket.create_server(("127.0.0.1", self.port))
        self._sockets.append(server)
        self._begin(self._accept, server)

    def cut(self) -> None:
        """Refuse connections, and end those that are open."""
        for each in self._sockets:
            with contextlib.suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
            each.close()
        for thread in self._threads:
            thread.join()
        self._sockets, self._threads = [], []

    def _begin(self, target: Callable[..., None], *sockets: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=sockets, daemon=True))
        self._threads[-1].start()

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                ours, _ = server.accept()
                theirs = socket.create_connection(("127.0.0.1", self._to_port))
                self._sockets += [ours, theirs]
                self._begin(self._pump, ours, theirs)
                self._begin(self._pump, theirs, ours)

    def _pump(self, source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
            target.shutdown(socket.SHUT_WR)


def find_jar() -> Path:
    """The emulator's jar. Raises Missing."""
    gcloud = shutil.which("gcloud")
    if gcloud is None or shutil.which("java") is None:
        raise Missing(MEND)
    command = [gcloud, "info", "--format=value(installation.sdk_root)"]
    root = subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    jars = sorted(Path(root).glob("platform/pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"))
    if not jars:
        raise Missing(MEND)
    return jars[-1]


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
