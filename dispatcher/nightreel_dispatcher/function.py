"""The dispatcher under functions-framework, which loads this file by its path:

functions-framework --asgi --target nightreel --source .../nightreel_dispatcher/function.py

A `main.py` with `from nightreel_dispatcher.function import nightreel` in it does as well. The framework listens to
everybody, so a token or an audience must be set.
"""

from __future__ import annotations

from starlette.requests import Request
from starlette.types import ASGIApp

from nightreel_dispatcher.app import create_app
from nightreel_dispatcher.opening import open_desk
from nightreel_dispatcher.policy_settings import PolicySettings
from nightreel_dispatcher.server import check_guard
from nightreel_dispatcher.settings import DispatcherSettings
from nightreel_worker.logs import configure
from nightreel_worker.settings import Settings


def _app() -> ASGIApp:
    settings, own = Settings(), DispatcherSettings()
    configure(settings)
    check_guard(own, "0.0.0.0")
    desk, waker = open_desk(settings, own, PolicySettings())  # nobody looks by a clock here: events and POST /tick do
    return create_app(desk, waker=waker)


_APP = _app()


async def nightreel(_: Request) -> ASGIApp:
    """The framework calls what it is given, a response as a rule, with the request's scope: an app will do."""
    return _APP
