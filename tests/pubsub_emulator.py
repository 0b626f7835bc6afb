"""Google's own Pub/Sub emulator as a process: its jar, started directly, because gcloud's wrapper orphans it."""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

from proxy import free_port

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

    def freeze(self) -> None:
        """Let it accept connections, and say nothing, until `thaw`."""
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._process is not None
        os.killpg(self._process.pid, signal.SIGCONT)

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().read().strip() == b"Ok"
        except OSError:
            return False
        finally:
            connection.close()


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
