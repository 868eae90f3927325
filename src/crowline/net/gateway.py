"""The routers by which packets leave this machine for the internet, one for each interface and family."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from crowline.net.interfaces import InterfaceAddress, InterfaceKind, interface_addresses
from crowline.net.netlink import Netlink
from crowline.net.route_listing import DefaultRoute, listed_default_routes

# More ways out than any machine has that people sit at.
MAX_GATEWAYS = 16


@dataclass(frozen=True, slots=True)
class Gateway:
    """A router. `source` is this machine's address towards it, of the same family.

    `host` is link-local where IPv6 has it so; `index` and `interface` say on which network that is.
    """

    host: str
    source: str
    index: int
    interface: str

    @property
    def is_ipv6(self) -> bool:
        return ":" in self.host


def default_gateways() -> list[Gateway]:
    """Every router that a default route names, the way of the preferred address first.

    Takes milliseconds on Linux; on other systems a program is run for it.
    """
    return choose_gateways(_default_routes(), interface_addresses())


def gateway_of(host: str) -> Gateway | None:
    """The router for packets from that address of this machine; ``None`` where there is none."""
    known = interface_addresses()
    own = next((each for each in known if each.host == host), None)
    if own is None:
        return None
    for each in choose_gateways(_default_routes(), known):
        if each.is_ipv6 == own.is_ipv6 and each.index == own.index:
            return replace(each, source=host)
    return None


def choose_gateways(routes: Iterable[DefaultRoute], addresses: Iterable[InterfaceAddress]) -> list[Gateway]:
    """The gateways of these routes, in the order of these addresses.

    Tunnels are left out: what is at their other end is no router of the people who sit at this machine.
    """
    ways = list(routes)
    found: dict[tuple[int, bool], Gateway] = {}
    for each in addresses:
        if not each.is_usable or each.is_link_local or each.is_loopback or each.kind is InterfaceKind.TUNNEL:
            continue
        way = next((way for way in ways if _leads(way, each)), None)
        key = (each.index, each.is_ipv6)
        if way is not None and key not in found and len(found) < MAX_GATEWAYS:
            found[key] = Gateway(way.gateway, each.host, each.index, each.interface)
    return list(found.values())


def is_same_station(one: str, other: str, index: int) -> bool:
    """Whether both addresses were seen to be one box on the network of that interface. Linux alone knows."""
    try:
        with Netlink() as netlink:
            known = {each.host: each.station for each in netlink.neighbours() if each.device == index}
    except OSError:
        return False
    return one in known and known[one] == known.get(other)


def station_of(host: str, index: int) -> bytes:
    """That host's address on the network of that interface; empty where it is not known."""
    try:
        with Netlink() as netlink:
            found = (each for each in netlink.neighbours() if (each.device, each.host) == (index, host))
            return next((each.station for each in found), b"")
    except OSError:
        return b""


def _leads(way: DefaultRoute, address: InterfaceAddress) -> bool:
    if way.index:
        is_same_interface = way.index == address.index
    else:
        # Windows names an interface by its address.
        is_same_interface = way.interface in (address.interface, address.host)
    return is_same_interface and (":" in way.gateway) == address.is_ipv6


def _default_routes() -> list[DefaultRoute]:
    try:
        with Netlink() as netlink:
            return [DefaultRoute(each.gateway, each.device) for each in netlink.default_routes()]
    except OSError:
        return listed_default_routes()
