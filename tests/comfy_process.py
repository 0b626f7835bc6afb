"""A ComfyUI test server as a process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

from house import until
from proxy import free_port

HERE = Path(__file__).parent


class Comfy:
    """One that can be controlled, killed, and started again at the same address."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.port = folder, free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> Comfy:
        paths = os.pathsep.join(filter(None, [str(HERE), os.environ.get("PYTHONPATH", "")]))
        command = [sys.executable, "-m", "comfy_server", str(self.port), str(self.folder)]
        self.process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": paths}, cwd=HERE)
        until(self._listens, "a ComfyUI server")
        return self

    def control(self, **wishes: object) -> None:
        (self.folder / "control.json").write_text(json.dumps(wishes))

    def log(self, name: str) -> list[str]:
        path = self.folder / f"{name}.log"
        return path.read_text().splitlines() if path.exists() else []

    def kill(self) -> None:
        if self.process and self.process.poll() is None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait()

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
