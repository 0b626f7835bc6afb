"""Web servers for tests: real sockets, real TLS, and every bad habit that a server can have."""

from __future__ import annotations

import contextlib
import datetime as dt
import ipaddress
import socket
import ssl
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

NAME = "hooks.nightreel.example"
PUBLIC = "93.184.215.14"  # an address that is public; nobody is asked there


@dataclass(frozen=True)
class Request:
    """What a server was asked."""

    method: str
    target: str
    headers: dict[str, str]
    """Names in lower case."""
    body: bytes


Reply = Callable[["Connection"], None]


class Connection:
    """One client at a server."""

    def __init__(self, sock: socket.socket, request: Request, closed: threading.Event) -> None:
        self.request = request
        self.closed = closed
        """Set when the test is over."""
        self._sock = sock

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def answer(self, status: int, body: bytes = b"", **headers: str) -> None:
        lines = {"Content-Length": str(len(body))} | {name.replace("_", "-"): text for name, text in headers.items()}
        head = "".join(f"{name}: {text}\r\n" for name, text in lines.items())
        self.send(f"HTTP/1.1 {status} Whatever\r\n{head}\r\n".encode() + body)


class Server:
    """Answers each request by `reply`, and keeps what it was asked."""

    def __init__(self, reply: Reply, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.clients = 0
        """Connections that were accepted, whether they asked for something or not."""
        self.names: list[str] = []
        """What clients called the server in TLS (SNI)."""
        self._reply, self._tls = reply, tls
        if tls:
            tls.sni_callback = lambda _, name, __: self.names.append(str(name))
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._sockets: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._threads = [threading.Thread(target=self._accept, daemon=True)]
        self._threads[0].start()

    @property
    def host(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def url(self) -> str:
        return f"{'https' if self._tls else 'http'}://{self.host}/"

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._closed.set()
        for each in (self._listener, *self._sockets):
            with contextlib.suppress(OSError):
                socket.socket.shutdown(each, socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listener, *self._sockets):
            each.close()

    def wait_for(self, count: int, patience_s: float = 60.0) -> list[Request]:
        """The requests, as soon as there are so many."""
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, patience_s), self.requests
            return list(self.requests)

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = self._listener.accept()
                self.clients += 1
                self._sockets.append(sock)
                self._threads.append(threading.Thread(target=self._serve, args=(sock,), daemon=True))
                self._threads[-1].start()

    def _serve(self, plain: socket.socket) -> None:
        with contextlib.suppress(OSError, ValueError):
            sock = self._tls.wrap_socket(plain, server_side=True) if self._tls else plain
            self._sockets.append(sock)
            with sock:
                request = read_request(sock)
                with self._changed:
                    self.requests.append(request)
                    self._changed.notify_all()
                self._reply(Connection(sock, request, self._closed))


def read_request(sock: socket.socket) -> Request:
    """Read one request. Raises ValueError when the client leaves before it is complete."""
    with sock.makefile("rb") as file:
        method, target, _ = file.readline().decode("latin-1").split(" ")
        headers = {}
        while line := file.readline().decode("latin-1").strip():
            name, _, text = line.partition(":")
            headers[name.lower()] = text.strip()
        return Request(method, target, headers, file.read(int(headers.get("content-length", "0"))))


def says(status: int, body: bytes = b"", **headers: str) -> Reply:
    """Always the same answer."""
    return lambda connection: connection.answer(status, body, **headers)


def hangs(connection: Connection) -> None:
    """Takes the request, and never answers."""
    connection.closed.wait()


def drips(connection: Connection) -> None:
    """Sends an answer that never ends, a byte now and then: no single read of it takes long."""
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n")
    while not connection.closed.wait(0.05):
        connection.send(b"x")


def drips_headers(connection: Connection) -> None:
    """The same before the end of the headers."""
    connection.send(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    while not connection.closed.wait(0.05):
        connection.send(b"x")


class FakeNetwork:
    """Names and public addresses of the test's own; every connection to a public address leads to one local port."""

    def __init__(self, port: int, **names: Sequence[str] | Sequence[Sequence[str]]) -> None:
        """names: with _ for dots; a list of addresses, or one list a look-up."""
        self._port = port
        self._names = {name.replace("_", "."): addresses for name, addresses in names.items()}
        self.looked_up: list[str] = []
        self.connected: list[str] = []

    def resolve(self, host: str, port: int) -> Sequence[str]:
        self.looked_up.append(host)
        addresses = self._names[host]
        if addresses and not isinstance(addresses[0], str):
            return list(addresses[min(self.looked_up.count(host), len(addresses)) - 1])
        return [str(each) for each in addresses]

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        self.connected.append(address)
        return socket.create_connection(("127.0.0.1", self._port), timeout_s)


@dataclass(frozen=True)
class Certificate:
    """A server's certificate and key, signed by itself: one who trusts the file trusts the server."""

    file: Path

    def server(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.file)
        return context

    def client(self) -> ssl.SSLContext:
        return ssl.create_default_context(cafile=str(self.file))


def make_certificate(file: Path, *names: str) -> Certificate:
    """A certificate for names and IP addresses, valid for a day."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([_general_name(name) for name in names]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(_signs_itself(), critical=True)  # Python 3.13 asks for these two
        .sign(key, hashes.SHA256())
    )
    plain = serialization.NoEncryption()
    pem = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    file.write_bytes(pem + certificate.public_bytes(serialization.Encoding.PEM))
    return Certificate(file)


def _signs_itself() -> x509.KeyUsage:
    unused = ("content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "crl_sign",
              "encipher_only", "decipher_only")  # fmt: skip
    return x509.KeyUsage(digital_signature=True, key_cert_sign=True, **dict.fromkeys(unused, False))


def _general_name(name: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(name))
    except ValueError:
        return x509.DNSName(name)
