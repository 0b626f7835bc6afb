"""A small, careful HTTPS client: public servers only, each exchange within its time, no larger than allowed.

The name is looked up once, every address that it has must be public, and the connection is made to a checked address
itself: a name that changes its mind between check and use (DNS rebinding) gains nothing. Proxies are not used.
"""

from __future__ import annotations

import contextlib
import http.client
import queue
import socket
import ssl
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import urldefrag, urljoin

from .addresses import WebAddress, trusted_host
from .deadline import Deadline
from .errors import Forbidden, Missing, TooLarge, Unreachable

MAX_REDIRECTS = 3
MAX_ADDRESSES = 4  # of one name that are tried
CHUNK_BYTES = 65536
AGENT = "nightreel"
_REDIRECTS = (301, 302, 303, 307, 308)


class Network(Protocol):
    """What the client asks of the outside world. Raises OSError."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        """The IP addresses of a name, the best one first."""
        ...

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """A connection to an IP address."""
        ...


class Internet:
    """The system's resolver and its sockets."""

    def resolve(self, host: str, port: int) -> Sequence[str]:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        return list(dict.fromkeys(str(where[0]) for *_, where in found))

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        return socket.create_connection((address, port), timeout_s)


class Web:
    """Posts to, and fetches from, web servers. Keeps nothing between two calls; safe to use from several threads."""

    def __init__(
        self,
        trusted_hosts: Collection[str] = (),
        *,
        network: Network | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """trusted_hosts: `host` or `host:port`; only these may be private or speak plain http. Raises ValueError."""
        self._trusted = frozenset(map(trusted_host, trusted_hosts))
        self._network = network or Internet()
        self._given_tls = tls

    def check(self, url: str) -> None:
        """Raises Forbidden for an address that would never be asked. Looks up nothing."""
        WebAddress.of(url, self._trusted)

    def origin(self, url: str) -> str:
        """Scheme, host and port: what logs may say of an address. Raises Forbidden."""
        return WebAddress.of(url, self._trusted).origin

    def post(self, url: str, body: bytes, headers: Mapping[str, str], *, limit_s: float) -> int:
        """Post a body; returns the status, whatever it is. Redirects are not followed, the answer is not read.

        `limit_s` is for the whole exchange, from the look-up of the name on. Raises Forbidden, Unreachable.
        """
        address = WebAddress.of(url, self._trusted)
        with Deadline(limit_s) as deadline, self._ask(address, "POST", deadline, headers, body) as answer:
            return answer.status

    def fetch(self, url: str, path: Path, *, limit_s: float, limit_bytes: int) -> None:
        """Fetch a body into a new file; leaves none behind when that fails. Follows up to 3 redirects.

        `limit_s` is for all of it. Raises Forbidden, Unreachable, TooLarge; OSError for the file.
        """
        with Deadline(limit_s) as deadline:
            address = WebAddress.of(url, self._trusted)
            for _ in range(MAX_REDIRECTS + 1):
                with self._ask(address, "GET", deadline, {"Accept-Encoding": "identity"}) as answer:
                    if answer.status not in _REDIRECTS:
                        _check_answer(address, answer, limit_bytes)
                        _save(path, _body(address, answer, deadline, limit_bytes))
                        return
                    address = self._redirected(address, answer)
        raise Unreachable(f"{address.origin}: redirects more than {MAX_REDIRECTS} times: give the final address")

    def _redirected(self, address: WebAddress, answer: http.client.HTTPResponse) -> WebAddress:
        """Where an answer leads, checked like the first address."""
        to, _ = urldefrag(urljoin(address.origin + address.target, answer.getheader("Location", "")))
        try:
            return WebAddress.of(to, self._trusted)
        except Forbidden as exc:
            raise Forbidden(f"{address.origin} redirects to an address that is not allowed: {exc}") from exc

    @contextlib.contextmanager
    def _ask(
        self,
        address: WebAddress,
        method: str,
        deadline: Deadline,
        headers: Mapping[str, str],
        body: bytes | None = None,
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to one request, its body still to be read."""
        connection = http.client.HTTPConnection(address.host, address.port)
        own = {"Host": address.authority, "User-Agent": AGENT, "Connection": "close"}
        with contextlib.ExitStack() as open_parts:
            open_parts.callback(connection.close)
            with _translated(address, deadline):
                connection.sock = self._connect(address, deadline)
                connection.request(method, address.target, body, {**headers, **own})
                answer = open_parts.enter_context(contextlib.closing(connection.getresponse()))
                deadline.check()
            yield answer

    def _connect(self, address: WebAddress, deadline: Deadline) -> socket.socket:
        """A connection to one of the host's addresses, all of which were checked."""
        found = [address.host] if address.is_literal else self._resolve(address, deadline)
        address.check_resolved(found)
        last = OSError("the name has no address")
        tried = found[:MAX_ADDRESSES]
        for number, each in enumerate(tried):
            timeout_s = deadline.left_s() / (len(tried) - number)
            try:
                return self._wrap(address, self._network.connect(each, address.port, timeout_s), deadline)
            except OSError as exc:
                deadline.check()
                last = exc
        raise last

    def _resolve(self, address: WebAddress, deadline: Deadline) -> Sequence[str]:
        """The host's addresses. A resolver that hangs is left to itself: nothing can interrupt it."""
        answer: queue.SimpleQueue[Sequence[str] | Exception] = queue.SimpleQueue()

        def look_up() -> None:
            try:
                answer.put(self._network.resolve(address.host, address.port))
            except (OSError, UnicodeError) as exc:
                answer.put(exc)

        threading.Thread(target=look_up, name="resolver", daemon=True).start()
        try:
            found = answer.get(timeout=deadline.left_s())
        except queue.Empty:
            raise TimeoutError from None
        if isinstance(found, Exception):
            raise found
        return found

    def _wrap(self, address: WebAddress, plain: socket.socket, deadline: Deadline) -> socket.socket:
        """The connection, with TLS where it is asked for. The deadline can end it from here on."""
        with contextlib.ExitStack() as open_sockets:
            open_sockets.callback(plain.close)
            plain.settimeout(deadline.left_s())
            if address.scheme == "http":
                deadline.guard(plain)
                open_sockets.pop_all()
                return plain
            secure = self._tls.wrap_socket(
                plain, server_hostname=address.host, do_handshake_on_connect=False, suppress_ragged_eofs=False
            )
            open_sockets.callback(secure.close)
            deadline.guard(secure)
            secure.do_handshake()
            open_sockets.pop_all()
            return secure

    @cached_property
    def _tls(self) -> ssl.SSLContext:
        return self._given_tls or ssl.create_default_context()


@contextlib.contextmanager
def _translated(address: WebAddress, deadline: Deadline) -> Iterator[None]:
    """Turn what sockets, TLS and HTTP raise into Unreachable, with the mend."""
    try:
        yield
    except (OSError, http.client.HTTPException, UnicodeError) as exc:
        if deadline.over or isinstance(exc, TimeoutError):
            why = f"no complete answer within {deadline}: is the server up, and fast enough?"
        elif isinstance(exc, ssl.SSLCertVerificationError):
            why = f"its certificate is not valid ({exc.verify_message}): renew it, or correct the host's name"
        elif isinstance(exc, socket.gaierror):
            why = f"no such host ({exc.strerror}): check its spelling"
        elif isinstance(exc, OSError):
            why = f"{exc or type(exc).__name__}: is the server up?"
        elif isinstance(exc, http.client.IncompleteRead):
            why = "its answer broke off: is the server up?"
        else:
            why = f"no proper answer ({type(exc).__name__}): does it speak HTTP?"
        raise Unreachable(f"{address.origin}: {why}") from exc


def _check_answer(address: WebAddress, answer: http.client.HTTPResponse, limit_bytes: int) -> None:
    if answer.status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.GONE):
        raise Missing(f"{address.origin}: answered {answer.status}: there is nothing at this address")
    if answer.status != http.HTTPStatus.OK:
        raise Unreachable(f"{address.origin}: answered {answer.status}: check the address")
    if answer.getheader("Content-Encoding", "identity").lower() != "identity":
        raise Unreachable(f"{address.origin}: compresses what was asked for as it is: switch that off there")
    if answer.length is not None and answer.length > limit_bytes:
        raise TooLarge(f"{address.origin}: is {answer.length:,} bytes; {limit_bytes:,} are allowed")


def _body(
    address: WebAddress, answer: http.client.HTTPResponse, deadline: Deadline, limit_bytes: int
) -> Iterator[bytes]:
    """An answer's body, piece by piece; it is complete when this ends without an error."""
    left = limit_bytes
    while True:
        with _translated(address, deadline):
            data = answer.read1(CHUNK_BYTES)  # what is there: one that fills the chunk may wait for it
            deadline.check()
            if not data and answer.length:
                raise http.client.IncompleteRead(b"", answer.length)
        if not data:
            return
        left -= len(data)
        if left < 0:
            raise TooLarge(f"{address.origin}: sends more than the {limit_bytes:,} bytes that are allowed")
        yield data


def _save(path: Path, pieces: Iterator[bytes]) -> None:
    """Write a new file; remove it when it does not become complete."""
    with path.open("xb") as file:
        try:
            for piece in pieces:
                file.write(piece)
            file.flush()
        except BaseException:
            path.unlink(missing_ok=True)
            raise
