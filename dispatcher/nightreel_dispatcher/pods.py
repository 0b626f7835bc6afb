"""Pods and what their workers say of themselves: who is at work, who is silent, who is ready.

A worker puts its run's report every half minute. That is the sign of life that counts: a pod may be up, and its worker dead.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from nightreel_storage.base import Store
from nightreel_storage.errors import NotFound
from nightreel_worker.report import RunReport, run_name

from .launchers.base import LauncherError
from .launchers.runpod import stop
from .launchers.runpod_api import RunPodApi
from .launchers.runpod_order import is_spot
from .launchers.runpod_shapes import Pod

SKEW = dt.timedelta(hours=1)  # that clocks may differ by


@dataclass(frozen=True, slots=True)
class Seen:
    """A pod, and the last report of a run on it since it started; None while there is none."""

    pod: Pod
    run: RunReport | None

    @property
    def words(self) -> str:
        """Its state, for people."""
        pod, run = self.pod, self.run
        if not pod.is_up:
            told = run is not None and run.state == "ended" and "SIGTERM" not in run.why
            return "stopped: taken away, or by hand" if is_spot(pod) and not told else "stopped"
        if run is None:
            return "no sign of its worker yet" if pod.status == "RUNNING" else pod.status.lower()
        return "working" if run.state == "running" else f"its worker has left: {run.why}"

    def silence(self, now: dt.datetime, ready_s: float, silent_s: float) -> str:
        """Why it should be stopped; empty when it should not."""
        if not self.pod.is_up:
            return ""
        if self.run is None:
            age_s = now.timestamp() - self.pod.since
            return f"no sign of a worker in {age_s:.0f} s" if age_s > ready_s else ""
        age_s = (now - self.run.ended_at).total_seconds()
        if age_s <= silent_s:
            return ""
        return f"{'worker gone' if self.run.state == 'ended' else 'last sign of its worker'} {age_s:.0f} s ago"


def look(api: RunPodApi, store: Store, prefix: str) -> list[Seen]:
    """All pods of a store, oldest first. Raises LauncherError, StoreUnavailable."""
    pods = sorted(api.pods(prefix), key=lambda pod: pod.created_at)
    if not pods:
        return []
    runs = last_runs(store, min(pod.created_at for pod in pods))
    return [Seen(pod, _since(pod, runs.get(pod.id))) for pod in pods]


def _since(pod: Pod, run: RunReport | None) -> RunReport | None:
    """A run on a pod that was stopped and started again is no sign of the worker that should be there now."""
    return run if run and (not pod.is_up or run.ended_at.timestamp() >= pod.since) else None


def last_runs(store: Store, begin: dt.datetime) -> dict[str, RunReport]:
    """The newest report of each machine, of runs since then. Raises StoreUnavailable."""
    by_machine: dict[str, RunReport] = {}
    for run in _runs_since(store, begin):
        known = by_machine.get(run.machine)
        if known is None or known.ended_at < run.ended_at:
            by_machine[run.machine] = run
    return by_machine


def _runs_since(store: Store, begin: dt.datetime) -> Iterable[RunReport]:
    """Runs are named by when they began. Raises StoreUnavailable: what cannot be read is no silence."""
    first = run_name(f"{begin.astimezone(dt.UTC) - SKEW:%Y%m%dT%H%M%S}")
    for entry in store.list(run_name("")):
        if entry.name >= first and entry.name.endswith(".json"):
            try:
                yield RunReport.from_bytes(store.get(entry.name)[0], entry.name)
            except NotFound:
                continue  # cleared away meanwhile


@dataclass(frozen=True, slots=True)
class Swept:
    """A silent pod. `problem`: why it could not be stopped; empty when it was."""

    seen: Seen
    why: str
    problem: str = ""


def find_silent(seen: Iterable[Seen], now: dt.datetime, ready_s: float, silent_s: float) -> list[Swept]:
    """Those that cost, with nobody at work."""
    return [Swept(each, why) for each in seen if (why := each.silence(now, ready_s, silent_s))]


def sweep(api: RunPodApi, silent: Iterable[Swept]) -> list[Swept]:
    """Stop them, each by itself; one that another sweep has stopped counts as stopped."""
    return [Swept(each.seen, each.why, try_to_stop(api, each.seen.pod.id)) for each in silent]


def try_to_stop(api: RunPodApi, id: str) -> str:
    """Returns why it could not be stopped; empty when it was."""
    try:
        stop(api, id)
    except LauncherError as exc:
        return str(exc)
    return ""
