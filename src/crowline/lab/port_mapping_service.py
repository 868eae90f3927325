"""A gateway that opens ports when a host asks: NAT-PMP (RFC 6886) and PCP (RFC 6887), sans-IO.

It listens on `PORT` of the gateway's inside address and works on the `Nat` of the same box. A host gets ports
for itself alone; what it opens lets everybody in until it is closed or its lifetime is over.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.lab.behaviour import TCP, UDP
from crowline.lab.nat import Nat
from crowline.lab.port_mapping_messages import (
    NAT_PMP_VERSION,
    PCP_VERSION,
    AddressRequest,
    MalformedPortMapping,
    MapRequest,
    NatPmpResult,
    PcpMap,
    PcpOperation,
    PcpOption,
    PcpResult,
    nat_pmp_address,
    nat_pmp_failure,
    nat_pmp_mapped,
    parse_nat_pmp,
    parse_pcp,
    parse_pcp_map,
    pcp_mapped,
    pcp_response,
    version_of,
)
from crowline.lab.profile import PortMapping
from crowline.lab.router_temper import PLAIN, Temper

PORT = 5351  # RFC 6886 §3.1, RFC 6887 §19.1
SHORTEST_LEASE = 120  # seconds, what RFC 6887 §15 recommends for PCP; NAT-PMP has no such floor
LONGEST_LEASE = 86400  # seconds, likewise
SHORT_FAILURE = 30  # seconds for which an answer that may soon be another holds (RFC 6887 §7.4)
LONG_FAILURE = 1800
QUOTA = 64  # open ports for each host: more than any program wants, and few enough for one table


@dataclass(slots=True)
class _Lease:
    outside: Address
    expires: float
    nonce: bytes  # empty for NAT-PMP, which has none


class PortMappingService:
    """One gateway's service, of the kind `NAT_PMP` or `PCP` (which knows NAT-PMP too).

    `now` at construction is when the box started: answers carry the seconds since then, and a client that
    sees fewer than it should knows that its ports are gone. `counters` says what was not answered.

    Of a `temper` that counts which these protocols can show: silence, who speaks and how often, who is
    refused, other ports and leases than asked, forgetting, a false outside host, and opening nothing.
    """

    def __init__(self, nat: Nat, kind: PortMapping, now: float = 0.0, temper: Temper = PLAIN) -> None:
        if kind not in (PortMapping.NAT_PMP, PortMapping.PCP):
            raise UsageError(f"this service is not one of {kind.value}")
        self.counters: Counter[str] = Counter()
        self._nat = nat
        self._kind = kind
        self._temper = temper
        self._started = now
        self._leases: dict[tuple[int, Address], _Lease] = {}
        self._answers: deque[Transmit] = deque()

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        try:
            version = version_of(data)
            if version == NAT_PMP_VERSION:
                answer = self._nat_pmp(data, source, now)
            elif self._kind is PortMapping.NAT_PMP:
                answer = nat_pmp_failure(data, NatPmpResult.UNSUPPORTED_VERSION, self._epoch(now))
            elif version != PCP_VERSION:
                answer = self._pcp_failure(data, PcpResult.UNSUPP_VERSION, now)
            else:
                answer = self._pcp(data, source, now)
        except MalformedPortMapping:
            self.counters["malformed"] += 1
            return
        if self._temper.is_silent:
            return
        if self._temper.speaks_from:
            local = Address(self._temper.speaks_from, PORT)
        self._answers += [Transmit(answer, source, local)] * self._temper.repeats

    def handle_timeout(self, now: float) -> None:
        """Leases end by themselves."""

    def next_timeout(self) -> float | None:
        return None

    def next_transmit(self) -> Transmit | None:
        return self._answers.popleft() if self._answers else None

    def next_event(self) -> None:
        return None

    def restart(self, now: float) -> None:
        """Lose every port and count from 0, as a box does that was switched off."""
        for protocol, inside in self._leases:
            self._nat.unforward(protocol, inside)
        self._leases.clear()
        self._started = now

    # --- NAT-PMP --------------------------------------------------------------------------------------

    def _nat_pmp(self, data: Buffer, source: Address, now: float) -> bytes:
        request, epoch = parse_nat_pmp(data), self._epoch(now)
        if isinstance(request, AddressRequest):
            return nat_pmp_address(self._outside_host, epoch)
        if not isinstance(request, MapRequest):
            return nat_pmp_failure(data, NatPmpResult.UNSUPPORTED_OPCODE, epoch)
        if not self._temper.allows:
            return nat_pmp_failure(data, NatPmpResult.NOT_AUTHORIZED, epoch)
        if request.lifetime == 0:
            if not self._close_nat_pmp(request, source):
                return nat_pmp_failure(data, NatPmpResult.NOT_AUTHORIZED, epoch)
            return nat_pmp_mapped(request, 0, 0, epoch)
        inside = Address(source.host, request.inside_port)
        lifetime = min(request.lifetime, LONGEST_LEASE, self._temper.longest_lease)
        lease = None
        if request.inside_port and self._has_room(request.protocol, inside, now):
            lease = self._open(request.protocol, inside, lifetime, now, suggested=request.suggested_port)
        if lease is None:
            return nat_pmp_failure(data, NatPmpResult.OUT_OF_RESOURCES, epoch)
        return nat_pmp_mapped(request, lease.outside.port, lifetime, epoch)

    def _close_nat_pmp(self, request: MapRequest, source: Address) -> bool:
        """Close one port of the host, or all with port 0; what PCP has opened needs PCP's nonce."""
        for protocol, inside in list(self._leases):
            if (protocol, inside.host) != (request.protocol, source.host):
                continue
            if request.inside_port in (0, inside.port):
                if not self._leases[protocol, inside].nonce:
                    self._close(protocol, inside)
                elif request.inside_port:
                    return False
        return True

    # --- PCP ------------------------------------------------------------------------------------------

    def _pcp(self, data: Buffer, source: Address, now: float) -> bytes:
        """RFC 6887 §8.3: the checks in their order."""
        try:
            header = parse_pcp(data)
            if header.operation not in tuple(PcpOperation):
                return self._pcp_failure(data, PcpResult.UNSUPP_OPCODE, now)
            if header.client != source.host:
                return self._pcp_failure(data, PcpResult.ADDRESS_MISMATCH, now)
            if header.operation == PcpOperation.ANNOUNCE:
                return pcp_response(data, PcpResult.SUCCESS, 0, self._epoch(now), body=b"")
            request = parse_pcp_map(data)
        except MalformedPortMapping as reason:
            return self._pcp_failure(data, reason.result or PcpResult.MALFORMED_REQUEST, now)
        return self._pcp_map(data, request, header.lifetime, source, now)

    def _pcp_map(self, data: Buffer, request: PcpMap, lifetime: int, source: Address, now: float) -> bytes:
        """RFC 6887 §11.3."""
        if not self._temper.allows:
            return self._pcp_failure(data, PcpResult.NOT_AUTHORIZED, now)
        if request.protocol not in (UDP, TCP) or request.inside_port == 0:
            return self._pcp_failure(data, PcpResult.UNSUPP_PROTOCOL, now)
        inside = Address(source.host, request.inside_port)
        lease = self._lease(request.protocol, inside, now)
        if lease is not None and lease.nonce not in (b"", request.nonce):
            return self._pcp_failure(data, PcpResult.NOT_AUTHORIZED, now)
        if lifetime == 0:
            self._close(request.protocol, inside)
            body = pcp_mapped(request, request.suggested_host, request.suggested_port)
            return pcp_response(data, PcpResult.SUCCESS, 0, self._epoch(now), body=body)
        if lease is None and not self._has_room(request.protocol, inside, now):
            return self._pcp_failure(data, PcpResult.USER_EX_QUOTA, now)
        must = PcpOption.PREFER_FAILURE in request.options
        if must and not self._can_provide(request, lease):
            return self._pcp_failure(data, PcpResult.CANNOT_PROVIDE_EXTERNAL, now)
        granted = min(max(lifetime, SHORTEST_LEASE), LONGEST_LEASE, self._temper.longest_lease)
        opened = self._open(
            request.protocol, inside, granted, now, suggested=request.suggested_port, must=must
        )
        if opened is None:
            result = PcpResult.CANNOT_PROVIDE_EXTERNAL if must else PcpResult.NO_RESOURCES
            return self._pcp_failure(data, result, now)
        opened.nonce = request.nonce
        body = pcp_mapped(request, self._outside_host, opened.outside.port)
        return pcp_response(data, PcpResult.SUCCESS, granted, self._epoch(now), body=body)

    def _can_provide(self, request: PcpMap, lease: _Lease | None) -> bool:
        """Whether the suggested outside address is possible at all (RFC 6887 §13.2)."""
        if request.suggested_host not in ("0.0.0.0", "::", self._nat.external_host):
            return False
        return lease is None or request.suggested_port in (0, lease.outside.port)

    def _pcp_failure(self, data: Buffer, result: PcpResult, now: float) -> bytes:
        soon = result in (PcpResult.NO_RESOURCES, PcpResult.USER_EX_QUOTA, PcpResult.CANNOT_PROVIDE_EXTERNAL)
        return pcp_response(data, result, SHORT_FAILURE if soon else LONG_FAILURE, self._epoch(now))

    # --- leases ---------------------------------------------------------------------------------------

    def _lease(self, protocol: int, inside: Address, now: float) -> _Lease | None:
        lease = self._leases.get((protocol, inside))
        return lease if lease is not None and lease.expires > now else None

    def _has_room(self, protocol: int, inside: Address, now: float) -> bool:
        """Whether the host may open one more; what it has, it may renew."""
        self._leases = {key: lease for key, lease in self._leases.items() if lease.expires > now}
        own = [key for key in self._leases if key[1].host == inside.host]
        return (protocol, inside) in self._leases or len(own) < QUOTA

    def _open(
        self,
        protocol: int,
        inside: Address,
        lifetime: int,
        now: float,
        *,
        suggested: int = 0,
        must: bool = False,
    ) -> _Lease | None:
        temper, before = self._temper, self._leases.get((protocol, inside))
        ends = float(lifetime) if temper.forgets_after is None else min(lifetime, temper.forgets_after)
        if temper.other_ports and before is None:
            suggested = (suggested or inside.port) % 65535 + 1
        outside: Address | None = Address(self._nat.external_host, suggested or inside.port)
        if temper.opens:
            outside = self._nat.forward(protocol, inside, ends, now, suggested=suggested, exactly=must)
        if outside is None:
            return None
        lease = _Lease(outside, now + lifetime, before.nonce if before else b"")
        self._leases[protocol, inside] = lease
        return lease

    def _close(self, protocol: int, inside: Address) -> None:
        if self._leases.pop((protocol, inside), None) is not None:
            self._nat.unforward(protocol, inside)

    @property
    def _outside_host(self) -> str:
        return self._temper.outside or self._nat.external_host

    def _epoch(self, now: float) -> int:
        return int(now - self._started)
