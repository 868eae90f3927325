"""What stands at the edge of a network of the virtual internet, and lets packets through or not.

A boundary sees addresses only, like the translator behind it: it gives a packet's source and destination on
the other side, or ``None`` for a packet that goes no further.
"""

from __future__ import annotations

import ipaddress
from typing import Protocol, TypeAlias

from crowline.base.addresses import Address
from crowline.lab.behaviour import TCP, UDP, Lifetimes, UnsolicitedSyn
from crowline.lab.nat import Nat
from crowline.lab.profile import Firewall

HTTPS = 443
NAT64_PREFIX = ipaddress.IPv6Network("64:ff9b::/96")  # the well-known one, RFC 6052 §2.1

Ends: TypeAlias = tuple[Address, Address]  # source and destination


class Boundary(Protocol):
    """`refusal`: how a SYN is answered that `inbound` gives ``None`` for."""

    @property
    def refusal(self) -> UnsolicitedSyn: ...

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        """The packet's ends when it comes from inside; with an inside destination it turns round here."""

    def inbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        """The packet's ends inside, when it comes from outside."""


class Passage:
    """An edge where nothing is done: for networks that have only a firewall."""

    refusal = UnsolicitedSyn.DROP

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        return source, destination

    def inbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        return source, destination


class Translation:
    """A translator between two networks of one IP family."""

    def __init__(self, nat: Nat) -> None:
        self.nat = nat

    @property
    def refusal(self) -> UnsolicitedSyn:
        return self.nat.behaviour.unsolicited_syn

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        if destination.host == self.nat.external_host:
            return self.nat.hairpin(protocol, source, destination, now)
        seen = self.nat.outbound(protocol, source, destination, now)
        return None if seen is None else (seen, destination)

    def inbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        inside = self.nat.inbound(protocol, destination, source, now)
        return None if inside is None else (source, inside)


class StatefulFirewall:
    """Lets in what answers something that went out, between the same two addresses and ports (RFC 6092)."""

    refusal = UnsolicitedSyn.DROP

    def __init__(self, lifetimes: Lifetimes | None = None) -> None:
        self._lifetimes = lifetimes or Lifetimes()
        self._flows: dict[tuple[int, Address, Address], float] = {}

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        self._flows[protocol, source, destination] = now + self._lifetimes.idle(protocol)
        return source, destination

    def inbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        if self._flows.get((protocol, destination, source), now) <= now:
            return None
        return source, destination


class Nat64:
    """IPv6 inside, both families outside: IPv4 hosts have the well-known prefix before them (RFC 6146).

    IPv6 itself passes as it is.
    """

    def __init__(self, nat: Nat) -> None:
        """`nat` translates from IPv6 inside to its IPv4 address outside."""
        self.nat = nat

    @property
    def refusal(self) -> UnsolicitedSyn:
        return self.nat.behaviour.unsolicited_syn

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        remote = ipaddress.ip_address(destination.host)
        if remote not in NAT64_PREFIX:
            return source, destination
        target = Address(str(ipaddress.IPv4Address(remote.packed[12:])), destination.port)
        seen = self.nat.outbound(protocol, source, target, now)
        return None if seen is None else (seen, target)

    def inbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        if destination.is_ipv6:
            return source, destination
        inside = self.nat.inbound(protocol, destination, source, now)
        return None if inside is None else (embedded(source), inside)


class Gate:
    """A boundary with a firewall that also says what may leave at all.

    `proxy` is the inside host of the site's HTTP proxy, which alone may leave where everybody must use it.
    """

    def __init__(self, boundary: Boundary, firewall: Firewall, proxy: str = "") -> None:
        self.boundary = boundary
        self._firewall = firewall
        self._proxy = proxy

    @property
    def refusal(self) -> UnsolicitedSyn:
        if self._firewall in (Firewall.HTTPS_ONLY, Firewall.PROXY_ONLY):
            return UnsolicitedSyn.DROP
        return self.boundary.refusal

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        if not self._lets(protocol, destination.port):
            return None
        if self._firewall is Firewall.PROXY_ONLY and source.host != self._proxy:
            return None
        return self.boundary.outbound(protocol, source, destination, now)

    def inbound(self, protocol: int, source: Address, destination: Address, now: float) -> Ends | None:
        if not self._lets(protocol, source.port):
            return None
        return self.boundary.inbound(protocol, source, destination, now)

    def _lets(self, protocol: int, remote_port: int) -> bool:
        if self._firewall is Firewall.NONE:
            return True
        if self._firewall is Firewall.UDP_BLOCKED:
            return protocol != UDP
        return protocol == TCP and remote_port == HTTPS


def embedded(address: Address) -> Address:
    """An IPv4 address as an IPv6-only host reaches it through the well-known prefix."""
    packed = NAT64_PREFIX.network_address.packed[:12] + address.packed
    return Address(str(ipaddress.IPv6Address(packed)), address.port)
