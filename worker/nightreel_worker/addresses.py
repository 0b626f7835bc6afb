"""Which web addresses a worker may talk to. Jobs are untrusted: their addresses must not lead into our own network.

Two gates: `WebAddress.of` looks at the text of a URL, before anything is asked of anyone; `is_public` looks at each
address that the name then turns out to have. Hosts that the operator trusts may speak plain http and be private.
"""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address, IPv6Address, ip_address, ip_network
from typing import Self
from urllib.parse import SplitResult, urlsplit

from .errors import Forbidden

MAX_URL_CHARS = 2000
MAX_HOST_CHARS = 253
DEFAULT_PORTS = {"https": 443, "http": 80}
FIRST_FREE_PORT = 1024  # below it, only 443: the rest belongs to mail, shells and the like

_NETLOC = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._-]+)(:[0-9]{1,5})?")  # what _host and _port rely on
_HAS_PORT = re.compile(r":[0-9]+$")
_LABEL = re.compile(r"[a-z0-9_]([a-z0-9_-]{0,61}[a-z0-9_])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_PRIVATE_ENDINGS = (
    "localhost", "localdomain", "local", "internal", "intranet", "private", "corp", "home", "lan", "arpa", "test",
)  # fmt: skip

# What Python's is_global lets through in some version, or what is public by its number only.
_NEVER = tuple(
    ip_network(text)
    for text in (
        "168.63.129.16/32",  # Azure's metadata
        "192.0.0.0/24",  # protocol assignments, and Oracle's metadata
        "192.88.99.0/24",  # 6to4 relays
        "2001::/23",  # Teredo and other protocol assignments
        "2002::/16",  # 6to4: any IPv4 address in IPv6's clothes
        "3fff::/20",  # documentation
    )
)
_GLOBAL_UNICAST = ip_network("2000::/3")
_NAT64 = ip_network("64:ff9b::/96")


@dataclass(frozen=True, slots=True)
class WebAddress:
    """A URL that was looked at: https, or a host that the operator trusts."""

    scheme: str
    host: str
    """Lower case; an IPv6 address without its brackets."""
    port: int
    target: str
    """Path and query. May hold a token: never to be logged."""
    trusted: bool

    @classmethod
    def of(cls, url: str, trusted_hosts: Collection[str] = ()) -> Self:
        """Read a URL. Raises Forbidden for one that must not be asked; nothing is looked up."""
        parts = _split(url)
        host, port = _host(parts), _port(parts)
        trusted = host_name(host) in trusted_hosts or f"{host_name(host)}:{port}" in trusted_hosts
        if parts.scheme not in DEFAULT_PORTS or (parts.scheme == "http" and not trusted):
            raise Forbidden(
                f"{host}: only https addresses are allowed: write https://, or ask the operator to trust it"
            )
        if not trusted:
            _check_host(host)
            _check_port(host, port)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        return cls(parts.scheme, host, port, target, trusted)

    @property
    def authority(self) -> str:
        """Host and port as the Host header has them."""
        name = host_name(self.host)
        return name if self.port == DEFAULT_PORTS[self.scheme] else f"{name}:{self.port}"

    @property
    def origin(self) -> str:
        """What may be said of it in logs and errors."""
        return f"{self.scheme}://{self.authority}"

    @property
    def is_literal(self) -> bool:
        """Is the host an IP address?"""
        return _literal(self.host) is not None

    def check_resolved(self, addresses: Collection[str]) -> None:
        """Raises Forbidden when one of the addresses that the name has is not public, unless the host is trusted."""
        if not self.trusted and (wrong := [each for each in addresses if not is_public(each)]):
            raise Forbidden(f"{self.host} leads to {wrong[0]}, which is not a public address: {_TRUST}")


_TRUST = "use a public host, or ask the operator to name it in NIGHTREEL_TRUSTED_HOSTS"


def trusted_host(text: str) -> str:
    """One `host` or `host:port` that an operator trusts, as `WebAddress.of` compares it. Raises ValueError."""
    try:
        parts = _split(f"https://{text}")
        host, port = host_name(_host(parts)), _port(parts)
    except Forbidden as exc:
        raise ValueError(f"{text!r} is no host: write host or host:port ({exc})") from exc
    if parts.path or parts.query:
        raise ValueError(f"{text!r} is no host: write host or host:port")
    return f"{host}:{port}" if _HAS_PORT.search(parts.netloc) else host


def is_public(text: str) -> bool:
    """Is an IP address one of the public internet's, and of one machine? Embedded IPv4 addresses are looked at too."""
    try:
        address = ip_address(text)
    except ValueError:
        return False
    if isinstance(address, IPv6Address):
        if address.ipv4_mapped is not None:
            return is_public(str(address.ipv4_mapped))
        if address in _NAT64 and not address.scope_id:
            return is_public(str(IPv4Address(int(address) & 0xFFFFFFFF)))
        if address not in _GLOBAL_UNICAST or address.scope_id:
            return False
    return address.is_global and not address.is_multicast and not any(address in network for network in _NEVER)


def host_name(host: str) -> str:
    """A host as a URL writes it: IPv6 addresses in brackets."""
    return f"[{host}]" if ":" in host else host


def _split(url: str) -> SplitResult:
    if len(url) > MAX_URL_CHARS:
        raise Forbidden(f"the address has {len(url)} characters; {MAX_URL_CHARS} are allowed: shorten it")
    if not re.fullmatch(r"[!-~]*", url) or "\\" in url:
        raise Forbidden(
            "the address has blanks, backslashes or characters beyond ASCII: write %20 and the like, and hosts as xn--…"
        )
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        raise Forbidden(f"the address cannot be read ({exc}): write https://HOST/PATH") from exc
    if "@" in parts.netloc:
        raise Forbidden("the address has a user or password before its host: leave them out")
    if "#" in url:
        raise Forbidden("the address has a #: leave out what follows it")
    return parts


def _host(parts: SplitResult) -> str:
    host = parts.hostname or ""
    if not _NETLOC.fullmatch(parts.netloc):
        raise Forbidden(f"{parts.netloc[:80]!r} is no host that can be asked: write https://HOST/PATH")
    if _ends_in_number(host):
        return str(_ipv4(host))
    if (literal := _literal(host)) is not None:
        return str(literal)
    if len(host) > MAX_HOST_CHARS or not all(map(_LABEL.fullmatch, host.split("."))):
        raise Forbidden(f"{host[:80]!r} is no host that can be asked: check its spelling")
    return host


def _ends_in_number(host: str) -> bool:
    """Would the C library take it for an IPv4 address? It does so for 127.1, 0x7f.1 and 2130706433."""
    return ":" not in host and _NUMBER.fullmatch(host.rpartition(".")[2]) is not None


def _ipv4(host: str) -> IPv4Address:
    try:
        return IPv4Address(host)
    except AddressValueError as exc:
        raise Forbidden(f"{host[:80]} is an odd way to write an IP address: write four decimal numbers") from exc


def _literal(host: str) -> IPv4Address | IPv6Address | None:
    try:
        return ip_address(host)
    except ValueError:
        return None


def _port(parts: SplitResult) -> int:
    port = int(parts.netloc.rpartition(":")[2]) if _HAS_PORT.search(parts.netloc) else None
    if port is not None and not 0 < port < 2**16:
        raise Forbidden(f"port {port} does not exist: leave it out, or give a number from 1 to 65535")
    return port or DEFAULT_PORTS.get(parts.scheme, DEFAULT_PORTS["https"])


def _check_host(host: str) -> None:
    if _literal(host) is not None:
        if not is_public(host):
            raise Forbidden(f"{host} is not a public address: {_TRUST}")
    elif "." not in host or host.rpartition(".")[2] in _PRIVATE_ENDINGS:
        raise Forbidden(f"{host} is a name inside somebody's network: {_TRUST}")


def _check_port(host: str, port: int) -> None:
    if port != DEFAULT_PORTS["https"] and port < FIRST_FREE_PORT:
        raise Forbidden(f"{host}: port {port} is not allowed: use 443, or one from {FIRST_FREE_PORT} upwards")
