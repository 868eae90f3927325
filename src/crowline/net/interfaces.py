"""The addresses of this machine, and what an ICE agent wants to know of each (RFC 8445 §5.1.1.1)."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Iterable
from enum import Enum

from msgspec import Struct

from crowline.base.addresses import Address, IPNetwork
from crowline.net import rtnetlink as rt
from crowline.net.netlink import Netlink, Tables

# Addresses to gather from: enough for every real host, few enough for a host with a thousand containers.
MAX_ADDRESSES = 8


class InterfaceKind(Enum):
    """What an interface leads to, as far as its driver or its name tells."""

    ORDINARY = "ordinary"
    """A cable, a radio, or whatever else is not known to be one of the others."""
    TUNNEL = "tunnel"
    """A VPN, or another network inside of this one."""
    VIRTUAL = "virtual"
    """Containers and virtual machines on this machine."""
    LOOPBACK = "loopback"


class InterfaceAddress(Struct, frozen=True):
    """One address of one interface; `index` is the system's number for the interface, 0 where it tells none.

    Systems other than Linux do not tell what makes an address temporary, deprecated or tentative, nor whether
    an interface is running: there they are taken for stable, preferred, valid and running.
    """

    host: str
    prefix_length: int
    interface: str
    index: int = 0
    kind: InterfaceKind = InterfaceKind.ORDINARY
    is_running: bool = True
    is_temporary: bool = False
    """Random, and another one tomorrow (RFC 8981)."""
    is_deprecated: bool = False
    """Good for what goes on, not for what begins (RFC 4862 §5.5.4)."""
    is_tentative: bool = False
    """Not to be used: not proven unique yet, or proven not to be (RFC 4862 §5.4)."""

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host

    @property
    def network(self) -> IPNetwork:
        return ipaddress.ip_network(f"{self.host}/{self.prefix_length}", strict=False)

    @property
    def is_link_local(self) -> bool:
        return ipaddress.ip_address(self.host).is_link_local

    @property
    def is_loopback(self) -> bool:
        return self.kind is InterfaceKind.LOOPBACK or ipaddress.ip_address(self.host).is_loopback

    @property
    def is_usable(self) -> bool:
        """Whether packets can be sent from it, now."""
        return self.is_running and not self.is_tentative

    @property
    def shows_hardware(self) -> bool:
        """Whether it was made from the hardware's number, by which the machine is known (RFC 7721)."""
        return self.is_ipv6 and ipaddress.ip_address(self.host).packed[11:13] == b"\xff\xfe"


def interface_addresses() -> list[InterfaceAddress]:
    """Every address of every interface, loopback and link-local ones included, the preferred first."""
    try:
        with Netlink() as netlink:
            tables = netlink.tables()
            ways = [netlink.route_towards(host) for host in _SOMEWHERE]
    except OSError:
        sources = [source_towards(Address(host, 9)) for host in _SOMEWHERE]
        found = _from_adapters() or _from_sources(sources)
        outgoing = {each.index for each in found if each.host in sources}
    else:
        found = _from_tables(tables)
        outgoing = {way.device for way in ways if way is not None}
    return preferred(found, outgoing)


def preferred(addresses: Iterable[InterfaceAddress], outgoing: Iterable[int] = ()) -> list[InterfaceAddress]:
    """The same in the order of preference that RFC 6724 §5 has for sources, without a destination.

    Usable before unusable, not deprecated before deprecated, interfaces that lead to the internet (their
    indexes are `outgoing`) before others, real ones before tunnels before virtual ones, the family and range
    of higher precedence (§2.1), temporary before stable. Equal ones stay as they are.
    """
    leading = set(outgoing)

    def rank(each: InterfaceAddress) -> tuple[bool, bool, bool, bool, bool, int, int, bool]:
        return (
            each.is_loopback,
            not each.is_usable,
            each.is_link_local,
            each.is_deprecated,
            each.index not in leading,
            _KINDS.index(each.kind),
            -_precedence(each.host),
            not each.is_temporary,
        )

    return sorted(addresses, key=rank)


def local_addresses(*, loopback: bool = False) -> list[str]:
    """The unicast addresses to gather from, IPv4 first; IPv6 link-local ones are left out.

    Within a family the preferred ones come first. An address that shows the hardware is left out where the
    same interface has a temporary one of its network (RFC 8445 §5.1.1.1). Loopback addresses only where
    `loopback` says that the other side may be on this machine.
    """
    known = interface_addresses()
    hidden = {(each.index, each.network) for each in known if each.is_temporary and each.is_usable}
    found: dict[str, bool] = {}
    for each in known:
        address = ipaddress.ip_address(each.host)
        if address.is_link_local or address.is_multicast or address.is_unspecified or each.is_tentative:
            continue
        if each.shows_hardware and (each.index, each.network) in hidden:
            continue
        if not each.is_loopback or loopback:
            found.setdefault(each.host, each.is_loopback)
    ipv4, ipv6 = ([text for text in found if (":" in text) is wanted] for wanted in (False, True))
    # Neither family crowds the other out: either may hold the only direct path.
    half = MAX_ADDRESSES // 2
    ipv4 = ipv4[: max(half, MAX_ADDRESSES - len(ipv6))]
    return ipv4 + ipv6[: MAX_ADDRESSES - len(ipv4)]


def usable_hosts() -> set[str]:
    """All addresses that packets can be sent from, now; more than anyone would gather from."""
    return {each.host for each in interface_addresses() if each.is_usable}


def source_towards(destination: Address) -> str | None:
    """The local address that packets to `destination` would leave by; None without a route, and where this
    machine knows nothing of the family.
    """
    family = socket.AF_INET6 if destination.is_ipv6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((destination.host, destination.port or 9))
            return str(probe.getsockname()[0])
    except OSError:
        return None


def _from_tables(tables: Tables) -> list[InterfaceAddress]:
    """What Linux tells."""
    found: list[InterfaceAddress] = []
    for entry in tables.addresses:
        link = tables.links.get(entry.device)
        if link is None:  # gone between the two questions
            continue
        is_ipv6 = ":" in entry.host
        is_tentative = bool(entry.flags & rt.TENTATIVE) and not entry.flags & rt.OPTIMISTIC
        found.append(
            InterfaceAddress(
                entry.host,
                entry.prefix_length,
                link.name,
                link.device,
                _kind_of_link(link),
                is_running=bool(link.flags & rt.UP and link.flags & rt.RUNNING),
                is_temporary=is_ipv6 and bool(entry.flags & rt.TEMPORARY),
                is_deprecated=is_ipv6 and bool(entry.flags & rt.DEPRECATED),
                is_tentative=is_ipv6 and (is_tentative or bool(entry.flags & rt.DUPLICATE)),
            )
        )
    return found


def _from_adapters() -> list[InterfaceAddress]:
    """What every system tells; nothing in a sandbox, and where some interface has an odd mask."""
    # Looking for the C library, it runs another program as it is imported.
    import ifaddr

    found: list[InterfaceAddress] = []
    try:
        adapters = list(ifaddr.get_adapters())
    except (OSError, ValueError, AssertionError):
        return found
    for adapter in adapters:
        for entry in adapter.ips:
            host = str(ipaddress.ip_address(entry.ip if isinstance(entry.ip, str) else entry.ip[0]))
            if ipaddress.ip_address(host).is_loopback:
                kind = InterfaceKind.LOOPBACK
            else:
                kind = _kind_of_name(adapter.nice_name)
            name = adapter.name if isinstance(adapter.name, str) else adapter.nice_name
            found.append(InterfaceAddress(host, entry.network_prefix, name, adapter.index or 0, kind))
    return found


def _from_sources(sources: Iterable[str | None]) -> list[InterfaceAddress]:
    """What packets to the internet leave by, which no system keeps secret."""
    return [
        InterfaceAddress(host, ipaddress.ip_address(host).max_prefixlen, "")
        for host in dict.fromkeys(sources)
        if host is not None
    ]


def _kind_of_link(link: rt.Link) -> InterfaceKind:
    if link.flags & rt.LOOPBACK:
        return InterfaceKind.LOOPBACK
    if link.kind in _TUNNEL_DRIVERS or link.device_type in _TUNNEL_TYPES or link.flags & rt.POINT_TO_POINT:
        return InterfaceKind.TUNNEL
    if link.kind in _VIRTUAL_DRIVERS:
        return InterfaceKind.VIRTUAL
    return InterfaceKind.ORDINARY


def _kind_of_name(name: str) -> InterfaceKind:
    lower = name.lower()
    if any(lower.startswith(start) for start in _TUNNEL_NAMES):
        return InterfaceKind.TUNNEL
    if any(lower.startswith(start) for start in _VIRTUAL_NAMES):
        return InterfaceKind.VIRTUAL
    return InterfaceKind.ORDINARY


def _precedence(host: str) -> int:
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return _IPV4_PRECEDENCE
    return next((value for network, value in _PRECEDENCES if address in network), _IPV6_PRECEDENCE)


# Which interface leads to the internet: a route is looked up, nothing is sent.
_SOMEWHERE = ("1.1.1.1", "2606:4700:4700::1111")

_KINDS = (InterfaceKind.ORDINARY, InterfaceKind.TUNNEL, InterfaceKind.VIRTUAL, InterfaceKind.LOOPBACK)

# RFC 6724 §2.1; IPv4 stands there as ::ffff:0:0/96.
_IPV6_PRECEDENCE, _IPV4_PRECEDENCE = 40, 35
_PRECEDENCES = tuple(
    (ipaddress.IPv6Network(text), value)
    for text, value in (
        ("2002::/16", 30),
        ("2001::/32", 5),
        ("fc00::/7", 3),
        ("fec0::/10", 1),
        ("3ffe::/16", 1),
    )
)

_TUNNEL_DRIVERS = {
    "tun", "wireguard", "ipip", "ip6tnl", "sit", "gre", "ip6gre", "gretap", "ip6gretap", "vti", "vti6",
    "xfrm", "vxlan", "geneve", "ppp", "l2tp", "amt", "ovpn",
}  # fmt: skip
# linux/if_arp.h: PPP, IPIP, IP6TNL, SIT, IPGRE, IP6GRE, and devices without a link layer
_TUNNEL_TYPES = {512, 768, 769, 776, 778, 823, 0xFFFE}
_VIRTUAL_DRIVERS = {"bridge", "veth", "dummy", "ifb", "macvtap", "netkit", "nlmon", "vcan", "openvswitch"}
# Names that BSD, macOS and Windows give, or the programs that make the interface.
_TUNNEL_NAMES = (
    "tun", "tap", "utun", "ppp", "wg", "ipsec", "gif", "stf", "tailscale", "zt", "wireguard", "openvpn",
    "teredo", "isatap", "6to4",
)  # fmt: skip
_VIRTUAL_NAMES = (
    "bridge", "docker", "br-", "veth", "vethernet", "vmnet", "vmware", "vboxnet",
    "virtualbox", "virbr", "anpi", "awdl", "llw",
)  # fmt: skip
