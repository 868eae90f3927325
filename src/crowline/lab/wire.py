"""The laboratory's internet: one router that every port reaches after the port's delay, and nothing beyond.

A port is a tunnel device in some namespace. What comes in there is routed by its destination, one hop limit
less, and comes out of another port when both delays have passed. A `Gateway` may stand between the router and
a group of ports. Time is an argument, and the devices are functions: `lab/wire_process.py` has the real ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from heapq import heappop, heappush
from typing import TypeAlias

from crowline.lab.gateway import Gateway
from crowline.lab.packet import (
    Header,
    MalformedPacket,
    Trouble,
    decrement_hop_limit,
    icmp_error,
    parse,
)
from crowline.lab.tun import HEADER_SIZE

# Bytes that may be on their way to one place: 20 ms of 1.6 GB/s, far above what any test means to queue.
QUEUE_LIMIT = 32 << 20

ROUTER_V4 = "44.0.0.1"  # what the router signs its ICMP errors with
ROUTER_V6 = "2a01:100::1"


@dataclass(slots=True, eq=False)
class Port:
    """A way out of the router. `deliver` takes a packet with its device header; ``False``: no room.

    `delay` is one way, in seconds. `blocked` are the IP protocols that neither enter nor leave here.
    """

    name: str
    delay: float
    deliver: Callable[[bytearray], bool]
    gateway: Gateway | None = None
    blocked: frozenset[int] = frozenset()
    queued: int = 0


Place: TypeAlias = Port | Gateway


class Wire:
    """Routes packets between ports. `counters` says what became of those that did not arrive."""

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self._routes: dict[str, Place] = {}
        self._queue: list[tuple[float, int, Place, bytearray]] = []
        self._sequence = 0

    def route(self, hosts: Iterable[str], place: Place) -> None:
        """Send packets for `hosts` to that port or gateway."""
        for host in hosts:
            self._routes[host] = place

    def forward(self, port: Port, packet: bytearray, now: float) -> None:
        """A packet came out of the namespace behind `port`. The buffer belongs to the wire from here on."""
        try:
            header = parse(packet, HEADER_SIZE)
            if port.gateway is None:
                self._cross(packet, header, port, now)
            else:
                self._leave(port, port.gateway, packet, header, now)
        except MalformedPacket:
            self.counters["malformed"] += 1

    def handle_timeout(self, now: float) -> None:
        """Deliver everything whose time has come."""
        while self._queue and self._queue[0][0] <= now:
            due, _, place, packet = heappop(self._queue)
            place.queued -= len(packet)
            if isinstance(place, Port):
                self._deliver(place, packet)
            else:
                self._arrive(place, packet, due)

    def next_timeout(self) -> float | None:
        return self._queue[0][0] if self._queue else None

    def _leave(self, port: Port, gateway: Gateway, packet: bytearray, header: Header, now: float) -> None:
        """From an inside port through its gateway: neighbours are one hop away and without delay."""
        neighbour = gateway.inside.get(header.destination.host)
        if neighbour is not None:
            self._schedule(neighbour, packet, now)
            return
        if header.hop_limit <= 1:
            router = gateway.external if header.version == 4 else ROUTER_V6
            error = icmp_error(packet, header, router, Trouble.TIME_EXCEEDED)
            if error is not None:
                self._schedule(port, _with_device_header(error), now)
            return
        decrement_hop_limit(packet, header)
        if not gateway.outbound(packet, header, now):
            self.counters["untranslated"] += 1
            return
        self._cross(packet, parse(packet, HEADER_SIZE), gateway, now)

    def _cross(self, packet: bytearray, header: Header, origin: Place, now: float) -> None:
        """From the outside of `origin` over the router to the outside of another place."""
        if header.protocol in origin.blocked:
            self.counters["blocked"] += 1
            return
        if header.hop_limit <= 1:
            self._refuse(packet, header, Trouble.TIME_EXCEEDED, now + origin.delay)
            return
        target = self._routes.get(header.destination.host)
        if target is None:
            self.counters["no route"] += 1
            self._refuse(packet, header, Trouble.NO_ROUTE, now + origin.delay)
            return
        if header.protocol in target.blocked:
            self.counters["blocked"] += 1
            return
        decrement_hop_limit(packet, header)
        delay = 0.0 if target is origin else origin.delay + target.delay  # a hairpin stays at its gateway
        self._schedule(target, packet, now + delay)

    def _arrive(self, gateway: Gateway, packet: bytearray, now: float) -> None:
        """At the outside of a gateway: what it lets in depends on what has left by now."""
        header = parse(packet, HEADER_SIZE)
        if header.hop_limit <= 1:
            self._refuse(packet, header, Trouble.TIME_EXCEEDED, now + gateway.delay, router=gateway.external)
            return
        port = gateway.inbound(packet, header, now)
        if port is None:
            self.counters["filtered"] += 1
            return
        decrement_hop_limit(packet, header)
        self._deliver(port, packet)

    def _refuse(
        self, packet: bytearray, header: Header, trouble: Trouble, at: float, router: str | None = None
    ) -> None:
        """Answer with an ICMP error that is at the router at that time."""
        source = ROUTER_V6 if header.version == 6 else router or ROUTER_V4
        error = icmp_error(packet, header, source, trouble)
        target = self._routes.get(header.source.host)
        if error is not None and target is not None:
            self._schedule(target, _with_device_header(error), at + target.delay)

    def _schedule(self, place: Place, packet: bytearray, at: float) -> None:
        if place.queued + len(packet) > QUEUE_LIMIT:
            self.counters["queue full"] += 1
            return
        place.queued += len(packet)
        self._sequence += 1
        heappush(self._queue, (at, self._sequence, place, packet))

    def _deliver(self, port: Port, packet: bytearray) -> None:
        self.counters["delivered" if port.deliver(packet) else "refused"] += 1


def _with_device_header(packet: bytes) -> bytearray:
    return bytearray(HEADER_SIZE) + packet
