"""What a self-hoster may set. The defaults are meant to be used."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from crowline.base.addresses import Address, IPNetwork
from crowline.base.errors import UsageError
from crowline.base.secrets import Secret
from crowline.rendezvous.limits import HubLimits
from crowline.stun.budget import BINDING, Allowance
from crowline.turn.auth import DEFAULT_REALM
from crowline.turn.quota import Limits

HUB_PORT = 8080
STUN_PORT = 3478
"""RFC 8489 §8.1."""
TLS_PORT = 443
"""The one that every network lets out."""

ANYWHERE = "::"
"""All addresses of this machine, IPv6 and IPv4; IPv4 alone where there is no IPv6."""

TURN_LIFETIME = 6 * 3600
"""Seconds in which TURN credentials open new allocations; they are good for their meeting only."""

DRAIN_TIME = 30.0
"""Seconds that a server which was told to end waits for what is still in use."""

_HUB = Address(ANYWHERE, HUB_PORT)
_STUN = Address(ANYWHERE, STUN_PORT)
_LIMITS = HubLimits()


@dataclass(frozen=True, slots=True)
class TlsConfig:
    """STUN, TURN and the hub over TLS, on one port."""

    listen: Address
    cert: Path
    key: Path


@dataclass(frozen=True, slots=True)
class ServerConfig:
    """One server. Ports may be 0: any free one."""

    listen: Address = _HUB
    stun_listen: Address = _STUN
    alternate_address: str | None = None
    """A second IP address of this machine for NAT discovery (RFC 5780)."""
    public_address: str | None = None
    """The IP address by which clients reach STUN and TURN, where it is not the one they reach the hub at."""
    relay_ports: tuple[int, int] = (49152, 65535)
    """Lowest and highest relay port (RFC 8656 §7.2)."""
    allow_peers: tuple[IPNetwork, ...] = ()
    """Private ranges to which TURN may relay."""
    allow_loopback: bool = False
    """Whether TURN may relay to this machine's loopback: for tests."""
    trusted_proxies: tuple[IPNetwork, ...] = ()
    """Reverse proxies that are believed when they say for whom they connect (X-Forwarded-For)."""
    limits: HubLimits = _LIMITS
    motd: str = ""
    origins: tuple[str, ...] = ()
    """Web pages that may connect from browsers."""
    tls: TlsConfig | None = None
    users: Mapping[str, Secret] = field(default_factory=dict)
    """TURN users with their passwords; they may relay to all public addresses."""
    auth_secret: Secret | None = None
    """With it other services issue expiring TURN credentials; their users may do what `users` may."""
    realm: str = DEFAULT_REALM
    turn_limits: Limits | None = None
    binding: Allowance = BINDING
    """Binding answers for one source."""
    workers: int = 1
    """Processes that carry UDP; with one, this process does."""
    drain: float = DRAIN_TIME
    alternate_server: Address | None = None
    """Where clients are sent while this server ends (RFC 8489 §10)."""


def parse_endpoint(text: str, default_port: int) -> Address:
    """`ADDR:PORT`, `ADDR`, `:PORT`, with IPv6 in brackets before a port. Raises `UsageError`."""
    host, port = _split_port(text.strip())
    try:
        if not port:
            return Address.parse(host or ANYWHERE, default_port)
        if not (port.isascii() and port.isdigit()):
            raise ValueError
        return Address.parse(host or ANYWHERE, int(port))
    except ValueError:
        raise UsageError(
            f"{text!r} is not an address to listen on.",
            hint="Write it like 192.0.2.1:8080 or [2001:db8::1]:8080.",
        ) from None


def parse_host(text: str) -> str:
    """One IP address. Raises `UsageError`."""
    try:
        return Address.parse(text.strip(), 0).host
    except ValueError:
        raise UsageError(f"{text!r} is not an IP address.", hint="Names are not looked up here.") from None


def parse_network(text: str) -> IPNetwork:
    """One range in CIDR form, without a zone. Raises `UsageError`."""
    try:
        if "%" in text:
            raise ValueError
        return ipaddress.ip_network(text.strip())
    except ValueError:
        raise UsageError(
            f"{text!r} is not a range of addresses.",
            hint="Write it like 192.168.0.0/16, with no bits after it.",
        ) from None


def parse_ports(text: str) -> tuple[int, int]:
    """`LO-HI`. Raises `UsageError`."""
    low, dash, high = text.strip().partition("-")
    plain = low.isascii() and low.isdigit() and high.isascii() and high.isdigit()
    if dash and plain and len(text) < 20 and 1024 <= int(low) <= int(high) <= 65535:
        return int(low), int(high)
    raise UsageError(f"{text!r} is not a range of ports.", hint="Write it like 50000-60000, from 1024 up.")


def parse_size(text: str) -> int:
    """Bytes: digits, or digits with K, M or G (1024, its square, its cube). Raises `UsageError`."""
    plain = text.strip().upper().removesuffix("IB").removesuffix("B")
    unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(plain[-1:], 1)
    digits = plain[:-1] if unit > 1 else plain
    if not (digits.isascii() and digits.isdigit()) or len(digits) > 15:
        raise UsageError(f"{text!r} is not a size.", hint="Write it like 4M.")
    return int(digits) * unit


def _split_port(text: str) -> tuple[str, str]:
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        return (host, rest.removeprefix(":")) if bracket else (text, "")
    if text.count(":") == 1:
        host, _, port = text.partition(":")
        return host, port
    return text, ""
