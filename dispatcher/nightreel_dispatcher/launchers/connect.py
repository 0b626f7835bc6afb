"""Which launcher the settings ask for."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Literal
from urllib.parse import urlsplit

from pydantic import ValidationError

from nightreel_worker.settings import Settings

from ..policy_settings import PolicySettings
from .base import Launcher, NotAllowed

LOGS = ".nightreel/workers"  # in a store that is a folder


def launcher_kind(settings: Settings, policy: PolicySettings) -> Literal["none", "process", "cloudrun", "runpod"]:
    """With `auto` made up: workers of an SQLite queue can only be on this machine."""
    if policy.launcher == "auto":
        return "process" if settings.queue_url.startswith("sqlite:") else "none"
    return policy.launcher


def open_launcher(
    settings: Settings, policy: PolicySettings, told: Mapping[str, str] = MappingProxyType({}), name: str = ""
) -> Launcher | None:
    """None when nothing is to start workers. told: more variables for workers; name: the backend's, which keeps logs apart.

    Raises NotAllowed for settings that do not suffice, and for a missing extra.
    """
    match launcher_kind(settings, policy):
        case "process":
            from .process import Processes

            return Processes(_logs(settings) / name, {**_environment(settings, policy), **told})
        case "cloudrun":
            return _cloudrun(settings, policy, told)
        case "runpod":
            return _runpod(settings, policy, told)
        case "none":
            if policy.nightly:
                raise NotAllowed(
                    "a nightly hour needs something that starts workers: set NIGHTREEL_DISPATCHER_LAUNCHER"
                )
    return None


def _cloudrun(settings: Settings, policy: PolicySettings, told: Mapping[str, str]) -> Launcher:
    project = policy.project or _project(settings.queue_url)
    given = {"PROJECT": project, "REGION": policy.region, "JOB": policy.job}
    if missing := [f"NIGHTREEL_DISPATCHER_{name}" for name, value in given.items() if not value]:
        raise NotAllowed(f"the launcher cloudrun needs {' and '.join(missing)}")
    try:
        from .cloudrun import CloudRun
    except ImportError as exc:
        raise NotAllowed(f"the launcher cloudrun needs {exc.name}: pip install 'nightreel[cloudrun]'") from exc
    return CloudRun(project, policy.region, policy.job, {**_told(policy), **told})


def _runpod(settings: Settings, policy: PolicySettings, told: Mapping[str, str]) -> Launcher:
    from .runpod import RunPod
    from .runpod_settings import RunPodSettings

    try:
        own = RunPodSettings()
    except ValidationError as exc:
        wrong = exc.errors()[0]
        raise NotAllowed(f"setting NIGHTREEL_RUNPOD_{str(wrong['loc'][-1]).upper()}: {wrong['msg']}") from exc
    return RunPod.of(settings, own, {**_told(policy), **told})


def _project(queue_url: str) -> str:
    parts = urlsplit(queue_url)
    return parts.netloc if parts.scheme == "pubsub" else ""


def _told(policy: PolicySettings) -> dict[str, str]:
    """What workers are told, so that patience is said once: it decides how long they idle, too."""
    return {"NIGHTREEL_MAX_WAIT_S": f"{policy.max_wait_s:g}"}


def _environment(settings: Settings, policy: PolicySettings) -> Mapping[str, str]:
    """This process's own, without the dispatcher's settings, some of which are secret; flags count as variables."""
    own = {name: value for name, value in os.environ.items() if not name.upper().startswith("NIGHTREEL_DISPATCHER_")}
    given = {"NIGHTREEL_QUEUE": settings.queue, "NIGHTREEL_STORE": settings.store, "NIGHTREEL_MODEL": settings.model}
    return own | given | _told(policy)


def _logs(settings: Settings) -> Path:
    """In the store where that is a folder, else in the home folder, by the store's and the queue's address."""
    if "://" not in settings.store:
        return Path(settings.store).resolve() / LOGS
    where = hashlib.sha256(f"{settings.store} {settings.queue_url}".encode()).hexdigest()[:12]
    return Path.home() / LOGS / where
