"""The dispatcher as a process of its own: the HTTP service, and beside it the folder and the clock."""

from __future__ import annotations

import contextlib
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
import uvicorn

from .app import create_app
from .clock import look_by_the_clock
from .desk import Desk
from .fleet import Fleet
from .folder_tray import FolderTray
from .identity import LOOPBACK
from .settings import DispatcherSettings
from .waker import Waker

log = structlog.get_logger()

LEAVE_S = 8  # for requests that are under way at SIGTERM; Cloud Run kills after 10


class CannotServe(Exception):
    """Raised when the address cannot be had, or is one at which nobody would be kept out; says what to do."""


def check_guard(own: DispatcherSettings, host: str) -> None:
    """Raises CannotServe."""
    if host not in LOOPBACK and not own.guarded:
        raise CannotServe(
            f"others could reach {host}, and nobody would be kept out: set NIGHTREEL_DISPATCHER_TOKEN, or"
            " NIGHTREEL_DISPATCHER_AUDIENCE and NIGHTREEL_DISPATCHER_ACCOUNTS; or stay at 127.0.0.1"
        )


def serve(desk: Desk, host: str, port: int, *, watch: Path | None = None, waker: Waker | None = None) -> None:
    """Serve until SIGTERM or SIGINT. Raises CannotServe; StoreUnavailable when the folder cannot be watched.

    waker: looks by the clock, too.
    """
    check_guard(desk.own, host)
    with contextlib.ExitStack() as stack:
        listening = stack.enter_context(_listening(host, port))
        if watch is not None:
            stack.enter_context(_beside("watch", _watching(desk, watch)))
        if waker is not None:
            stack.enter_context(_beside("clock", lambda stop: look_by_the_clock(waker, stop)))
            if isinstance(fleet := waker.launcher, Fleet):
                stack.enter_context(_beside("backends", lambda stop: fleet.tend(stop, waker.poke)))
        config = uvicorn.Config(
            create_app(desk, waker=waker),
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_graceful_shutdown=LEAVE_S,
        )
        launcher = waker.launcher.name if waker else "none"
        log.info("serving", host=host, port=port, store=desk.settings.store, watch=str(watch or ""), launcher=launcher)
        with _signals_end_no_process():
            uvicorn.Server(config).run(sockets=[listening])


def _listening(host: str, port: int) -> socket.socket:
    """Raises CannotServe."""
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        listening = socket.create_server((host, port), family=found[0][0])
        # Connections inherit it. Without it an answer's body waits 40 ms for the acknowledgement of its head.
        listening.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return listening
    except OSError as exc:
        raise CannotServe(f"cannot listen at {host}:{port} ({exc.strerror}): choose another --port or --host") from exc


@contextlib.contextmanager
def _signals_end_no_process() -> Iterator[None]:
    """uvicorn leaves at a signal, and then sends it once more to whoever handled it before."""
    before = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _watching(desk: Desk, folder: Path) -> Callable[[threading.Event], None]:
    from .watch import Watcher  # only where a folder is watched

    return Watcher(desk, FolderTray(folder)).run


@contextlib.contextmanager
def _beside(name: str, run: Callable[[threading.Event], None]) -> Iterator[None]:
    """Run something in a thread of its own, and tell it to stop at the end."""
    stop = threading.Event()
    thread = threading.Thread(target=run, args=(stop,), name=name, daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join(LEAVE_S)
