"""The renderer process as its parent holds it: a process group, two pipes, and the last lines that it said."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import structlog

from nightreel_pipelines.base import Description
from nightreel_pipelines.models import ModelSpec

from . import wire

log = structlog.get_logger()

LAST_LINES = 20  # of the child's output, kept for the reason of its death
FAREWELL_S = 2.0  # that a child gets to leave by itself at the end of its orders

# The child gets what programs and GPU libraries need to find their parts, and none of the parent's settings or secrets.
_ENVIRONMENT = (
    "PATH",
    "HOME",
    "LANG",
    "TMPDIR",
    "TZ",
    "PYTHONPATH",
    "PYTHONWARNINGS",
    "VIRTUAL_ENV",
    "LD_LIBRARY_PATH",
)
_ENVIRONMENT_PREFIXES = (
    "LC_",
    "CUDA_",
    "NVIDIA_",
    "TORCH",
    "PYTORCH_",
    "TRITON_",
    "OMP_",
    "MKL_",
    "OPENBLAS_",
    "IMAGEIO_FFMPEG_EXE",
)


class ChildProcess:
    """Starts the child by exec in a process group of its own; ends the whole group, ffmpeg included."""

    def __init__(
        self,
        spec: ModelSpec,
        weights_root: Path | None,
        preset: str,
        on_line: Callable[[ChildProcess, wire.Line], None],
        on_death: Callable[[ChildProcess, str], None],
        *,
        elsewhere: Description | None = None,
    ) -> None:
        """elsewhere: the description of a source over the network, for which the child only films."""
        self.spec = spec
        self.description: Description | None = None
        self.loading = False
        self.hung: frozenset[str] = frozenset()
        """Keys of the jobs for whose silence the watchdog killed it."""
        self.unavailable = ""
        """What the child said when it could not have its model."""
        self.started_at = time.monotonic()
        self._on_line, self._on_death = on_line, on_death
        self._output: collections.deque[str] = collections.deque(maxlen=LAST_LINES)
        orders_read, orders_write = os.pipe()
        events_read, events_write = os.pipe()
        self._orders = wire.Sender(orders_write)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "nightreel_worker.child", str(orders_read), str(events_write)],
            pass_fds=(orders_read, events_write),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            process_group=0,
            env=_environment(),
        )
        os.close(orders_read)
        os.close(events_write)
        self.send(
            wire.Start(
                spec.model_dump(mode="json", exclude_unset=True),
                str(weights_root) if weights_root else None,
                preset,
                dataclasses.asdict(wire.Hello.of(elsewhere)) if elsewhere else None,
            )
        )
        threading.Thread(target=self._listen, args=(events_read,), name="renderer", daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def send(self, line: wire.FromParent) -> None:
        """Send a line; a child that is gone will be noticed by its reader, so its broken pipe is no error here."""
        with contextlib.suppress(OSError, ValueError):
            self._orders.send(line)

    def kill(self) -> None:
        """End the whole process group at once."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)

    def close(self) -> None:
        """Let the child leave, and see to it that it does."""
        self._orders.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(FAREWELL_S)
        self.kill()

    def _listen(self, events_fd: int) -> None:
        talker = threading.Thread(target=self._overhear, name="renderer-output", daemon=True)
        talker.start()
        for line in wire.receive(events_fd):
            self._on_line(self, line)
        status = self._process.wait()
        self.kill()  # ffmpeg may have outlived a child that was killed alone
        talker.join(FAREWELL_S)
        self._on_death(self, self._last_words(status))

    def _overhear(self) -> None:
        assert self._process.stdout is not None
        with self._process.stdout as output:
            for data in output:
                text = data.decode(errors="replace").rstrip()
                self._output.append(text)
                log.debug("renderer_output", text=text)

    def _last_words(self, status: int) -> str:
        how = f"was killed by {signal.Signals(-status).name}" if status < 0 else f"ended with exit code {status}"
        said = next((line for line in reversed(self._output) if line.strip()), "")
        return f"the renderer {how}" + (f"; it said last: {said[:300]}" if said else "")


def _environment() -> dict[str, str]:
    kept = {
        name: value
        for name, value in os.environ.items()
        if name in _ENVIRONMENT or name.startswith(_ENVIRONMENT_PREFIXES)
    }
    # Passive waiting: spinning OpenMP threads make a keyframe on a busy CPU twenty times slower.
    return {"OMP_WAIT_POLICY": "PASSIVE"} | kept | {"PYTHONSAFEPATH": "1", "HF_HUB_OFFLINE": "1"}
