"""A desk, and the waker at it."""

from __future__ import annotations

import os

from nightreel_queue.errors import QueueUnavailable
from nightreel_worker.settings import Settings

from .backlog import Figures
from .desk import Desk
from .launchers.base import Launcher
from .launchers.connect import open_launcher
from .policy_settings import PolicySettings
from .settings import DispatcherSettings
from .waker import Waker


def open_desk(settings: Settings, own: DispatcherSettings, policy: PolicySettings) -> tuple[Desk, Waker | None]:
    """What comes in wakes workers, unless nothing is to start any. Raises NotAllowed, QueueUnavailable."""
    launcher = open_launcher(settings, policy)
    if launcher is None:
        return Desk(settings, own), None
    return wired(settings, own, policy, launcher, open_figures(settings))


def wired(
    settings: Settings, own: DispatcherSettings, policy: PolicySettings, launcher: Launcher, figures: Figures | None
) -> tuple[Desk, Waker]:
    """Each knows the other."""
    desk = Desk(settings, own, wake=lambda why: waker.poke(why), waiting=lambda: waker.waiting())
    waker = Waker(desk, launcher, policy, figures)
    return desk, waker


def open_figures(settings: Settings) -> Figures | None:
    """Cloud Monitoring for a queue on Pub/Sub, but for an emulator's; others count themselves. Raises QueueUnavailable."""
    if not settings.queue_url.startswith("pubsub:") or os.environ.get("PUBSUB_EMULATOR_HOST"):
        return None
    try:
        from nightreel_queue.pubsub import Address

        from .monitoring import Monitoring
    except ImportError as exc:
        raise QueueUnavailable(f"counting messages needs {exc.name}: pip install 'nightreel[cloudrun]'") from exc
    address = Address.of(settings.queue_url)
    return Monitoring(address.project, address.named(urgent=False), address.named(urgent=True))
