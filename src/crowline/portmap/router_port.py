"""One port that is wanted of a router, whichever protocol opens it."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.base.errors import UsageError
from crowline.base.transport import Transport
from crowline.portmap.router_events import Opened, Protocol
from crowline.portmap.upnp.gateway_url import GatewayUrl
from crowline.portmap.upnp.pinhole_actions import MAX_PINHOLE_LEASE, Pinhole, PinholeProtocol
from crowline.portmap.upnp.port_actions import PortMapping
from crowline.portmap.upnp.port_actions import Protocol as UpnpProtocol

PROTOCOL_NUMBERS = {Transport.UDP: 17, Transport.TCP: 6}
"""IANA's numbers of what routers open ports for."""


@dataclass(frozen=True, slots=True)
class KnownRouter:
    """What was learnt of a router before: the protocol that opened ports, and where UPnP's description is."""

    protocol: Protocol
    location: GatewayUrl | None = None


@dataclass(frozen=True, slots=True)
class OpenPort:
    """A port of this host that everybody is to reach, over UDP or TCP.

    `suggested_port` is the router's that is asked for, 0 for the same; another one may be given. `nonce` is
    PCP's where the port was opened before, by another client.
    """

    transport: Transport
    inside_port: int
    suggested_port: int = 0
    nonce: bytes = b""

    def __post_init__(self) -> None:
        if self.transport not in PROTOCOL_NUMBERS:
            raise UsageError(f"Routers open no ports for {self.transport.value}.")
        if not 1 <= self.inside_port <= 65535 or not 0 <= self.suggested_port <= 65535:
            raise UsageError("A port is a number from 1 to 65535.")

    @property
    def key(self) -> tuple[Transport, int]:
        """What tells the ports of one host apart."""
        return self.transport, self.inside_port

    @property
    def outside_port(self) -> int:
        """What to ask for first. Never the wildcard, by which some routers open every port."""
        return self.suggested_port or self.inside_port

    def for_upnp(self, host: str, lifetime: int) -> PortMapping | Pinhole:
        """The same as UPnP asks for it: a mapping for an IPv4 address, a pinhole for an IPv6 one."""
        if ":" in host:
            protocol = PinholeProtocol(PROTOCOL_NUMBERS[self.transport])
            return Pinhole(protocol, host, self.inside_port, min(lifetime, MAX_PINHOLE_LEASE))
        protocol_name = UpnpProtocol[self.transport.name]
        return PortMapping(protocol_name, self.outside_port, self.inside_port, host, lifetime)


@dataclass(slots=True, eq=False)
class Way:
    """What one protocol family has come to with a port: its number there, and where it is open."""

    number: int | None = None
    opened: Opened | None = None
    words: str = ""


class RouterPort:
    """A port that the owner wants, by both ways; `told` is what the owner believes."""

    def __init__(self, number: int, wanted: OpenPort, upnp_at: float) -> None:
        self.number = number
        self.wanted = wanted
        self.upnp_at: float | None = upnp_at
        self.mapping = Way()
        self.upnp = Way()
        self.told: Opened | None = None
        self.told_words = ""
        self.is_closing = False

    @property
    def opened(self) -> Opened | None:
        """Where it is open; what the owner was told stays as long as it is true."""
        ways = [self.mapping.opened, self.upnp.opened]
        return next((way for way in ways if way and way == self.told), ways[0] or ways[1])
