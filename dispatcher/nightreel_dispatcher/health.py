"""Asking a backend's source whether it is well."""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass

from nightreel_pipelines.comfyui.health import trouble
from nightreel_pipelines.comfyui.settings import ComfyuiSettings
from nightreel_pipelines.models import ModelSpec

from .backends import Backend

TIMEOUT_S = 5.0


Ask = Callable[[], "Answer"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back."""

    ok: bool
    words: str
    """What went wrong, for people."""
    latency_s: float


def asker(backend: Backend, spec: ModelSpec) -> Ask | None:
    """How a backend's source is asked: at the address that its entry gives, or as ComfyUI's servers are. None: it is not."""
    if backend.health == "none" or (not backend.health and spec.source != "comfyui"):
        return None
    if backend.health:
        return lambda: ask(backend.health)
    prefix = str(ComfyuiSettings.model_config["env_prefix"])
    own = {name.removeprefix(prefix).lower(): value for name, value in backend.env.items() if name.startswith(prefix)}
    settings = ComfyuiSettings.model_validate(own)
    return lambda: _ask_servers(settings)


def _ask_servers(settings: ComfyuiSettings) -> Answer:
    begin = time.monotonic()
    words = trouble(settings)
    return Answer(not words, words, time.monotonic() - begin)


def ask(address: str, timeout_s: float = TIMEOUT_S) -> Answer:
    """GET an address of the operator's own file; any success will do. No proxy: it is asked for as it is written."""
    begin = time.monotonic()
    words = ""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(address, timeout=timeout_s) as answer:
            answer.read(1)
    except urllib.error.HTTPError as exc:
        words = f"{address} answered {exc.code}"
    except (OSError, ValueError) as exc:  # http.client's errors of nonsense are not OSErrors, but ValueErrors are rare
        words = f"{address}: {_reason(exc)}"
    except Exception as exc:  # noqa: BLE001  # whatever a server says instead of HTTP
        words = f"{address}: {type(exc).__name__}"
    return Answer(not words, words, time.monotonic() - begin)


def _reason(error: Exception) -> str:
    reason = getattr(error, "reason", None) or error
    return str(getattr(reason, "strerror", None) or reason)
