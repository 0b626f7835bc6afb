"""A port that leads to a server, and the harm that a network does on the way: delays, cuts, resets, false answers."""

from __future__ import annotations

import contextlib
import select
import socket
import struct
import threading
from collections.abc import Callable
from dataclasses import dataclass, field

LOOK_S = 0.05  # between two looks whether a connection shall end
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends RST instead of FIN


@dataclass(eq=False)
class _Connection:
    """One client's line to the server."""

    client: socket.socket
    server: socket.socket
    over: threading.Event = field(default_factory=threading.Event)
    by_reset: bool = False


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
        self._open: set[_Connection] = set()
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
        for each in tuple(self._open):
            each.by_reset = reset
            each.over.set()

    def _begin(self) -> threading.Thread:
        thread = threading.Thread(target=self._accept, daemon=True)
        thread.start()
        return thread

    def _accept(self) -> None:
        with contextlib.suppress(OSError):  # cut, or closed
            while True:
                client = self._listener.accept()[0]
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        upstream = ("127.0.0.1", self._upstream_port())
        with contextlib.suppress(OSError), client, socket.create_connection(upstream) as server:
            connection = _Connection(client, server)
            self._open.add(connection)
            back = threading.Thread(target=self._pass_on, args=(connection, server, client), daemon=True)
            back.start()
            self._pass_on(connection, client, server)
            back.join()
            self._open.discard(connection)
            if connection.by_reset:
                for end in (client, server):
                    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def _pass_on(self, connection: _Connection, source: socket.socket, target: socket.socket) -> None:
        asks = source is connection.client
        with contextlib.suppress(OSError):
            while not connection.over.is_set():
                if not select.select([source], [], [], LOOK_S)[0]:
                    continue
                if not (data := source.recv(1 << 16)):
                    break
                if connection.over.wait(self.delay_s):
                    break
                if asks and (answer := self._note(data)):
                    connection.client.sendall(answer)
                    while source.recv(1 << 16):  # to its end: closing earlier would be a reset, which may overtake it
                        pass
                    break
                passed = self.up(data) if asks else self.down(data)
                if passed is None:
                    break
                target.sendall(passed)
        connection.over.set()

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
