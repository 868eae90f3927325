"""What the side whose network is used allows: patterns ``HOST:PORT``.

| pattern | allows |
| --- | --- |
| ``host.example.org:443`` | that name, wherever it leads, and that port |
| ``192.0.2.7:22``, ``[2001:db8::7]:22``, ``192.168.1.0/24:*`` | these, also by a name that leads there |
| ``localhost:8000-8010`` | this machine, and a range of ports |
| ``*.example.org:443`` | names below that one, as far as they lead into the internet |
| ``*:443`` | the internet: neither this machine nor its network, whatever names lead there |
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from crowline.base.addresses import AddressClass, IPAddress, IPNetwork, classify
from crowline.base.errors import UsageError

_HINT = "It looks like host.example.org:443, 192.168.1.0/24:*, localhost:8000-8010 or *:443."
_PORTS = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?", re.ASCII)
_NAMES = re.compile(r"\*|(?:\*\.)?[^\s*/:]+")
ALL_PORTS = range(1, 65536)


@dataclass(frozen=True, slots=True)
class Permit:
    """`host` is a name, or a pattern of names; with a `network` it is that. `is_internet`: a plain name too
    counts only as far as it leads into the internet.
    """

    host: str
    ports: range
    network: IPNetwork | None = None
    is_internet: bool = False

    @classmethod
    def parse(cls, text: str) -> Permit:
        """Raises `UsageError` for what is no pattern."""
        host, colon, ports = text.rpartition(":")
        host = _usual(host.removeprefix("[").removesuffix("]"))
        network = _network(host)
        if not colon or (network is None and not _NAMES.fullmatch(host)):
            raise UsageError(f"{text} says not what is allowed.", hint=_HINT)
        return cls(host, _parse_ports(ports, text), network)

    @classmethod
    def exactly(cls, host: str, port: int) -> Permit:
        """One host and one port, which somebody agreed to by name."""
        host = _usual(host)
        return cls(host, range(port, port + 1), _network(host))

    def allows(self, host: str, address: str) -> bool:
        """Whether `host`, a name or an address, may be reached at `address`, to which it leads."""
        known = _address(address)
        if known is None or known.is_multicast or known.is_unspecified or str(known) == "255.255.255.255":
            return False
        if self.network is not None:
            return known in self.network
        if self.host == "localhost":
            return known.is_loopback
        if self.host == "*" or self.host.startswith("*."):
            is_named = self.host == "*" or _usual(host).endswith(self.host[1:])
            return is_named and is_open(address)
        return _usual(host) == self.host and not (self.is_internet and not is_open(address))

    def allows_listening(self, address: str, port: int) -> bool:
        """Whether that may be listened at; a star is any address, and port 0, a free one, is among all."""
        known = _address(address)
        if known is None or (port not in self.ports and (port or self.ports != ALL_PORTS)):
            return False
        if self.network is not None:
            return known in self.network
        return self.host == "*" or known.is_loopback

    def __str__(self) -> str:
        first, last = self.ports[0], self.ports[-1]
        ports = "*" if self.ports == ALL_PORTS else str(first) if first == last else f"{first}-{last}"
        return f"[{self.host}]:{ports}" if ":" in self.host else f"{self.host}:{ports}"


class Permits:
    """All that is allowed."""

    def __init__(self, permits: Iterable[Permit] = ()) -> None:
        self._permits = list(permits)

    def __bool__(self) -> bool:
        return bool(self._permits)

    def add(self, permit: Permit) -> None:
        self._permits.append(permit)

    def choose(self, host: str, port: int, addresses: Sequence[str]) -> list[str]:
        """Those of the `addresses` of `host` that may be reached at `port`."""
        open_here = [permit for permit in self._permits if port in permit.ports]
        return [each for each in addresses if any(permit.allows(host, each) for permit in open_here)]


def parse_listen_permit(text: str) -> Permit:
    """``[BIND:]PORT``, where may be listened; without an address, for this machine's own programs.

    Raises `UsageError`.
    """
    permit = Permit.parse(text if ":" in text else f"localhost:{text}")
    if permit.network is None and permit.host not in ("*", "localhost"):
        raise UsageError(f"{permit.host} is no address to listen at.")
    return permit


def says_where(host: str) -> bool:
    """Whether people see whether `host` is in this network: an address, or a name without a dot, which is."""
    return "." not in _usual(host) or _network(host) is not None


def is_open(address: str) -> bool:
    """Whether that is in the internet."""
    return classify(address) is AddressClass.OPEN


def _usual(host: str) -> str:
    return host.lower().rstrip(".")


def _address(text: str) -> IPAddress | None:
    try:
        address: IPAddress = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return address if mapped is None else mapped


def _network(host: str) -> IPNetwork | None:
    try:
        return ipaddress.ip_network(host, strict=False)
    except ValueError:
        return None


def _parse_ports(text: str, pattern: str) -> range:
    if text == "*":
        return ALL_PORTS
    match = _PORTS.fullmatch(text)
    first = int(match[1]) if match else 0
    last = int(match[2] or first) if match else 0
    if not 1 <= first <= last <= 65535:
        raise UsageError(f"{text or 'Nothing'} in {pattern} is no port.", hint=_HINT)
    return range(first, last + 1)
