"""Transport addresses, and the one policy that says which of them may be talked to.

The policy judges in four steps: canonicalise, unwrap addresses that hide in others, classify every form,
decide. It judges whatever a stranger names: TURN peers, remote candidates, punch targets, gateway URLs,
alternate servers. Deny by default: what is not known to be global unicast is not talked to.
"""

from __future__ import annotations

import functools
import ipaddress
from collections.abc import Iterable
from enum import IntEnum
from typing import TypeAlias

import msgspec

IPAddress: TypeAlias = ipaddress.IPv4Address | ipaddress.IPv6Address
IPNetwork: TypeAlias = ipaddress.IPv4Network | ipaddress.IPv6Network


class Address(msgspec.Struct, frozen=True, order=True, gc=False):
    """An IP address in its canonical text form and a port, 0 to 65535.

    Build it with `Address.parse` from text of unknown form; the constructor trusts its caller.
    """

    host: str
    port: int

    @classmethod
    def parse(cls, host: str, port: int) -> Address:
        """Canonicalise `host`. Raises `ValueError` for a name, a zone id or a port out of range."""
        if "%" in host:
            raise ValueError("an address with a zone id is not a transport address")
        if not 0 <= port <= 65535:
            raise ValueError(f"port {port} is out of range")
        return cls(str(ipaddress.ip_address(host)), port)

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def packed(self) -> bytes:
        """The IP address in network byte order: 4 or 16 bytes."""
        return ipaddress.ip_address(self.host).packed

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if self.is_ipv6 else f"{self.host}:{self.port}"


class AddressClass(IntEnum):
    """How far an address may be trusted with a datagram; the greater, the less."""

    OPEN = 0
    """Global unicast."""
    CLOSED = 1
    """Private, shared, link-local, benchmark, documentation: talked to only when a range is named."""
    NEVER = 2
    """Loopback, multicast, broadcast, unspecified, metadata services, tunnels, unassigned."""


class AddressPolicy:
    """Which addresses may be talked to: open ones, and closed ones inside a range of `allow`.

    No range opens what is `AddressClass.NEVER`. `allow_loopback` is for tests on one machine.
    """

    def __init__(self, allow: Iterable[IPNetwork] = (), allow_loopback: bool = False) -> None:
        self._allow = tuple(allow)
        self._allow_loopback = allow_loopback

    def permits(self, address: Address) -> bool:
        """Whether every form of the address is permitted; port 0 never is."""
        if not 1 <= address.port <= 65535:
            return False
        forms = _forms(address.host)
        return bool(forms) and all(self._permits_form(form) for form in forms)

    def _permits_form(self, form: IPAddress) -> bool:
        if self._allow_loopback and form.is_loopback:
            return True
        kind = _classify_form(form)
        if kind is AddressClass.CLOSED:
            return any(form in network for network in self._allow)
        return kind is AddressClass.OPEN


@functools.lru_cache(maxsize=4096)
def classify(host: str) -> AddressClass:
    """The worst class of all the forms of an address. What is no address at all, or has a zone, is NEVER."""
    return max((_classify_form(form) for form in _forms(host)), default=AddressClass.NEVER)


@functools.lru_cache(maxsize=4096)
def hidden_host(host: str) -> str | None:
    """The IPv4 address at which packets to that IPv6 address may end, if one hides in it."""
    forms = _forms(host)
    return str(forms[1]) if len(forms) > 1 else None


def is_shared(host: str) -> bool:
    """Whether carriers share that address among customers, between two translators (RFC 6598)."""
    return any(form in _SHARED for form in _forms(host)[:1])


def _forms(host: str) -> list[IPAddress]:
    """The address and those that hide in it; empty for text that is no plain address."""
    if "%" in host:
        return []
    try:
        form: IPAddress = ipaddress.ip_address(host)
    except ValueError:
        return []
    inner = _inner(form)
    return [form] if inner is None else [form, inner]


def _inner(form: IPAddress) -> ipaddress.IPv4Address | None:
    """The IPv4 address in the last four bytes of the embeddings that are not refused as such."""
    if isinstance(form, ipaddress.IPv4Address):
        return None
    is_isatap = form.packed[8:12] in _ISATAP
    if is_isatap or any(form in prefix for prefix in _TRANSPARENT):
        return ipaddress.IPv4Address(form.packed[12:])
    return None


def _classify_form(form: IPAddress) -> AddressClass:
    """The class of the longest matching range: the order in which a routing table decides."""
    best = _DEFAULT[form.version]
    longest = -1
    for network, kind in _RANGES[form.version]:
        if network.prefixlen > longest and form in network:
            best, longest = kind, network.prefixlen
    return best


# RFC 5214 §6.1: an interface identifier that ends in an IPv4 address.
_ISATAP = (b"\x00\x00\x5e\xfe", b"\x02\x00\x5e\xfe")

# IPv4-mapped (RFC 4291 §2.5.5.2) and the well-known NAT64 prefix (RFC 6052 §2.1): their packets end at the
# IPv4 address inside, so that address is judged. Every other embedding is NEVER in the table below.
_SHARED = ipaddress.IPv4Network("100.64.0.0/10")
_TRANSPARENT = (ipaddress.IPv6Network("::ffff:0:0/96"), ipaddress.IPv6Network("64:ff9b::/96"))

# What no range says: IPv4 is global unicast, IPv6 is unassigned.
_DEFAULT = {4: AddressClass.OPEN, 6: AddressClass.NEVER}

# The IANA special-purpose address registries for IPv4 and IPv6, the IPv6 address space registry, and the
# addresses at which clouds serve credentials to whoever asks from the inside.
_NEVER = """
    0.0.0.0/8              this network, RFC 791
    127.0.0.0/8            loopback, RFC 1122
    192.88.99.0/24         6to4 relay anycast, RFC 7526
    224.0.0.0/4            multicast, RFC 5771
    240.0.0.0/4            reserved and limited broadcast, RFC 1112, RFC 8190
    169.254.169.254/32     metadata of most clouds
    169.254.170.2/32       container credentials of Amazon ECS
    169.254.170.23/32      pod credentials of Amazon EKS
    168.63.129.16/32       Azure WireServer
    100.100.100.200/32     metadata of Alibaba Cloud
    192.0.0.192/32         metadata of Oracle Cloud
    ::/96                  unspecified, loopback and IPv4-compatible, RFC 4291
    ::ffff:0:0:0/96        IPv4-translated, RFC 2765
    64:ff9b:1::/48         local-use NAT64, RFC 8215: what is inside depends on a site we do not know
    100::/64               discard-only, RFC 6666
    100:0:0:1::/64         dummy prefix, RFC 9780
    2001::/32              Teredo, RFC 4380; RFC 8656 §21.4 forbids it
    2002::/16              6to4, RFC 3056; RFC 8656 §21.4 forbids it
    5f00::/16              segment routing identifiers, RFC 9602
    ff00::/8               multicast, RFC 4291
    fd00:ec2::254/128      metadata of Amazon EC2
    fd00:ec2::23/128       pod credentials of Amazon EKS
    fd20:ce::254/128       metadata of Google Cloud
"""
_CLOSED = """
    10.0.0.0/8             private, RFC 1918
    100.64.0.0/10          shared by carriers, RFC 6598
    169.254.0.0/16         link-local, RFC 3927
    172.16.0.0/12          private, RFC 1918
    192.0.0.0/24           protocol assignments, RFC 6890
    192.0.2.0/24           documentation, RFC 5737
    192.168.0.0/16         private, RFC 1918
    198.18.0.0/15          benchmarks, RFC 2544
    198.51.100.0/24        documentation, RFC 5737
    203.0.113.0/24         documentation, RFC 5737
    2001::/23              protocol assignments, RFC 2928
    2001:db8::/32          documentation, RFC 3849
    3fff::/20              documentation, RFC 9637
    fc00::/7               unique local, RFC 4193
    fe80::/10              link-local, RFC 4291
    fec0::/10              site-local, RFC 3879
"""
_OPEN = """
    ::ffff:0:0/96          IPv4-mapped, RFC 4291: the address inside decides
    64:ff9b::/96           well-known NAT64, RFC 6052: the address inside decides
    2000::/3               global unicast, RFC 4291
    2001:1::1/128          Port Control Protocol anycast, RFC 7723
    2001:1::2/128          TURN anycast, RFC 8155
    2001:3::/32            automatic multicast tunnelling, RFC 7450
    2001:4:112::/48        AS112, RFC 7535
    192.0.0.9/32           Port Control Protocol anycast, RFC 7723
    192.0.0.10/32          TURN anycast, RFC 8155
"""


def _ranges() -> dict[int, list[tuple[IPNetwork, AddressClass]]]:
    ranges: dict[int, list[tuple[IPNetwork, AddressClass]]] = {4: [], 6: []}
    tables = ((_NEVER, AddressClass.NEVER), (_CLOSED, AddressClass.CLOSED), (_OPEN, AddressClass.OPEN))
    for text, kind in tables:
        for line in text.strip().splitlines():
            network: IPNetwork = ipaddress.ip_network(line.split()[0])
            ranges[network.version].append((network, kind))
    return ranges


_RANGES = _ranges()
