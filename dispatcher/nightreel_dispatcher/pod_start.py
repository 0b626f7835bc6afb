"""Waits until the worker of each new pod is at work, and gives up those that take too long: they cost meanwhile."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from nightreel_storage.base import Store
from nightreel_storage.errors import StoreUnavailable
from nightreel_worker.report import RunReport

from .launchers.base import LauncherError
from .launchers.runpod_api import NoSuchPod, RunPodApi
from .launchers.runpod_shapes import Pod
from .pods import last_runs, try_to_stop


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of the start of one pod."""

    id: str
    ready: bool
    words: str
    paid_s: float
    usd: float


class PodStart:
    """One new pod. `look` at it now and then."""

    def __init__(
        self, api: RunPodApi, store: Store, id: str, timeout_s: float, begun: dt.datetime, tell: Callable[[str], None]
    ) -> None:
        """tell: hears of each change, once."""
        self._api, self._store, self._id = api, store, id
        self._timeout_s, self._begun, self._tell = timeout_s, begun, tell
        self._pod: Pod | None = None
        self._said = ""

    def look(self, now: dt.datetime) -> Outcome | None:
        """None while there is something to wait for."""
        late = (now - self._begun).total_seconds() >= self._timeout_s
        try:
            gone = self._is_gone()
            run = last_runs(self._store, self._begun).get(self._id)
        except (LauncherError, StoreUnavailable) as exc:
            self._say(f"{exc}; looking again")
            return self._given_up("it could not be looked at", now) if late else None
        if run:
            return self._outcome(True, _words(run), now)
        if gone or self._pod is None:
            return self._outcome(False, "gone, without a sign of its worker", now)
        if self._pod.status == "ERROR" or not self._pod.is_up:
            return self._given_up(self._pod.status.lower(), now)
        self._say("up, waiting for its worker" if self._pod.status == "RUNNING" else self._pod.status.lower())
        return self._given_up(f"no sign of its worker in {self._timeout_s:g} s", now) if late else None

    def _is_gone(self) -> bool:
        try:
            self._pod = self._api.pod(self._id)
        except NoSuchPod:
            return True
        return False

    def _given_up(self, why: str, now: dt.datetime) -> Outcome:
        """Stopped, not deleted: RunPod keeps its log."""
        problem = try_to_stop(self._api, self._id)
        what = f"NOT STOPPED, it goes on costing: {problem}; nightreel pods stop {self._id}" if problem else "stopped"
        return self._outcome(False, f"{why}: {what}", now)

    def _outcome(self, ready: bool, words: str, now: dt.datetime) -> Outcome:
        if self._pod is None:
            return Outcome(self._id, ready, words, 0.0, 0.0)
        paid_s = max(0.0, now.timestamp() - self._pod.since)
        return Outcome(self._id, ready, words, paid_s, self._pod.paid_usd(now.timestamp()))

    def _say(self, words: str) -> None:
        if words != self._said:
            self._said = words
            self._tell(f"{self._id}: {words}")


def _words(run: RunReport) -> str:
    return f"at work, run {run.run}" if run.state == "running" else f"run {run.run} has ended: {run.why}"
