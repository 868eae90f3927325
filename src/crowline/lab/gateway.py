"""A gateway in user space, where nftables is missing: IPv4 translation and a stateful IPv6 firewall.

It works on packets as tunnel devices give them, `HEADER_SIZE` bytes of the device's header in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from crowline.base.addresses import Address
from crowline.lab.behaviour import NatBehaviour
from crowline.lab.nat import Nat
from crowline.lab.packet import (
    Header,
    Kind,
    MalformedPacket,
    parse_quoted,
    rewrite_destination,
    rewrite_quoted,
    rewrite_source,
)
from crowline.lab.presets import HOME
from crowline.lab.tun import NEEDS_CHECKSUM

if TYPE_CHECKING:
    from crowline.lab.wire import Port


@dataclass(slots=True)
class Gateway:
    """One site: its outside IPv4 host, its inside hosts, and what passes between.

    `firewalls` has one entry for each inside IPv6 host that is guarded: a translator that keeps the address
    (port-preserving, its one inside host being its outside host) filters exactly like a stateful firewall.
    """

    name: str
    delay: float
    external: str
    nat: Nat
    inside: dict[str, Port] = field(default_factory=dict)
    firewalls: dict[str, Nat] = field(default_factory=dict)
    blocked: frozenset[int] = frozenset()
    queued: int = 0

    @classmethod
    def build(
        cls, name: str, delay: float, external: str, behaviour: NatBehaviour, entropy: Callable[[int], bytes]
    ) -> Gateway:
        return cls(name, delay, external, Nat(behaviour, external, entropy))

    def admit(self, host: str, port: Port, *, firewalled: bool, entropy: Callable[[int], bytes]) -> None:
        """Let `host` live behind this gateway, on `port`."""
        self.inside[host] = port
        if firewalled and ":" in host:
            self.firewalls[host] = Nat(HOME, host, entropy)

    def outbound(self, packet: bytearray, header: Header, now: float) -> bool:
        """Make an inside packet an outside one; ``False``: it is dropped."""
        if header.kind is Kind.ERROR:
            return self._error_outbound(packet, header, now)
        guard = self._guard(header.source.host, header.version)
        if guard is None:
            return True
        if header.kind is Kind.OTHER:
            return header.version == 6
        new = guard.outbound(header.protocol, header.source, header.destination, now)
        if new is None:
            return False
        if new != header.source:
            rewrite_source(packet, header, new, partial=bool(packet[0] & NEEDS_CHECKSUM))
        return True

    def inbound(self, packet: bytearray, header: Header, now: float) -> Port | None:
        """Make an outside packet an inside one and say where it goes; ``None``: it is filtered."""
        if header.kind is Kind.ERROR:
            return self._error_inbound(packet, header, now)
        guard = self._guard(header.destination.host, header.version)
        if guard is None:
            return self.inside.get(header.destination.host)
        if header.kind is Kind.OTHER:
            return None
        new = guard.inbound(header.protocol, header.destination, header.source, now)
        if new is None:
            return None
        if new != header.destination:
            rewrite_destination(packet, header, new, partial=bool(packet[0] & NEEDS_CHECKSUM))
        return self.inside.get(new.host)

    def _guard(self, host: str, version: int) -> Nat | None:
        return self.nat if version == 4 else self.firewalls.get(host)

    def _error_outbound(self, packet: bytearray, header: Header, now: float) -> bool:
        if header.version == 6:
            return True
        quoted = _quoted(packet, header)
        if quoted is None or quoted.kind not in (Kind.PORTS, Kind.ECHO):
            return False
        new = self.nat.outbound(quoted.protocol, quoted.destination, quoted.source, now)
        if new is None:
            return False
        rewrite_source(packet, header, Address(new.host, 0))
        rewrite_quoted(packet, header, quoted, new, is_source=False)
        return True

    def _error_inbound(self, packet: bytearray, header: Header, now: float) -> Port | None:
        quoted = _quoted(packet, header)
        if quoted is None or quoted.kind not in (Kind.PORTS, Kind.ECHO):
            return None
        guard = self._guard(header.destination.host, header.version)
        if guard is None:
            return self.inside.get(header.destination.host)
        new = guard.inbound(quoted.protocol, quoted.source, quoted.destination, now)
        if new is None:
            return None
        if header.version == 4:
            rewrite_destination(packet, header, Address(new.host, 0))
            rewrite_quoted(packet, header, quoted, new, is_source=True)
        return self.inside.get(new.host)


def _quoted(packet: bytearray, header: Header) -> Header | None:
    try:
        return parse_quoted(packet, header)
    except MalformedPacket:
        return None
