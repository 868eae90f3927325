"""What matters of this machine's network at one moment, and what changed between two."""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.net import rtnetlink as rt
from crowline.net.interfaces import InterfaceAddress, InterfaceKind, interface_addresses, source_towards
from crowline.net.netlink import Netlink

SOMEWHERE = (Address("1.1.1.1", 9), Address("2606:4700:4700::1111", 9))
"""The internet in both families. Routes are looked up, nothing is sent."""

# Destinations of one watch: servers and peers of a program, not the hosts of the internet.
MAX_DESTINATIONS = 32


class Way(Struct, frozen=True):
    """How packets to one destination leave: by which interface, to which next hop, from which address.

    Systems other than Linux tell the address alone.
    """

    source: str
    device: int = 0
    gateway: str = ""


class Network(Struct, frozen=True):
    """The addresses that packets can be sent from, the preferred first, and the ways to some destinations.

    Left out are loopback and link-local addresses, and those of containers and virtual machines unless a way
    leads by their interface: they come and go, and change nothing for a peer elsewhere.
    """

    addresses: tuple[InterfaceAddress, ...]
    ways: tuple[tuple[Address, Way | None], ...]

    @property
    def hosts(self) -> frozenset[tuple[int, str]]:
        """The addresses, each with its interface's number."""
        return frozenset((each.index, each.host) for each in self.addresses)

    def way_towards(self, destination: Address) -> Way | None:
        """The way to one of the destinations that were asked for."""
        return dict(self.ways).get(destination)


class NetworkChange(Struct, frozen=True):
    """From one network to another. `renewed` are addresses that went and came back in between."""

    before: Network
    after: Network
    renewed: frozenset[str] = frozenset()

    @property
    def came(self) -> tuple[str, ...]:
        """Addresses that are new."""
        return _missing_in(self.before, self.after)

    @property
    def went(self) -> tuple[str, ...]:
        """Addresses that are gone: what was bound to them is dead."""
        return _missing_in(self.after, self.before)

    @property
    def rerouted(self) -> tuple[Address, ...]:
        """Destinations to which packets go another way now, or not at all any more."""
        before = dict(self.before.ways)
        return tuple(to for to, way in self.after.ways if to in before and before[to] != way)

    @property
    def left(self) -> frozenset[int]:
        """Numbers of interfaces that are on none of the networks any more on which they were."""
        before = {(each.index, each.network) for each in self.before.addresses}
        after = {(each.index, each.network) for each in self.after.addresses if each.host not in self.renewed}
        return frozenset(index for index, _ in before) - {index for index, _ in before & after}

    @property
    def is_real(self) -> bool:
        """Whether anything changed at all."""
        return bool(self.came or self.went or self.renewed or self.rerouted)

    @property
    def reason(self) -> str:
        """What happened, in words."""
        parts = [f"{host} came" for host in self.came]
        parts += [f"{host} went" for host in self.went]
        parts += [f"{host} went and came back" for host in sorted(self.renewed)]
        if not parts:
            ways = dict(self.after.ways)
            lost = any(ways[to] is None for to in self.rerouted)
            parts = ["a route was lost" if lost else "packets go another way"] if self.rerouted else []
        return ", ".join(parts)


def look(destinations: Iterable[Address] = SOMEWHERE) -> Network:
    """The network as it is now. Takes about a millisecond, and sends nothing."""
    wanted = list(dict.fromkeys(destinations))[:MAX_DESTINATIONS]
    ways = _ways_towards(wanted)
    leading = {way.device for way in ways if way is not None}
    sources = {way.source for way in ways if way is not None}
    addresses = tuple(
        each
        for each in interface_addresses()
        if each.is_usable
        and not each.is_loopback
        and not each.is_link_local
        and (each.kind is not InterfaceKind.VIRTUAL or each.index in leading or each.host in sources)
    )
    return Network(addresses, tuple(zip(wanted, ways, strict=True)))


def _ways_towards(destinations: list[Address]) -> list[Way | None]:
    try:
        with Netlink() as netlink:
            return [_way(netlink.route_towards(to.host)) for to in destinations]
    except OSError:
        sources = [source_towards(to) for to in destinations]
        return [None if source is None else Way(source) for source in sources]


def _way(step: rt.RouteStep | None) -> Way | None:
    return None if step is None else Way(step.source, step.device, step.gateway)


def _missing_in(one: Network, other: Network) -> tuple[str, ...]:
    known = one.hosts
    return tuple(each.host for each in other.addresses if (each.index, each.host) not in known)
