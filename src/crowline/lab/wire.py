"""The laboratory's internet: one router that every place reaches after the place's delay, and nothing beyond.

A port is a tunnel device in some namespace. What comes in there is routed by its destination, one hop limit
less, or more where the router stands for several, and comes out of another port when both delays have passed.
Gateways may stand between the router and a group of ports, and behind each other. Time is an argument, and
the devices are functions: `lab/wire_process.py` has the real ones.

A packet is parsed once; from then on its header goes with it, and follows what is done to the packet.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from heapq import heappop, heappush
from typing import TypeAlias

from crowline.lab.access import Access
from crowline.lab.gateway import Gateway
from crowline.lab.packet import (
    Header,
    MalformedPacket,
    Trouble,
    decrement_hop_limit,
    icmp_error,
    parse,
)
from crowline.lab.profile import Firewall
from crowline.lab.tun import HEADER_SIZE

# Bytes that may be on their way to one place: 20 ms of 1.6 GB/s, far above what any test means to queue.
QUEUE_LIMIT = 32 << 20

ROUTER_V4 = "44.0.0.1"  # what the router signs its ICMP errors with
ROUTER_V6 = "2a01:100::1"


@dataclass(slots=True, eq=False)
class Port:
    """A tunnel device. `deliver` takes a packet with its device header; ``False``: no room.

    `outer` is the gateway that it is behind; `access` counts where there is none.
    """

    name: str
    deliver: Callable[[bytearray], bool]
    access: Access = field(default_factory=Access)
    outer: Gateway | None = None
    queued: int = 0


Place: TypeAlias = Port | Gateway
_Action: TypeAlias = Callable[[Place, bytearray, Header, float], None]


class Wire:
    """Routes packets between places. `counters` says what became of those that did not arrive; `core_hops`
    is how many hops it is through the router.
    """

    def __init__(self) -> None:
        self.core_hops = 1
        self.counters: Counter[str] = Counter()
        self._routes: dict[str, Place] = {}
        self._queue: list[tuple[float, int, _Action, Place, bytearray, Header]] = []
        self._sequence = 0

    def route(self, hosts: Iterable[str], place: Place) -> None:
        """Send packets for `hosts` to that port or gateway."""
        for host in hosts:
            self._routes[host] = place

    def forward(self, port: Port, packet: bytearray, now: float) -> None:
        """A packet came out of the namespace behind `port`. The buffer belongs to the wire from here on."""
        try:
            header = parse(packet, HEADER_SIZE)
        except MalformedPacket:
            self.counters["malformed"] += 1
            return
        self._leave(port, packet, header, now)

    def handle_timeout(self, now: float) -> None:
        """Deliver everything whose time has come."""
        while self._queue and self._queue[0][0] <= now:
            due, _, action, place, packet, header = heappop(self._queue)
            place.queued -= len(packet)
            action(place, packet, header, due)

    def next_timeout(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def _leave(self, place: Place, packet: bytearray, header: Header, now: float) -> None:
        """Outwards: through the gateway that `place` is behind, or over the router."""
        gateway = place.outer
        if gateway is None:
            self._cross(place, packet, header, now)
            return
        host = header.destination.host
        neighbour = gateway.inside.get(host)
        if neighbour is not None:  # one hop away and without delay
            self._schedule(self._arrive, neighbour, packet, header, now)
            return
        if gateway.own and host == gateway.own:
            for answer in gateway.serve(packet, header, now):
                self._speak(place, answer, now)
            return
        if header.hop_limit <= 1:
            self._speak(place, icmp_error(packet, header, _name(gateway, header), Trouble.TIME_EXCEEDED), now)
            return
        header = _fewer_hops(packet, header)
        if host == gateway.external:
            turned = gateway.turn(packet, header, now)
            back = gateway.inside.get(turned.destination.host) if turned is not None else None
            if turned is None or back is None:
                self.counters["filtered"] += 1
            else:
                self._schedule(self._arrive, back, packet, turned, now)
            return
        translated = gateway.outbound(packet, header, now)
        if translated is None:
            self.counters["untranslated"] += 1
            return
        self._leave(gateway, packet, translated, now)

    def _cross(self, origin: Place, packet: bytearray, header: Header, now: float) -> None:
        """From `origin` over the router to another place."""
        access = origin.access
        if access.firewall is not Firewall.NONE and not access.lets_out(header):
            self.counters["blocked"] += 1
            return
        if access.up is None:
            self._route(packet, header, now, now + access.delay)
            return
        for at in access.up.carry(len(packet) - HEADER_SIZE, now):
            self._schedule(self._at_router, origin, bytearray(packet), header, at)

    def _at_router(self, origin: Place, packet: bytearray, header: Header, now: float) -> None:
        self._route(packet, header, now, now)

    def _route(self, packet: bytearray, header: Header, now: float, at: float) -> None:
        """Send on what is at the router at the time `at`."""
        if header.hop_limit <= self.core_hops:
            self._refuse(packet, header, Trouble.TIME_EXCEEDED, at)
            return
        target = self._routes.get(header.destination.host)
        if target is None:
            self.counters["no route"] += 1
            self._refuse(packet, header, Trouble.NO_ROUTE, at)
            return
        access = target.access
        if access.firewall is not Firewall.NONE and not access.lets_in(header):
            self.counters["blocked"] += 1
            return
        header = _fewer_hops(packet, header, self.core_hops)
        if access.down is None:
            self._schedule(self._arrive, target, packet, header, at + access.delay)
        elif at > now:  # a queue must see its packets in the order of their coming
            self._schedule(self._queue_down, target, packet, header, at)
        else:
            self._queue_down(target, packet, header, now)

    def _queue_down(self, target: Place, packet: bytearray, header: Header, now: float) -> None:
        if target.access.down is None:
            self._schedule(self._arrive, target, packet, header, now + target.access.delay)
            return
        for at in target.access.down.carry(len(packet) - HEADER_SIZE, now):
            self._schedule(self._arrive, target, bytearray(packet), header, at)

    def _arrive(self, place: Place, packet: bytearray, header: Header, now: float) -> None:
        """At a device, or at the outside of a gateway: what that lets in depends on what has left by now."""
        if isinstance(place, Port):
            self.counters["delivered" if place.deliver(packet) else "refused"] += 1
            return
        if header.hop_limit <= 1:
            self._answer(place, icmp_error(packet, header, _name(place, header), Trouble.TIME_EXCEEDED), now)
            return
        translated = place.inbound(packet, header, now)
        inside = place.inside.get(translated.destination.host) if translated is not None else None
        if translated is None or inside is None:
            self.counters["filtered"] += 1
            self._answer(place, place.refusal(packet, header), now)
            return
        self._arrive(inside, packet, _fewer_hops(packet, translated), now)

    def _speak(self, place: Place, packet: bytes | None, now: float) -> None:
        """Let the gateway that `place` is behind say something to it."""
        if packet is not None:
            whole = _with_device_header(packet)
            self._schedule(self._arrive, place, whole, parse(whole, HEADER_SIZE), now)

    def _answer(self, gateway: Gateway, packet: bytes | None, now: float) -> None:
        """Let a gateway speak for itself, outwards."""
        if packet is not None:
            whole = _with_device_header(packet)
            self._leave(gateway, whole, parse(whole, HEADER_SIZE), now)

    def _refuse(self, packet: bytearray, header: Header, trouble: Trouble, at: float) -> None:
        """Answer with an ICMP error that is at the router at that time."""
        error = icmp_error(packet, header, ROUTER_V6 if header.version == 6 else ROUTER_V4, trouble)
        target = self._routes.get(header.source.host)
        if error is not None and target is not None:
            self._speak(target, error, at + target.access.delay)

    def _schedule(self, action: _Action, place: Place, packet: bytearray, header: Header, at: float) -> None:
        if place.queued + len(packet) > QUEUE_LIMIT:
            self.counters["queue full"] += 1
            return
        place.queued += len(packet)
        self._sequence += 1
        heappush(self._queue, (at, self._sequence, action, place, packet, header))


def _fewer_hops(packet: bytearray, header: Header, hops: int = 1) -> Header:
    decrement_hop_limit(packet, header, hops)
    return header._replace(hop_limit=header.hop_limit - hops)


def _name(gateway: Gateway, header: Header) -> str:
    """What a gateway signs its ICMP errors about such a packet with."""
    return ROUTER_V6 if header.version == 6 else gateway.external or ROUTER_V4


def _with_device_header(packet: bytes) -> bytearray:
    return bytearray(HEADER_SIZE) + packet
