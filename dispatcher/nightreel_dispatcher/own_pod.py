"""What runs inside a pod: the worker, and then the pod's own end, whatever the worker came to.

RunPod starts a container again when its process ends, and bills on. So this process outlives the worker: it asks RunPod to
end the pod, again and again until it does, and stays until it is killed with the pod. It reads no settings, so that wrong
ones cannot keep it from that.
"""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Literal

from .launchers.base import LauncherError, NotAllowed
from .launchers.runpod_api import RunPodApi
from .launchers.runpod_order import GOOGLE_KEY
from .launchers.runpod_settings import ENDPOINT, KEY, checked_endpoint

TRIES = 3  # runs of a worker that fails, before the pod is given up
PAUSE_S = 5.0  # before the second one, and twice that before the third
FIRST_RETRY_S, MOST_RETRY_S = 1.0, 30.0  # between two requests to end the pod
GONE_S = 120.0  # that RunPod may take to kill a pod that it has ended
OWN = "NIGHTREEL_RUNPOD_"
_HOPELESS = 2  # exit code of wrong settings
Tell = Callable[[str], None]


class NoPod(Exception):
    """Raised when this process runs in no pod."""


class OwnPod:
    """The pod that this process runs in."""

    def __init__(self, environment: Mapping[str, str], tell: Tell, nap: Callable[[float], None] = time.sleep) -> None:
        """Raises NoPod."""
        self.id = environment.get("RUNPOD_POD_ID", "")
        key = environment.get(f"{OWN}API_KEY") or environment.get(KEY, "")
        if not self.id or not key:
            raise NoPod(
                "this is no pod: RunPod sets RUNPOD_POD_ID and RUNPOD_API_KEY in each; elsewhere: nightreel work"
            )
        try:
            endpoint = checked_endpoint(environment.get(f"{OWN}ENDPOINT") or ENDPOINT)
        except ValueError as exc:
            tell(f"{OWN}ENDPOINT {exc}; asking {ENDPOINT}")
            endpoint = ENDPOINT
        self._api = RunPodApi(key, endpoint)
        self._environment, self._tell, self._nap = environment, tell, nap
        self._told = False
        self._worker: subprocess.Popen[bytes] | None = None

    def run(self, worker: Sequence[str]) -> None:
        """Let the worker work; then end the pod. Does not return while the pod lives."""
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, self._leave)
        try:
            with tempfile.TemporaryDirectory() as folder:
                self._work(worker, self._workers_environment(Path(folder)))
        except Exception as exc:  # noqa: BLE001  # whatever happened: the pod must not go on costing
            self._tell(f"the pod cannot work: {exc!r}")
        finally:
            while True:
                self.end("stop" if self._told else "terminate")
                self._nap(GONE_S)
                self._tell("the pod is still there")

    def end(self, action: Literal["stop", "terminate"]) -> None:
        """Ask until RunPod says that it is done. Stopped, when somebody stops the pod anyway: so it leaves a trace."""
        retry_s = FIRST_RETRY_S
        while True:
            self._tell(f"asking RunPod to {action} the pod {self.id}")
            try:
                self._ask_to(action)
            except LauncherError as exc:
                self._tell(f"the pod goes on costing, asking again in {retry_s:g} s: {exc}")
                self._nap(retry_s)
                retry_s = min(2 * retry_s, MOST_RETRY_S)
            else:
                return

    def _ask_to(self, action: Literal["stop", "terminate"]) -> None:
        """By REST, or as RunPod's own tool does: what a pod's own key is good for is not documented."""
        try:
            self._api.act(self.id, action)
        except NotAllowed as exc:
            self._tell(f"{exc}; asking by GraphQL")
            self._api.end_by_graphql(self.id, action)

    def _work(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        for attempt in range(1, TRIES + 1):
            if self._told:
                return
            self._worker = subprocess.Popen(command, env=environment)
            if self._told:  # the signal came before there was anyone to pass it on to
                self._worker.terminate()
            code = self._worker.wait()
            self._tell(f"the worker ended with {code}")
            if code in (0, _HOPELESS) or attempt == TRIES:
                return
            self._pause(attempt * PAUSE_S)

    def _pause(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        while not self._told and time.monotonic() < until:
            self._nap(0.1)

    def _leave(self, number: int, _: FrameType | None) -> None:
        self._told = True
        if self._worker is not None:
            with contextlib.suppress(ProcessLookupError):
                self._worker.terminate()

    def _workers_environment(self, folder: Path) -> dict[str, str]:
        """The pod's, without our own keys; with the pod's id and its true price."""
        kept = {name: value for name, value in self._environment.items() if not name.startswith(OWN) and name != KEY}
        kept["NIGHTREEL_MACHINE"] = self.id
        try:
            if cost := self._api.pod(self.id).cost:
                kept["NIGHTREEL_PRICE"] = f"{cost:g}"
        except LauncherError as exc:
            self._tell(f"RunPod does not tell what this pod costs, so the list's price counts: {exc}")
        if key := self._environment.get(GOOGLE_KEY):
            kept["GOOGLE_APPLICATION_CREDENTIALS"] = str(self._key_file(key, folder))
        return kept

    def _key_file(self, key: str, folder: Path) -> Path:
        try:
            json.loads(key)
        except ValueError:
            self._tell(f"{GOOGLE_KEY} is no key file's text: is there a RunPod secret of that name, with all of it?")
        file = folder / "google.json"
        file.touch(0o600)
        file.write_text(key, encoding="utf-8")
        return file


def work_command() -> list[str]:
    """`nightreel work`, by the Python that runs this."""
    return [sys.executable, "-m", "nightreel", "work"]
