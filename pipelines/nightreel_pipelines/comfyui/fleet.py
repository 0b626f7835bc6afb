"""Several servers: which of them draws the next keyframe, and which is left alone for a while."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

from ..errors import SourceAway, SourceUnavailable
from .api import Api
from .errors import CalledOff, NoEntry, Overloaded, ServerError
from .order import DEPTH, Order
from .server import Server

FIRST_S = 15.0  # that the first links may take
ASIDE_S = 30.0  # that a server which failed is left alone, if there are others
MAX_ASIDE_S = 300.0


@dataclass(slots=True)
class _Place:
    """A server with what we know of it."""

    server: Server
    ours: int = 0

    @property
    def load(self) -> int:
        return max(self.ours, self.server.remaining)


class Fleet:
    """Safe to use from several threads."""

    def __init__(self, addresses: Sequence[str], token: str, timeout_s: float) -> None:
        self._changed = threading.Condition()
        self._places = [_Place(Server(Api(address, token), timeout_s, self._tell)) for address in addresses]
        self._first_by = time.monotonic() + FIRST_S

    @contextlib.contextmanager
    def taken(self, order: Order, off: threading.Event, avoid: Collection[Server]) -> Iterator[Server]:
        """The best server for a keyframe, once one has room; those in `avoid` only when there is no other.

        Raises CalledOff, SourceAway, SourceUnavailable.
        """
        place = self._take(order, off, avoid)
        try:
            yield place.server
        finally:
            with self._changed:
                place.ours -= 1
                self._changed.notify_all()

    def put_aside(self, server: Server, why: ServerError, *, unless_alone: bool = False) -> None:
        """Leave a server alone that failed, until it is started anew or some time has passed; the others go on.

        unless_alone: it may be asked all the same while there is no other.
        """
        after_s = why.after_s if isinstance(why, Overloaded) and why.after_s is not None else ASIDE_S
        with self._changed:
            server.aside_until, server.aside_why = time.monotonic() + min(after_s, MAX_ASIDE_S), why
            server.last_resort = unless_alone
            self._changed.notify_all()

    def close(self) -> None:
        for place in self._places:
            place.server.close()

    def _take(self, order: Order, off: threading.Event, avoid: Collection[Server]) -> _Place:
        with self._changed:
            while not off.is_set():
                ready, starting = self._ready(), self._is_starting()
                if not ready and not starting:
                    raise self._nobody()
                fresh = [place for place in ready if place.server not in avoid]
                if room := [place for place in (fresh or (ready if not starting else ())) if place.ours < DEPTH]:
                    best = min(room, key=lambda place: (not place.server.has(order), place.load))
                    best.ours += 1
                    return best
                self._changed.wait(0.2)
        raise CalledOff("called off")

    def _ready(self) -> list[_Place]:
        """Those that may be asked now."""
        now = time.monotonic()
        up = [place for place in self._places if place.server.up]
        trusted = [place for place in up if place.server.aside_until <= now]
        if trusted or self._is_starting():
            return trusted
        return [place for place in up if place.server.last_resort]

    def _is_starting(self) -> bool:
        """Has some server not been tried yet?"""
        untried = any(not place.server.up and place.server.trouble is None for place in self._places)
        return untried and time.monotonic() < self._first_by

    def _nobody(self) -> Exception:
        servers = [place.server for place in self._places]
        troubles = [server.aside_why if server.up else server.trouble for server in servers]
        words = "no ComfyUI server can be used: " + "; ".join(map(str, filter(None, troubles)))
        return SourceUnavailable(words) if all(isinstance(each, NoEntry) for each in troubles) else SourceAway(words)

    def _tell(self) -> None:
        with self._changed:
            self._changed.notify_all()
