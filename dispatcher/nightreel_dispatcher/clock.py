"""A nightly tick, by this machine's own clock and time zone."""

from __future__ import annotations

import datetime as dt
import re
import threading
from collections.abc import Callable

STEP_S = 30.0  # the longest nap: a machine that slept, or whose clock was set, is not late by more


def time_of_day(text: str) -> dt.time:
    """A time such as 02:00. Raises ValueError."""
    if not re.fullmatch(r"([01]\d|2[0-3]):[0-5]\d", text):
        raise ValueError(f"{text!r} is no time of day: write HH:MM, such as 02:00")
    return dt.time.fromisoformat(text)


def last_due(now: dt.datetime, at: dt.time) -> dt.datetime:
    """The latest moment up to `now` at which the clock said `at`; both in the zone of `now`, or local.

    On the day that has no such time it is as long after midnight as the clocks before the change would say.
    """
    today = dt.datetime.combine(now.date(), at, now.tzinfo)
    return today if today <= now else dt.datetime.combine(now.date() - dt.timedelta(days=1), at, now.tzinfo)


def tick_nightly(
    at: dt.time,
    tick: Callable[[str], None],
    stop: threading.Event,
    now: Callable[[], dt.datetime] = dt.datetime.now,
    step_s: float = STEP_S,
) -> None:
    """Call `tick` once whenever `at` has passed, until `stop`."""
    told = last_due(now(), at)
    while not stop.wait(step_s):
        due = last_due(now(), at)
        if due > told:
            told = due
            tick(f"nightly, {at:%H:%M}")
