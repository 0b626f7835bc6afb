"""An exchange over a socket ends in time, whatever the other side does."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from typing import Self


class Deadline:
    """Ends an exchange when its time is over, however little the server does: its socket is shut down."""

    def __init__(self, limit_s: float) -> None:
        self._limit_s = limit_s
        self._ends_at = time.monotonic() + limit_s
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._over = False
        self._timer = threading.Timer(limit_s, self._end)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._timer.cancel()

    def __str__(self) -> str:
        return f"{self._limit_s:g} s"

    @property
    def over(self) -> bool:
        return self._over or time.monotonic() >= self._ends_at

    def left_s(self) -> float:
        """Seconds that are left, always more than none. Raises TimeoutError."""
        self.check()
        return max(0.001, self._ends_at - time.monotonic())

    def check(self) -> None:
        """Raises TimeoutError when the time is over: what was read last may have been cut off."""
        if self.over:
            raise TimeoutError

    def guard(self, sock: socket.socket) -> None:
        """Watch over this socket from now on."""
        with self._lock:
            self._socket = sock
            if self._over:
                _shut_down(sock)

    def _end(self) -> None:
        with self._lock:
            self._over = True
            if self._socket is not None:
                _shut_down(self._socket)


def _shut_down(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it was closed already
        # not SSLSocket's own: that one drops its decryption, and a reader would be given the raw bytes
        socket.socket.shutdown(sock, socket.SHUT_RDWR)
