"""A desk, and the waker at it."""

from __future__ import annotations

import math
import os

from nightreel_pipelines.models import load_models, no_model
from nightreel_queue.errors import QueueUnavailable
from nightreel_worker.settings import Settings

from .backends import Backend, BadBackends, load_backends, only_backend
from .backlog import Figures
from .board import Boards
from .desk import Desk
from .expenses import Expenses
from .fleet import Fleet, Member
from .health import asker
from .launchers.base import Launcher
from .launchers.connect import launcher_kind, open_launcher
from .policy_settings import PolicySettings
from .routes import Wish
from .settings import DispatcherSettings
from .waker import Waker


def open_desk(settings: Settings, own: DispatcherSettings, policy: PolicySettings) -> tuple[Desk, Waker | None]:
    """What comes in wakes workers, unless nothing is to start any. Raises NotAllowed, QueueUnavailable."""
    if policy.backends is not None:
        return open_fleet(settings, own, policy, open_figures(settings))[:2]
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


def open_fleet(
    settings: Settings, own: DispatcherSettings, policy: PolicySettings, figures: Figures | None
) -> tuple[Desk, Waker, Fleet]:
    """With all backends as the launcher: those of the file, or what there is without one.

    Raises NotAllowed, BadBackends, SourceUnavailable, QueueUnavailable.
    """
    models = load_models(settings.models)
    if policy.backends is not None:
        backends = load_backends(policy.backends, models, settings.prices)
    else:
        backends = (only_backend(settings, launcher_kind(settings, policy), policy.max_workers),)
    desk = Desk(settings, own, wake=lambda why: waker.poke(why), waiting=lambda: waker.waiting())
    wish = Wish(finish_within_s=policy.finish_within_s, max_video_usd=policy.max_video_usd or math.inf)
    members = [
        Member(backend, _launcher_of(backend, settings, policy), asker(backend, models[backend.model]))
        for backend in backends
    ]
    expenses = Expenses(lambda: desk.store, models, settings.prices)
    fleet = Fleet(
        members, Boards(lambda: desk.store), expenses, lambda: waker.waiting(), wish, ask_every_s=policy.ask_every_s
    )
    waker = Waker(desk, fleet, policy, figures, judges=True)
    return desk, waker, fleet


def fleet_to_see(desk: Desk, waker: Waker | None) -> Fleet:
    """The backends of whoever starts workers. Without a file: one for its launcher, to be seen by `glance` alone.

    Raises SourceUnavailable; BadBackends when there is no such model as the settings name.
    """
    if waker is not None and isinstance(waker.launcher, Fleet):
        return waker.launcher
    settings, models = desk.settings, load_models(desk.settings.models)
    if settings.model not in models:
        raise BadBackends(f"NIGHTREEL_MODEL: {no_model(settings.model, models)}")
    launcher = waker.launcher if waker else None
    backend = only_backend(settings, launcher.name if launcher else "none", waker.max_workers if waker else 1)
    member = Member(backend, launcher, asker(backend, models[backend.model]))
    expenses = Expenses(lambda: desk.store, models, settings.prices)
    return Fleet([member], Boards(lambda: desk.store), expenses, lambda: desk.waiting(), Wish())


def _launcher_of(backend: Backend, settings: Settings, policy: PolicySettings) -> Launcher | None:
    """Raises NotAllowed."""
    told = {"NIGHTREEL_BACKEND": backend.name, "NIGHTREEL_MODEL": backend.model, "NIGHTREEL_PRICE": backend.price}
    own = {name: value for name in ("project", "region", "job") if (value := getattr(backend, name))}
    own_policy = policy.model_copy(update={"launcher": backend.launcher, "nightly": "", **own})
    return open_launcher(settings, own_policy, {**backend.env, **told}, backend.name)


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
