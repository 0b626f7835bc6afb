"""A port that leads to a server, and the harm that a network does on the way: delays, cuts, resets, false answers."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
import time
from collections.abc import Callable

LOOK_S = 0.05  # between two looks whether a connection shall end
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST instead of FIN


class Proxy:
    """Passes bytes on, both ways, as `up` and `down` let them through; None cuts the connection."""

    def __init__(self, upstream_port: Callable[[], int]) -> None:
        self._upstream_port = upstream_port
        self.requests: list[str] = []
        """First lines of what clients asked for, of HTTP/1.1."""
        self.up: Callable[[bytes], bytes | None] = lambda data: data
        self.down: Callable[[bytes], bytes | None] = lambda data: data
        self.delay_s = 0.0
        """Seconds by which everything comes later, each way."""
        self.answer: Callable[[str], bytes | None] = lambda line: None
        """What the proxy itself answers to a request of HTTP/1.1, given its first line; the server never hears of it."""
        self.port = free_port()
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.host = f"127.0.0.1:{self.port}"
        self.url = f"http://{self.host}"
        self._ends = (threading.Event(), threading.Event())
        self._accepting = self._begin()

    def cut(self) -> None:
        """Refuse connections, and end those that are open."""
        self._end_all()
        self._listener.shutdown(socket.SHUT_RDWR)  # it keeps the port, for it was bound to it by number
        self._accepting.join()

    def mend(self) -> None:
        """Let connections through again."""
        self._listener.listen()
        self._accepting = self._begin()

    def reset(self) -> None:
        """End all open connections as a machine does that has crashed: by RST, without a goodbye."""
        self._end_all(reset=True)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # it is cut
            self.cut()
        self._listener.close()

    def _end_all(self, *, reset: bool = False) -> None:
        (over, by_reset), self._ends = self._ends, (threading.Event(), threading.Event())
        if reset:
            by_reset.set()
        over.set()

    def _begin(self) -> threading.Thread:
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # cut, or closed
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client, *self._ends), daemon=True).start()

    def _serve(self, client: socket.socket, over: threading.Event, by_reset: threading.Event) -> None:
        upstream = ("127.0.0.1", self._upstream_port())
        with contextlib.suppress(OSError), client, socket.create_connection(upstream) as server:
            while not over.is_set() and self._exchange(client, server):
                pass
            if by_reset.is_set():
                for end in (client, server):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _exchange(self, client: socket.socket, server: socket.socket) -> bool:
        """Pass on what has come, if anything has; False at the connection's end."""
        for source in select.select([client, server], [], [], LOOK_S)[0]:
            data = source.recv(1 << 16)
            time.sleep(self.delay_s if data else 0)
            asks = source is client
            if asks and (answer := self._note(data)):
                client.sendall(answer)
                while client.recv(
                    1 << 16
                ):  # to its end: closing earlier would be a reset, which may overtake the answer
                    pass
                return False
            passed = (self.up(data) if asks else self.down(data)) if data else None
            if passed is None:
                return False
            (server if asks else client).sendall(passed)
        return True

    def _note(self, data: bytes) -> bytes | None:
        line = data.partition(b"\r\n")[0]
        if not line.endswith(b"HTTP/1.1"):
            return None
        self.requests.append(line.decode())
        return self.answer(line.decode())


def free_port() -> int:
    """A port that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
