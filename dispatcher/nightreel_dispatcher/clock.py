"""Looking by this machine's own clock, for a dispatcher that is up all the time."""

from __future__ import annotations

import datetime as dt
import re
import threading
from typing import Protocol

import structlog

log = structlog.get_logger()

POLL_S = 1.0  # between two glances at whether a look is due


class Looker(Protocol):
    """Who looks, and knows when to look again."""

    @property
    def is_due(self) -> bool: ...

    def look(self, why: str) -> object: ...


def time_of_day(text: str) -> dt.time:
    """A time such as 02:00. Raises ValueError."""
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError(f"{text!r} is no time of day: write HH:MM, such as 02:00")
    return dt.time.fromisoformat(text)


def look_by_the_clock(looker: Looker, stop: threading.Event, poll_s: float = POLL_S) -> None:
    """Look whenever a look is due, until `stop`."""
    while not stop.is_set():
        try:
            if looker.is_due:
                looker.look("the clock")
        except Exception as exc:  # noqa: BLE001  # the boundary: store or queue may be back at the next look
            log.warning("look_failed", reason=str(exc))
        stop.wait(poll_s)
