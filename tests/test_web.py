"""The web client: public https servers only, whatever a job writes; no exchange outlasts its time or its size."""

from __future__ import annotations

import socket
import threading
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from web_servers import (
    NAME,
    PUBLIC,
    Certificate,
    Connection,
    FakeNetwork,
    Reply,
    Server,
    drips,
    drips_headers,
    hangs,
    make_certificate,
    says,
)

from nightreel_worker.addresses import MAX_URL_CHARS, WebAddress, is_public
from nightreel_worker.deadline import Deadline
from nightreel_worker.errors import Forbidden, Missing, TooLarge, Unreachable
from nightreel_worker.web import Web

SOON_S = 0.3  # given to servers that would take forever
PATIENCE_S = 30.0  # given to those that answer at once


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("tls") / "server.pem", NAME, "127.0.0.1")


def fetched(web: Web, url: str, folder: Path, limit_bytes: int = 1000, limit_s: float = PATIENCE_S) -> bytes:
    file = folder / "fetched"
    web.fetch(url, file, limit_s=limit_s, limit_bytes=limit_bytes)
    return file.read_bytes()


# Addresses by their text


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("", "no host"),
        ("example.com/hook", "no host"),
        ("http://example.com/", "only https"),
        ("ftp://example.com/", "only https"),
        ("file:///etc/passwd", "no host"),
        ("//example.com/", "only https"),
        ("gopher://example.com/", "only https"),
        ("https://", "no host"),
        ("https:///path", "no host"),
        ("https://user@example.com/", "user or password"),
        ("https://user:secret@example.com/", "user or password"),
        ("https://example.com@127.0.0.1/", "user or password"),
        ("https://example.com/#there", "#"),
        ("https://example.com#@127.0.0.1/", "#"),
        ("https://example.com/a b", "blanks"),
        ("https://example.com/\r\nX-Evil: 1", "blanks"),
        ("https://exam\tple.com/", "blanks"),
        (" https://example.com/", "blanks"),
        ("https://example.com\\@127.0.0.1/", "backslashes"),
        ("https://example.com/" + "x" * MAX_URL_CHARS, "2000 are allowed"),
        ("https://example.com:0/", "port 0 does not exist"),
        ("https://example.com:65536/", "port 65536 does not exist"),
        ("https://example.com:-1/", "no host"),
        ("https://example.com:/", "no host"),
        ("https://example.com:25/", "port 25 is not allowed"),
        ("https://example.com:80/", "port 80 is not allowed"),
        ("https://example..com/", "no host"),
        ("https://example.com./", "no host"),
        ("https://localhost./", "no host"),
        ("https://-example.com/", "no host"),
        ("https://" + "a" * 64 + ".com/", "no host"),
        ("https://" + ".".join(["a" * 60] * 5) + ".com/", "no host"),
        ("https://%6cocalhost/", "no host"),
        ("https://[::1/", "cannot be read"),
        ("https://[::1]x.com/", "no host"),
        ("https://x[::1]/", "no host"),
        ("https://[fe80::1%25eth0]/", "no host"),
        ("https://[v1.x]/", "no host"),
        # names inside somebody's network
        ("https://localhost/", "inside somebody's network"),
        ("https://LOCALHOST/", "inside somebody's network"),
        ("https://redis/", "inside somebody's network"),
        ("https://metadata/", "inside somebody's network"),
        ("https://metadata.google.internal/", "inside somebody's network"),
        ("https://instance-data.ec2.internal/", "inside somebody's network"),
        ("https://printer.local/", "inside somebody's network"),
        ("https://x.localhost/", "inside somebody's network"),
        ("https://1.0.0.127.in-addr.arpa/", "inside somebody's network"),
        # names that are no ASCII: full-width digits, circled letters, an ideographic full stop
        ("https://１２７.0.0.1/", "beyond ASCII"),  # noqa: RUF001  # they are meant
        ("https://ⓛocalhost/", "beyond ASCII"),
        ("https://127。0。0。1/", "beyond ASCII"),
        ("https://münchen.de/", "beyond ASCII"),
        # IPv4, in every way that C libraries read it
        ("https://127.0.0.1/", "not a public address"),
        ("https://10.1.2.3/", "not a public address"),
        ("https://172.16.0.1/", "not a public address"),
        ("https://192.168.1.1/", "not a public address"),
        ("https://169.254.169.254/latest/meta-data/", "not a public address"),
        ("https://168.63.129.16/", "not a public address"),
        ("https://192.0.0.192/", "not a public address"),
        ("https://192.88.99.1/", "not a public address"),
        ("https://100.100.100.200/", "not a public address"),
        ("https://0.0.0.0/", "not a public address"),
        ("https://224.0.0.1/", "not a public address"),
        ("https://255.255.255.255/", "not a public address"),
        ("https://127.1/", "odd way"),
        ("https://0/", "odd way"),
        ("https://2130706433/", "odd way"),
        ("https://0x7f.1/", "odd way"),
        ("https://0x7f000001/", "odd way"),
        ("https://0X7F.0.0.0X1/", "odd way"),
        ("https://0177.0.0.1/", "odd way"),
        ("https://127.0.0.01/", "odd way"),
        ("https://1.2.3.4.5/", "odd way"),
        ("https://example.0x/", "odd way"),
        # IPv6, and IPv4 inside it
        ("https://[::1]/", "not a public address"),
        ("https://[::]/", "not a public address"),
        ("https://[fc00::1]/", "not a public address"),
        ("https://[fd00:ec2::254]/", "not a public address"),
        ("https://[fe80::1]/", "not a public address"),
        ("https://[fec0::1]/", "not a public address"),
        ("https://[ff0e::1]/", "not a public address"),
        ("https://[2001:20::1]/", "not a public address"),
        ("https://[2001:db8::1]/", "not a public address"),
        ("https://[3fff::1]/", "not a public address"),
        ("https://[::ffff:127.0.0.1]/", "not a public address"),
        ("https://[::FFFF:7f00:1]/", "not a public address"),
        ("https://[::127.0.0.1]/", "not a public address"),
        ("https://[64:ff9b::10.0.0.1]/", "not a public address"),
        ("https://[64:ff9b:1::808:808]/", "not a public address"),
        ("https://[2002:a00:1::]/", "not a public address"),
        ("https://[2001:0:a00:1::]/", "not a public address"),
    ],
)
def test_an_address_that_leads_elsewhere_than_to_a_public_https_server_is_forbidden(url: str, why: str) -> None:
    with pytest.raises(Forbidden) as caught:
        Web().check(url)

    assert why in str(caught.value)


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://example.com/hook?token=a%20b&x=1",
        "https://EXAMPLE.com:8443/",
        "https://xn--mnchen-3ya.de/",
        "https://a_b.example.com/",
        "https://8.8.8.8/",
        "https://[2606:4700::1111]/",
        "https://[64:ff9b::8.8.8.8]:443/",
        "https://[::ffff:8.8.8.8]/",
        "https://1.2.3.4.com/",
    ],
)
def test_public_https_servers_may_be_asked(url: str) -> None:
    Web().check(url)


@pytest.mark.parametrize(
    ("trusted", "url"),
    [
        ("localhost", "http://localhost/"),
        ("localhost", "https://localhost:99/"),
        ("localhost:8080", "http://LocalHost:8080/x"),
        ("127.0.0.1", "http://127.0.0.1:1/"),
        ("[::1]:8080", "http://[0:0::1]:8080/"),
        ("Receiver.internal", "https://receiver.internal/"),
        ("10.0.0.1:443", "https://10.0.0.1/"),
    ],
)
def test_a_host_that_the_operator_trusts_may_be_private_and_without_tls(trusted: str, url: str) -> None:
    Web([trusted]).check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:8081/",
        "http://user@localhost:8080/",
        "http://localhost.:8080/",
        "http://x.localhost:8080/",
        "ftp://localhost:8080/",
        "http://127.0.0.1:8080/",
    ],
)
def test_trust_is_for_that_very_host_and_port(url: str) -> None:
    with pytest.raises(Forbidden):
        Web(["localhost:8080"]).check(url)


@pytest.mark.parametrize(
    "text", ["", "http://x", "a b", "x/y", "x?y", "u@x", "x:0", "x:port", "127.1", "x.", "*", "::1", "a,b"]
)
def test_what_is_no_host_cannot_be_trusted(text: str) -> None:
    with pytest.raises(ValueError, match="write host or host:port"):
        Web([text])


HOSTS = st.one_of(
    st.ip_addresses().map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.integers(0, 2**33).map(str),
    st.integers(0, 2**33).map(hex),
    st.lists(st.integers(0, 300).map(str) | st.integers(0, 300).map(hex) | st.just(""), max_size=5).map(".".join),
    st.text(st.sampled_from("aA0.x-_[]:%@#?/\\ \t。ⓛ１"), max_size=12),
    st.sampled_from(["localhost", "example.com", "metadata.google.internal", "[::1]", "127.0.0.1"]),
)
URLS = st.one_of(
    st.text(max_size=60),
    st.builds(
        lambda scheme, user, host, port, rest: f"{scheme}{user}{host}{port}{rest}",
        st.sampled_from(["https://", "HTTPS://", "http://", "https:/", "//", "https:\\\\", ""]),
        st.sampled_from(["", "", "", "a@", "a:b@"]),
        HOSTS,
        st.sampled_from(["", "", ":443", ":8443", ":22", ":", ":x", ":99999"]),
        st.sampled_from(["", "/", "/x?y", "#", "/\n", "?@127.0.0.1"]),
    ),
)


@settings(deadline=None)  # a busy machine is no reason to fail
@given(URLS)
@example("https://[::ffff:0:127.0.0.1]/")
def test_whatever_is_written_an_address_is_public_and_plain_or_forbidden(url: str) -> None:
    try:
        address = WebAddress.of(url)
    except Forbidden:
        return

    assert address.scheme == "https"
    assert address.port == 443 or 1024 <= address.port <= 65535
    assert address.host == (urlsplit(url).hostname or "") or address.is_literal
    assert address.target.startswith(("/", "?"))
    assert address.target.isascii()
    assert not set(address.target + address.authority) & set(" \r\n\t\\#")
    if address.is_literal:
        assert is_public(address.host)
    else:
        assert "." in address.host
        assert not is_number_to_the_c_library(address.host)


def is_number_to_the_c_library(host: str) -> bool:
    try:
        return bool(socket.inet_aton(host))
    except OSError:
        return False


# Addresses by what DNS says


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["169.254.169.254"],
        ["10.0.0.1"],
        [PUBLIC, "192.168.0.1"],
        ["::1"],
        ["fe80::1%eth0"],
        ["2606:4700::1111%eth0"],
        ["::ffff:10.0.0.1"],
        ["64:ff9b::a9fe:a9fe"],
        ["2002:7f00:1::"],
        ["224.0.0.1"],
        ["nonsense"],
    ],
)
def test_a_name_with_one_private_address_is_not_asked_at_all(addresses: Sequence[str]) -> None:
    with Server(says(200)) as server:
        network = FakeNetwork(server.port, example_com=addresses)

        with pytest.raises(Forbidden, match="is not a public address"):
            Web(network=network).post("https://example.com/", b"", {}, limit_s=PATIENCE_S)

        assert network.connected == []
        assert server.clients == 0


def test_a_name_that_changes_its_mind_after_the_check_gains_nothing(certificate: Certificate) -> None:
    """DNS rebinding: public for the check, private for the connection."""
    with Server(says(204), tls=certificate.server()) as server:
        rebinding: Sequence[Sequence[str]] = [[PUBLIC], ["127.0.0.1"]]
        network = FakeNetwork(server.port, **{NAME.replace(".", "_"): rebinding})
        web = Web(network=network, tls=certificate.client())

        assert web.post(f"https://{NAME}/", b"", {}, limit_s=PATIENCE_S) == 204
        assert network.looked_up == [NAME]
        assert network.connected == [PUBLIC]

        # And the next exchange looks anew
        with pytest.raises(Forbidden):
            web.post(f"https://{NAME}/", b"", {}, limit_s=PATIENCE_S)
        assert network.connected == [PUBLIC]


def test_when_one_address_of_a_name_is_dead_the_next_one_is_tried(certificate: Certificate) -> None:
    class Half(FakeNetwork):
        def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
            if address == "2606:4700::1111":
                self.connected.append(address)
                raise OSError("no route")
            return super().connect(address, port, timeout_s)

    with Server(says(200), tls=certificate.server()) as server:
        network = Half(server.port, **{NAME.replace(".", "_"): ["2606:4700::1111", PUBLIC]})

        assert Web(network=network, tls=certificate.client()).post(f"https://{NAME}/", b"", {}, limit_s=60) == 200
        assert network.connected == ["2606:4700::1111", PUBLIC]


def test_a_resolver_that_hangs_is_given_up() -> None:
    class Stuck(FakeNetwork):
        def resolve(self, host: str, port: int) -> Sequence[str]:
            over.wait()
            return []

    over = threading.Event()
    with pytest.raises(Unreachable, match=f"within {SOON_S} s"):
        Web(network=Stuck(1)).post("https://example.com/", b"", {}, limit_s=SOON_S)
    assert all(thread.daemon for thread in threading.enumerate() if thread.name == "resolver")  # no exit waits for it
    over.set()


def test_a_name_that_is_none_is_unreachable() -> None:
    class Nobody(FakeNetwork):
        def resolve(self, host: str, port: int) -> Sequence[str]:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    with pytest.raises(Unreachable, match=r"no such host .* check its spelling"):
        Web(network=Nobody(1)).post("https://example.com/", b"", {}, limit_s=PATIENCE_S)


# TLS


def test_the_server_is_called_by_its_name_and_must_prove_it(certificate: Certificate) -> None:
    with Server(says(200), tls=certificate.server()) as server:
        network = FakeNetwork(server.port, other_example_com=[PUBLIC], **{NAME.replace(".", "_"): [PUBLIC]})
        web = Web(network=network, tls=certificate.client())

        assert web.post(f"https://{NAME}:8443/a?b=c", b"{}", {"X-Own": "1"}, limit_s=PATIENCE_S) == 200
        with pytest.raises(Unreachable, match="certificate is not valid"):
            web.post("https://other.example.com/", b"secret", {}, limit_s=PATIENCE_S)

        assert server.names == [NAME, "other.example.com"]
        [request] = server.requests
        assert (request.method, request.target, request.body) == ("POST", "/a?b=c", b"{}")
        assert (request.headers["host"], request.headers["x-own"]) == (f"{NAME}:8443", "1")


def test_a_certificate_that_nobody_vouches_for_is_refused(certificate: Certificate) -> None:
    with Server(says(200), tls=certificate.server()) as server:
        with pytest.raises(Unreachable, match="certificate is not valid"):
            Web([server.host]).post(server.url, b"secret", {}, limit_s=PATIENCE_S)

        assert server.requests == []


def test_a_server_that_hangs_in_the_handshake_is_cut_off() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"within {SOON_S} s"):
            Web([host]).post(f"https://{host}/", b"", {}, limit_s=SOON_S)


# Posting


@pytest.mark.parametrize("status", [200, 204, 302, 404, 410, 500])
def test_a_post_tells_the_status_and_follows_nothing(status: int) -> None:
    with Server(says(status, Location="http://127.0.0.1:1/")) as server:
        assert Web([server.host]).post(server.url + "x", b"body", {"X": "y"}, limit_s=PATIENCE_S) == status

    [request] = server.requests
    assert (request.method, request.target, request.body, request.headers["x"]) == ("POST", "/x", b"body", "y")
    assert request.headers["connection"] == "close"


def test_the_answer_to_a_post_is_not_read() -> None:
    with Server(drips) as server:
        assert Web([server.host]).post(server.url, b"", {}, limit_s=PATIENCE_S) == 200


@pytest.mark.parametrize("with_tls", [False, True])
@pytest.mark.parametrize("reply", [hangs, drips_headers])
def test_however_little_a_server_says_a_post_ends_in_its_time(
    reply: Reply, with_tls: bool, certificate: Certificate
) -> None:
    with Server(reply, tls=certificate.server() if with_tls else None) as server:
        web = Web([server.host], tls=certificate.client())
        with pytest.raises(Unreachable, match=f"within {SOON_S} s: is the server up"):
            web.post(server.url, b"", {}, limit_s=SOON_S)


def test_a_server_that_reads_nothing_is_cut_off() -> None:
    """Nor does a body wait for it that is larger than what the kernel takes in."""
    with socket.create_server(("127.0.0.1", 0), backlog=1) as server:
        host = f"127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unreachable, match=f"within {SOON_S} s"):
            Web([host]).post(f"http://{host}/", b"x" * 20_000_000, {}, limit_s=SOON_S)


def test_nobody_at_a_port_is_unreachable() -> None:
    with socket.create_server(("127.0.0.1", 0)) as gone:
        host = f"127.0.0.1:{gone.getsockname()[1]}"

    with pytest.raises(Unreachable, match=r"refused.*is the server up\?"):
        Web([host]).post(f"http://{host}/", b"", {}, limit_s=PATIENCE_S)


def test_what_is_no_http_is_unreachable() -> None:
    with (
        Server(lambda connection: connection.send(b"220 mail ready\x1b[31m\r\n")) as server,
        pytest.raises(Unreachable, match=r"no proper answer \(BadStatusLine\)") as caught,
    ):
        Web([server.host]).post(server.url, b"", {}, limit_s=PATIENCE_S)

    assert "mail" not in str(caught.value)


def test_a_token_in_the_address_is_told_to_nobody_but_the_server() -> None:
    with Server(says(403)) as server, pytest.raises(Unreachable) as caught:
        Web([server.host]).fetch(f"{server.url}hook/sekrit?key=sekrit", Path("x"), limit_s=60, limit_bytes=1)

    assert str(caught.value) == f"http://{server.host}: answered 403: check the address"
    assert server.requests[0].target == "/hook/sekrit?key=sekrit"


def test_a_read_that_waits_ends_with_the_deadline_and_so_does_one_that_begins_later() -> None:
    for wait_s in (0.0, SOON_S):
        ours, theirs = socket.socketpair()
        with ours, theirs, Deadline(SOON_S / 2) as deadline:
            ours.settimeout(PATIENCE_S)
            threading.Event().wait(wait_s)
            deadline.guard(ours)
            assert ours.recv(1) == b""  # the end of the connection, not of the patience
            with pytest.raises(TimeoutError):
                deadline.check()


# Fetching


def chunked(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")


def until_closed(connection: Connection) -> None:
    connection.send(b"HTTP/1.0 200 OK\r\n\r\nabcde")


@pytest.mark.parametrize("reply", [says(200, b"abcde"), chunked, until_closed])
def test_a_body_becomes_a_file_as_it_is(reply: Reply, tmp_path: Path) -> None:
    with Server(reply) as server:
        assert fetched(Web([server.host]), server.url, tmp_path, limit_bytes=5) == b"abcde"

    assert (server.requests[0].method, server.requests[0].headers["accept-encoding"]) == ("GET", "identity")


def announces_too_much(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1001\r\n\r\n")
    connection.closed.wait()


def sends_too_much(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1001)
    connection.closed.wait()


def sends_too_many_chunks(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"8\r\n12345678\r\n" * 126)
    connection.closed.wait()


@pytest.mark.parametrize("reply", [says(200, b"x" * 1001), announces_too_much, sends_too_much, sends_too_many_chunks])
def test_a_body_that_is_too_large_is_dropped_at_once_and_leaves_no_file(reply: Reply, tmp_path: Path) -> None:
    with Server(reply) as server, pytest.raises(TooLarge, match="1,000"):
        fetched(Web([server.host]), server.url, tmp_path)

    assert list(tmp_path.iterdir()) == []


def breaks_off(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc")


def breaks_off_in_a_chunk(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n8\r\nabc")


def breaks_off_between_chunks(connection: Connection) -> None:
    connection.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n")


@pytest.mark.parametrize("reply", [breaks_off, breaks_off_in_a_chunk, breaks_off_between_chunks])
def test_a_body_that_breaks_off_leaves_no_file(reply: Reply, tmp_path: Path) -> None:
    with Server(reply) as server, pytest.raises(Unreachable, match="broke off"):
        fetched(Web([server.host]), server.url, tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("with_tls", [False, True])
def test_a_body_that_drips_is_cut_off_and_leaves_no_file(
    with_tls: bool, certificate: Certificate, tmp_path: Path
) -> None:
    """The end of an answer without a length is the end of the connection: a cut must not pass for it."""
    with Server(drips, tls=certificate.server() if with_tls else None) as server:
        web = Web([server.host], tls=certificate.client())
        with pytest.raises(Unreachable, match=f"within {SOON_S} s"):
            fetched(web, server.url, tmp_path, limit_s=SOON_S)

    assert list(tmp_path.iterdir()) == []


def test_a_tls_stream_that_somebody_cut_does_not_pass_for_a_whole_one(certificate: Certificate, tmp_path: Path) -> None:
    """Without a length, only TLS's own farewell says that the body is complete."""
    with Server(until_closed, tls=certificate.server()) as server, pytest.raises(Unreachable):
        fetched(Web([server.host], tls=certificate.client()), server.url, tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [404, 410])
def test_what_is_not_there_is_missing_for_good(status: int, tmp_path: Path) -> None:
    with Server(says(status)) as server, pytest.raises(Missing, match=f"answered {status}"):
        fetched(Web([server.host]), server.url, tmp_path)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("status", [201, 204, 206, 304, 401, 500, 503])
def test_only_ok_is_an_answer(status: int, tmp_path: Path) -> None:
    with Server(says(status)) as server, pytest.raises(Unreachable, match=f"answered {status}"):
        fetched(Web([server.host]), server.url, tmp_path)

    assert list(tmp_path.iterdir()) == []


def test_a_body_that_was_packed_all_the_same_is_refused(tmp_path: Path) -> None:
    with Server(says(200, b"abc", Content_Encoding="gzip")) as server, pytest.raises(Unreachable, match="compresses"):
        fetched(Web([server.host]), server.url, tmp_path)


def test_a_file_that_is_there_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "fetched").write_text("mine")

    with Server(says(200, b"theirs")) as server, pytest.raises(FileExistsError):
        fetched(Web([server.host]), server.url, tmp_path)

    assert (tmp_path / "fetched").read_text() == "mine"


# Redirects


def leads(*steps: str) -> Reply:
    """Each step redirects to the next one; the last one has the body."""

    def reply(connection: Connection) -> None:
        at = steps.index(connection.request.target)
        if at + 1 < len(steps):
            connection.answer(302, Location=steps[at + 1])
        else:
            connection.answer(200, b"found")

    return reply


def test_three_redirects_are_followed_and_a_fourth_is_not(tmp_path: Path) -> None:
    with Server(leads("/1", "/2", "/3", "/4")) as server:
        assert fetched(Web([server.host]), server.url + "1", tmp_path) == b"found"
    with Server(leads("/0", "/1", "/2", "/3", "/4")) as server, pytest.raises(Unreachable, match="more than 3 times"):
        fetched(Web([server.host]), server.url + "0", tmp_path / "other")


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_each_kind_of_redirect_is_followed(status: int, tmp_path: Path) -> None:
    def reply(connection: Connection) -> None:
        if connection.request.target == "/":
            connection.answer(status, Location=f"/there?{status}#part")
        else:
            connection.answer(200, connection.request.target.encode())

    with Server(reply) as server:
        assert fetched(Web([server.host]), server.url, tmp_path) == f"/there?{status}".encode()


@pytest.mark.parametrize(
    "where",
    [
        "http://169.254.169.254/",
        "https://169.254.169.254/",
        "//169.254.169.254/",
        "https://[::1]/",
        "https://metadata.google.internal/",
        "http://example.com/",
        "file:///etc/passwd",
        "https://user:pw@example.com/",
        "https://0x7f.1/",
        "https://exämple.com/",
    ],
)
def test_a_redirect_to_where_one_may_not_go_is_refused(where: str, tmp_path: Path) -> None:
    def reply(connection: Connection) -> None:
        connection.send(b"HTTP/1.1 302 Found\r\nContent-Length: 0\r\nLocation: " + where.encode() + b"\r\n\r\n")

    with Server(reply) as server:
        network = FakeNetwork(server.port)
        with pytest.raises(Forbidden, match="redirects to an address that is not allowed"):
            fetched(Web([server.host], network=network), server.url, tmp_path)

    assert network.looked_up == []
    assert len(network.connected) == 1
    assert list(tmp_path.iterdir()) == []


def test_a_redirect_to_a_name_with_a_private_address_is_refused(tmp_path: Path) -> None:
    with Server(says(302, Location="https://inside.example.com/")) as server:
        network = FakeNetwork(server.port, inside_example_com=["10.0.0.1"])
        with pytest.raises(Forbidden, match=r"inside\.example\.com leads to 10\.0\.0\.1"):
            fetched(Web([server.host], network=network), server.url, tmp_path)

    assert network.connected == ["127.0.0.1"]


def test_a_redirect_without_a_target_ends(tmp_path: Path) -> None:
    with Server(says(302)) as server, pytest.raises(Unreachable, match="more than 3 times"):
        fetched(Web([server.host]), server.url, tmp_path)


def test_the_time_is_for_all_redirects_together(tmp_path: Path) -> None:
    def reply(connection: Connection) -> None:
        if connection.request.target == "/3":
            hangs(connection)
        else:
            connection.answer(302, Location={"/": "/2", "/2": "/3"}[connection.request.target])

    with Server(reply) as server, pytest.raises(Unreachable, match=f"within {SOON_S} s"):
        fetched(Web([server.host]), server.url, tmp_path, limit_s=SOON_S)
