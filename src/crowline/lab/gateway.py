"""A gateway in user space, for what Linux itself is not: any translator, NAT64, a stateful IPv6 firewall.

It works on packets as tunnel devices give them, `HEADER_SIZE` bytes of the device's header in front.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab import nat64
from crowline.lab.access import Access
from crowline.lab.behaviour import Hairpin, NatBehaviour, UnsolicitedSyn
from crowline.lab.nat import Nat
from crowline.lab.packet import (
    ICMP,
    ICMPV6,
    UDP,
    UDP_HEADER,
    Header,
    Kind,
    MalformedPacket,
    Trouble,
    datagram,
    icmp_error,
    is_opening,
    parse,
    parse_quoted,
    rewrite_destination,
    rewrite_quoted,
    rewrite_source,
    tcp_reset,
)
from crowline.lab.port_mapping_service import PORT, PortMappingService
from crowline.lab.presets import HOME
from crowline.lab.profile import PortMapping
from crowline.lab.tun import HEADER_SIZE, NEEDS_CHECKSUM

if TYPE_CHECKING:
    from crowline.lab.wire import Port

Entropy: TypeAlias = Callable[[int], bytes]


@dataclass(slots=True, eq=False)
class Gateway:
    """One translator: its outside IPv4 host, its inside hosts, and what passes between.

    Without `nat` IPv4 passes as it is and `external` is empty: a firewall for IPv6 alone. With NAT64, what is
    inside has IPv6 alone. `outer` is the gateway that this one is behind itself; `access` counts where there
    is none. `inside` has ports, and gateways by their outside hosts. `firewalls` has one entry for each
    inside IPv6 host that is guarded: a translator that keeps the address (port-preserving, its one inside
    host being its outside host) filters exactly like a stateful firewall. `own` is the gateway's inside
    address where it has a service.
    """

    name: str
    external: str
    nat: Nat | None
    access: Access = field(default_factory=Access)
    outer: Gateway | None = None
    is_nat64: bool = False
    inside: dict[str, Port | Gateway] = field(default_factory=dict)
    firewalls: dict[str, Nat] = field(default_factory=dict)
    own: str = ""
    service: PortMappingService | None = None
    queued: int = 0

    @classmethod
    def build(
        cls, name: str, external: str, behaviour: NatBehaviour, entropy: Entropy, *, nat64: bool = False
    ) -> Gateway:
        """A translator with that outside host."""
        return cls(name, external, Nat(behaviour, external, entropy, nat64=nat64), is_nat64=nat64)

    def admit(
        self, host: str, place: Port | Gateway, *, firewalled: bool = False, entropy: Entropy | None = None
    ) -> None:
        """Let `host` live behind this gateway, on `place`; `firewalled` counts for IPv6, and draws."""
        self.inside[host] = place
        if firewalled and ":" in host and entropy is not None:
            self.firewalls[host] = Nat(HOME, host, entropy)

    def open_ports(self, own: str, kind: PortMapping, now: float) -> None:
        """Answer on the inside address `own` to hosts that want ports opened."""
        if self.nat is None:
            raise UsageError("ports are opened by a translator")
        self.own, self.service = own, PortMappingService(self.nat, kind, now)

    def serve(self, packet: bytearray, header: Header, now: float) -> list[bytes]:
        """What the gateway answers to a packet that is for itself."""
        if self.service is None or header.protocol != UDP or header.destination.port != PORT:
            return []
        payload = memoryview(packet)[header.transport + UDP_HEADER :]
        self.service.receive(payload, header.source, now, header.destination)
        answers = []
        while (answer := self.service.next_transmit()) is not None:
            answers.append(datagram(header.destination, answer.destination, answer.data))
        return answers

    def outbound(self, packet: bytearray, header: Header, now: float) -> Header | None:
        """Make an inside packet an outside one; ``None``: it is dropped."""
        if self.is_nat64 and (host := nat64.embedded(header.destination.host)):
            return self._outbound_nat64(packet, header, host, now)
        if header.kind is Kind.ERROR:
            return self._error_outbound(packet, header, now)
        guard = self._guard(header.source.host, header.version)
        if guard is None:
            return header
        if header.kind is Kind.OTHER:
            return header if header.version == 6 else None
        new = guard.outbound(header.protocol, header.source, header.destination, now)
        if new is None:
            return None
        if new != header.source:
            rewrite_source(packet, header, new, partial=_is_partial(packet))
        return header._replace(source=new)

    def turn(self, packet: bytearray, header: Header, now: float) -> Header | None:
        """A packet from inside to the gateway's own outside host: make it one to an inside host; ``None``: it
        is dropped (RFC 4787 §6)."""
        if self.nat is None or header.kind is not Kind.PORTS or self.nat.behaviour.hairpin is Hairpin.NONE:
            return None
        turned = self.nat.hairpin(header.protocol, header.source, header.destination, now)
        if turned is None:
            return None
        partial = _is_partial(packet)
        rewrite_source(packet, header, turned.source, partial=partial)
        rewrite_destination(packet, header, turned.destination, partial=partial)
        return header._replace(source=turned.source, destination=turned.destination)

    def inbound(self, packet: bytearray, header: Header, now: float) -> Header | None:
        """Make an outside packet an inside one; ``None``: it is filtered."""
        if self.is_nat64 and header.version == 4:
            return self._inbound_nat64(packet, header, now)
        if header.kind is Kind.ERROR:
            return self._error_inbound(packet, header, now)
        guard = self._guard(header.destination.host, header.version)
        if guard is None:
            return header
        if header.kind is Kind.OTHER:
            return None
        new = guard.inbound(header.protocol, header.destination, header.source, now)
        if new is None:
            return None
        if new != header.destination:
            rewrite_destination(packet, header, new, partial=_is_partial(packet))
        return header._replace(destination=new)

    def refusal(self, packet: bytearray, header: Header) -> bytes | None:
        """What the gateway answers to a packet that it filtered (RFC 5382 §4.3): mostly nothing."""
        answer = self.nat.behaviour.unsolicited_syn if self.nat is not None else UnsolicitedSyn.DROP
        if header.version != 4 or answer is UnsolicitedSyn.DROP or not is_opening(packet, header):
            return None
        if answer is UnsolicitedSyn.RST:
            return tcp_reset(packet, header)
        return icmp_error(packet, header, self.external, Trouble.UNREACHABLE_HOST)

    def _guard(self, host: str, version: int) -> Nat | None:
        return self.nat if version == 4 else self.firewalls.get(host)

    def _outbound_nat64(self, packet: bytearray, header: Header, host: str, now: float) -> Header | None:
        if self.nat is None or not nat64.is_translated(header):
            return None
        destination = Address(host, header.destination.port)
        protocol = ICMP if header.protocol == ICMPV6 else header.protocol
        new = self.nat.outbound(protocol, header.source, destination, now)
        if new is None:
            return None
        nat64.translate(packet, header, new, destination)
        return parse(packet, HEADER_SIZE)

    def _inbound_nat64(self, packet: bytearray, header: Header, now: float) -> Header | None:
        if self.nat is None or not nat64.is_translated(header):
            return None
        new = self.nat.inbound(header.protocol, header.destination, header.source, now)
        if new is None:
            return None
        source = Address(nat64.synthesized(header.source.host), header.source.port)
        nat64.translate(packet, header, source, new)
        return parse(packet, HEADER_SIZE)

    def _error_outbound(self, packet: bytearray, header: Header, now: float) -> Header | None:
        if header.version == 6 or self.nat is None:
            return header
        quoted = _quoted(packet, header)
        if quoted is None or quoted.kind not in (Kind.PORTS, Kind.ECHO):
            return None
        new = self.nat.outbound(quoted.protocol, quoted.destination, quoted.source, now)
        if new is None:
            return None
        source = Address(new.host, 0)
        rewrite_source(packet, header, source)
        rewrite_quoted(packet, header, quoted, new, is_source=False)
        return header._replace(source=source)

    def _error_inbound(self, packet: bytearray, header: Header, now: float) -> Header | None:
        quoted = _quoted(packet, header)
        if quoted is None or quoted.kind not in (Kind.PORTS, Kind.ECHO):
            return None
        guard = self._guard(header.destination.host, header.version)
        if guard is None:
            return header
        new = guard.inbound(quoted.protocol, quoted.source, quoted.destination, now)
        if new is None:
            return None
        destination = Address(new.host, 0)
        if header.version == 4:
            rewrite_destination(packet, header, destination)
            rewrite_quoted(packet, header, quoted, new, is_source=True)
        return header._replace(destination=destination)


def _is_partial(packet: bytearray) -> bool:
    return bool(packet[0] & NEEDS_CHECKSUM)


def _quoted(packet: bytearray, header: Header) -> Header | None:
    try:
        return parse_quoted(packet, header)
    except MalformedPacket:
        return None
