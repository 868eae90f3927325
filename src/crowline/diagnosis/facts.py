"""What the checks of one examination found. ``None`` and ``UNKNOWN`` say that a check told nothing."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crowline.base.addresses import AddressClass, classify, is_shared
from crowline.punch.nat_profile import Mapping, NatProfile


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The hub: `round_trip` in seconds, `problem` and `hint` the sentences that say why it was not reached.

    `has_stun` is whether it named STUN servers.
    """

    url: str = ""
    is_reached: bool = False
    round_trip: float | None = None
    problem: str = ""
    hint: str = ""
    has_stun: bool = False


class Privacy(Enum):
    """By what this machine's IPv6 addresses can be known again (RFC 8981, RFC 7721)."""

    TEMPORARY = "temporary addresses"
    STABLE = "a stable address only"
    HARDWARE = "an address with the hardware's number in it"
    UNKNOWN = "not told by this system"


@dataclass(frozen=True, slots=True)
class FamilyFacts:
    """One family of addresses.

    `hosts`: this machine's own addresses towards others, the preferred first. `has_route`: whether packets
    to the internet have a way. `nat`: ``None`` where nothing was measured. `is_translated`: the family is
    reached through a NAT64 alone.
    """

    hosts: tuple[str, ...] = ()
    has_route: bool = False
    nat: NatProfile | None = None
    is_translated: bool = False

    @property
    def works(self) -> bool | None:
        """Whether UDP comes back; ``None``: not measured."""
        return None if self.nat is None else self.nat.answers

    @property
    def is_public(self) -> bool:
        """No translator is between this machine and the internet."""
        return self.nat is not None and self.nat.mapping is Mapping.NONE


@dataclass(frozen=True, slots=True)
class RouterFacts:
    """One gateway and what it says: the `protocols` that it opens ports by, none of which may be spoken."""

    gateway: str
    protocols: tuple[str, ...] = ()
    outside_host: str | None = None

    @property
    def opens_ports(self) -> bool:
        return bool(self.protocols)


@dataclass(frozen=True, slots=True)
class ProxyFacts:
    """The proxy that the environment names for the hub, without its password."""

    url: str
    is_used: bool = True


class Portal(Enum):
    """Whether somebody on the way answers for others, as networks do that want to be signed in to."""

    NONE = "none"
    FOUND = "found"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PortalFacts:
    """`login` is where the network sends browsers, if it said so."""

    portal: Portal = Portal.UNKNOWN
    login: str = ""


class Stance(Enum):
    """What a local firewall does with packets that no rule names."""

    LETS = "lets in"
    BLOCKS = "blocks"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class FirewallFacts:
    """One firewall here and what it does with UDP: `inbound` what nobody asked for, `outbound` our own.

    `note` says what could not be read, and why. The chains are where nftables blocks, as its tool wants them
    named: family, table, chain.
    """

    name: str
    inbound: Stance = Stance.UNKNOWN
    outbound: Stance = Stance.UNKNOWN
    note: str = ""
    inbound_chain: str = ""
    outbound_chain: str = ""


@dataclass(frozen=True, slots=True)
class MtuFacts:
    """Bytes of the largest whole IP packet that arrived at the server, and of the smallest that did not."""

    passed: int | None = None
    lost: int | None = None


@dataclass(frozen=True, slots=True)
class PortFacts:
    """Which UDP ports of the server answer, and which do not beside them.

    `leaves`: whether packets to the silent ones get as far on the way as those to the others; ``None``: the
    routers on the way do not say.
    """

    answering: tuple[int, ...] = ()
    silent: tuple[int, ...] = ()
    leaves: bool | None = None


@dataclass(frozen=True, slots=True)
class Facts:
    """Everything. `tcp`: whether TCP gets out to a port that is not the hub's own; ``None``: not tried.

    `hops` are the first routers on the way to the server, ``None`` for those that kept silent. `tunnel` is
    the interface of a VPN by which packets to the internet leave, "" without: what the routers beneath it
    say is then of another way than that of the packets, and nothing here can change the VPN's other end.
    """

    server: ServerFacts = ServerFacts()
    ipv4: FamilyFacts = FamilyFacts()
    ipv6: FamilyFacts = FamilyFacts()
    tcp: bool | None = None
    routers: tuple[RouterFacts, ...] = ()
    proxy: ProxyFacts | None = None
    portal: PortalFacts = PortalFacts()
    firewalls: tuple[FirewallFacts, ...] = ()
    mtu: MtuFacts = MtuFacts()
    ports: PortFacts = PortFacts()
    hops: tuple[str | None, ...] = ()
    tunnel: str = ""
    privacy: Privacy = Privacy.UNKNOWN
    left_out: tuple[str, ...] = ()

    @property
    def is_offline(self) -> bool:
        """No packet has a way out; a server on this very machine is reached all the same."""
        return not (self.server.is_reached or self.ipv4.has_route or self.ipv6.has_route)

    @property
    def udp(self) -> bool | None:
        """Whether UDP comes back in either family; ``None``: not measured."""
        said = {self.ipv4.works, self.ipv6.works}
        return True if True in said else False if False in said else None

    @property
    def is_narrow(self) -> bool:
        """UDP gets out of this network to a few ports only, and hardly to those of other people."""
        return bool(self.ports.silent) and self.ports.leaves is False

    @property
    def opens_ports(self) -> bool:
        """A router maps ports, others meet this machine there, and no translator is known to be behind it."""
        is_last = not (self.tunnel or self.is_double or self.carrier)
        return is_last and any(each.opens_ports for each in self.routers)

    @property
    def lets_in(self) -> bool:
        """No firewall of this machine is known to keep out what was not asked for."""
        return all(each.inbound is not Stance.BLOCKS for each in self.firewalls)

    @property
    def carrier(self) -> bool:
        """The provider translates: it is seen beyond the first router, by an address that carriers share, or
        by ports that are out of a small block. Only the preferred of this machine's addresses is towards the
        internet: overlay networks take theirs out of the carriers' range."""
        if self.tunnel or self._has_last_router:
            return False
        said = [each.outside_host or "" for each in self.routers]
        return self._is_beyond or self._has_port_block or any(map(is_shared, (*said, *self.ipv4.hosts[:1])))

    @property
    def is_double(self) -> bool:
        """Two translators in a row, as far as a router's outside address or those on the way tell."""
        if self.tunnel or self._has_last_router:
            return False
        nat = self.ipv4.nat
        hosts = {each.outside_host for each in self.routers if each.outside_host}
        if nat is not None and nat.outside_hosts and hosts - set(nat.outside_hosts):
            return True
        return self._is_beyond or any(classify(host) is AddressClass.CLOSED for host in hosts)

    @property
    def _has_last_router(self) -> bool:
        """A router names the very address that servers see as its own: nobody translates beyond it."""
        outside = self.ipv4.nat.outside_hosts if self.ipv4.nat is not None else ()
        return any(each.outside_host in outside for each in self.routers)

    @property
    def _is_beyond(self) -> bool:
        """Beyond the first router stands an address that carriers share, or the very one that servers see."""
        outside = self.ipv4.nat.outside_hosts if self.ipv4.nat is not None and not self.ipv4.is_public else ()
        return any(host is not None and (is_shared(host) or host in outside) for host in self.hops[1:])

    @property
    def _has_port_block(self) -> bool:
        nat = self.ipv4.nat
        return nat is not None and nat.ports.kind.value == "block"
