"""NAT64 prefixes: IPv4 hosts written as IPv6 ones (RFC 6052), and how one is learnt (RFC 7050, RFC 8781).

A host without IPv4 reaches an IPv4 host at `Nat64Prefix.synthesize(host)`. Judge the IPv4 host by the policy
before, not what it is written as: with a network's own prefix any IPv4 address can hide in a global one, and
`Nat64Prefix.extract` says which.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Iterable
from dataclasses import dataclass

import msgspec

PREFIX_LENGTHS = (32, 40, 48, 56, 64, 96)
"""Bits before the IPv4 address; there are no others (RFC 6052 §2.2)."""

WELL_KNOWN_NAME = "ipv4only.arpa"
WELL_KNOWN_HOSTS = ("192.0.0.170", "192.0.0.171")
"""What it stands for everywhere (RFC 7050 §2.2): found in an IPv6 address, they show its prefix."""

MAX_PREFIXES = 4
"""Prefixes of one network that are worth keeping: several are for a change from one to the next."""

_RESERVED = 8  # the octet of bits 64 to 71, which is zero in every such address (RFC 6052 §2.2)
_PLACES = {
    length: tuple([at for at in range(length // 8, 16) if at != _RESERVED][:4]) for length in PREFIX_LENGTHS
}

# What no network translates by: these addresses mean something on every host.
_NEVER = tuple(
    ipaddress.IPv6Network(text) for text in ("::/32", "2001::/32", "2002::/16", "fe80::/10", "ff00::/8")
)

# RFC 8781 §4: type, length in units of 8 bytes, 13 bits of lifetime in units of 8 s, 3 bits of prefix length.
_OPTION = struct.Struct("!BBH12s")
_OPTION_TYPE = 38
_OPTION_LENGTHS = (96, 64, 56, 48, 40, 32)


@dataclass(frozen=True, slots=True)
class Nat64Prefix:
    """A prefix that some network translates by.

    Raises `ValueError` for a length that RFC 6052 does not know, for bits 64 to 71 that are not zero, and for
    a range in which there is no translator.
    """

    network: ipaddress.IPv6Network

    def __post_init__(self) -> None:
        if self.network.prefixlen not in PREFIX_LENGTHS:
            raise ValueError(f"a NAT64 prefix has no {self.network.prefixlen} bits")
        if self.network.network_address.packed[_RESERVED]:
            raise ValueError("bits 64 to 71 of a NAT64 prefix are zero")
        if any(self.network.overlaps(never) for never in _NEVER):
            raise ValueError(f"{self.network} is no NAT64 prefix")

    @classmethod
    def parse(cls, text: str) -> Nat64Prefix:
        """From text such as ``64:ff9b::/96``. Raises `ValueError`."""
        return cls(ipaddress.IPv6Network(text))

    def synthesize(self, host: str) -> str:
        """The IPv6 host that stands for an IPv4 one. Raises `ValueError` for text that is no IPv4 address."""
        packed = bytearray(self.network.network_address.packed)
        for at, byte in zip(_PLACES[self.network.prefixlen], ipaddress.IPv4Address(host).packed, strict=True):
            packed[at] = byte
        return str(ipaddress.IPv6Address(bytes(packed)))

    def extract(self, host: str) -> str | None:
        """The IPv4 host that an IPv6 one stands for; ``None`` where it stands for itself."""
        try:
            address = ipaddress.IPv6Address(host)
        except ValueError:
            return None
        if address not in self.network:
            return None
        return _inside(address.packed, self.network.prefixlen)

    def __str__(self) -> str:
        return str(self.network)


class Pref64(msgspec.Struct, frozen=True):
    """What a router says: a prefix and for how many seconds it is good; 0 takes it back."""

    prefix: Nat64Prefix
    lifetime: int


def find_prefixes(hosts: Iterable[str]) -> list[Nat64Prefix]:
    """The prefixes in the IPv6 addresses that a resolver gave for `WELL_KNOWN_NAME`, in their order.

    Where a well-known address is found at two places of one address, the place counts at which the answer
    has both of them (RFC 7050 §3); an address that stays ambiguous says nothing.
    """
    seen: dict[Nat64Prefix, set[str]] = {}
    readings: list[list[Nat64Prefix]] = []
    for host in hosts:
        found = _readings(host)
        readings.append([prefix for prefix, _ in found])
        for prefix, inside in found:
            seen.setdefault(prefix, set()).add(inside)
    prefixes: dict[Nat64Prefix, None] = {}
    for reading in readings:
        if len(reading) > 1:
            reading = [prefix for prefix in reading if len(seen[prefix]) == len(WELL_KNOWN_HOSTS)]
        if len(reading) == 1:
            prefixes[reading[0]] = None
    return list(prefixes)[:MAX_PREFIXES]


def read_pref64(option: bytes) -> Pref64 | None:
    """A router's PREF64 option, header included (RFC 8781 §4); ``None`` if it is none or broken."""
    if len(option) != _OPTION.size:
        return None
    kind, units, scaled, start = _OPTION.unpack(option)
    code = scaled & 7
    if kind != _OPTION_TYPE or units * 8 != _OPTION.size or code >= len(_OPTION_LENGTHS):
        return None
    try:
        network = ipaddress.IPv6Network((start + bytes(4), _OPTION_LENGTHS[code]), strict=False)
        return Pref64(Nat64Prefix(network), scaled & ~7)
    except ValueError:
        return None


def _readings(host: str) -> list[tuple[Nat64Prefix, str]]:
    """Every prefix that `host` may have been made with, and the well-known host that is inside."""
    found: list[tuple[Nat64Prefix, str]] = []
    try:
        packed = ipaddress.IPv6Address(host).packed
    except ValueError:
        return found
    for length in PREFIX_LENGTHS:
        inside = _inside(packed, length)
        if packed[_RESERVED] or inside not in WELL_KNOWN_HOSTS:
            continue
        try:
            prefix = Nat64Prefix(ipaddress.IPv6Network((packed, length), strict=False))
        except ValueError:
            continue
        found.append((prefix, inside))
    return found


def _inside(packed: bytes, length: int) -> str:
    return str(ipaddress.IPv4Address(bytes(packed[at] for at in _PLACES[length])))
