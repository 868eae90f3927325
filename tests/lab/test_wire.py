"""The laboratory's router and gateways in virtual time: packets in at one port, out at another."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field

import pytest

from crowline.base.addresses import Address
from crowline.lab.access import Access
from crowline.lab.behaviour import NatBehaviour
from crowline.lab.gateway import Gateway
from crowline.lab.packet import (
    UDP,
    Kind,
    Trouble,
    checksum,
    icmp_error,
    parse,
    parse_quoted,
)
from crowline.lab.presets import FULL_CONE, HOME, SYMMETRIC
from crowline.lab.profile import Firewall
from crowline.lab.tun import HEADER_SIZE
from crowline.lab.wire import QUEUE_LIMIT, ROUTER_V4, ROUTER_V6, Port, Wire

SERVER = Address("198.51.100.1", 3478)
OTHER = Address("198.51.100.2", 3478)
INSIDE = Address("192.168.1.10", 5000)
INSIDE_V6 = Address("2001:db8:1::10", 5000)
SERVER_V6 = Address("2001:db8::1", 3478)
OUTSIDE = "203.0.113.1"
DELAY = 0.010


def packet(source: Address, destination: Address, hops: int = 64, payload: bytes = b"data") -> bytearray:
    """A UDP packet without transport checksum (IPv4 allows that), behind an empty device header."""
    udp = struct.pack("!HHHH", source.port, destination.port, 8 + len(payload), 0) + payload
    if source.is_ipv6:
        head = bytearray(struct.pack("!IHBB", 0x60000000, len(udp), UDP, hops))
        head += source.packed + destination.packed
    else:
        head = bytearray(struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, hops, UDP, 0))
        head += source.packed + destination.packed
        struct.pack_into("!H", head, 10, checksum(head))
    return bytearray(HEADER_SIZE) + head + udp


@dataclass
class End:
    """A port and what came out of it: the time and the packet."""

    port: Port
    got: list[tuple[float, bytearray]] = field(default_factory=list)


class Bench:
    """A server, a second server and one site with two hosts, in virtual time."""

    def __init__(self, behaviour: NatBehaviour = HOME, *, firewalled: bool = False) -> None:
        self.now = 0.0
        self.wire = Wire()
        entropy: Callable[[int], bytes] = random.Random(1).randbytes
        self.server = self.end("server", 0.0)
        self.other = self.end("other", 0.0)
        self.gateway = Gateway.build("site", OUTSIDE, behaviour, entropy)
        self.gateway.access.delay = DELAY
        self.inside = self.end("inside", 0.0, self.gateway)
        self.neighbour = self.end("neighbour", 0.0, self.gateway)
        for host in (INSIDE.host, INSIDE_V6.host):
            self.gateway.admit(host, self.inside.port, firewalled=firewalled, entropy=entropy)
        self.gateway.admit("192.168.1.11", self.neighbour.port, firewalled=firewalled, entropy=entropy)
        self.wire.route([SERVER.host, SERVER_V6.host], self.server.port)
        self.wire.route([OTHER.host], self.other.port)
        self.wire.route([OUTSIDE, INSIDE_V6.host], self.gateway)

    def end(self, name: str, delay: float, gateway: Gateway | None = None) -> End:
        def deliver(data: bytearray) -> bool:
            made.got.append((self.now, data))
            return True

        made = End(Port(name, deliver, Access(delay), gateway))
        return made

    def send(self, end: End, data: bytearray) -> None:
        self.wire.forward(end.port, data, self.now)

    def run(self) -> None:
        """Jump from deadline to deadline until nothing is on its way."""
        while (due := self.wire.next_timeout()) is not None:
            self.now = max(self.now, due)
            self.wire.handle_timeout(self.now)

    def mapped(self) -> Address:
        """Send from the inside to the server; the outside address that it saw."""
        self.send(self.inside, packet(INSIDE, SERVER))
        self.run()
        return parse(self.server.got[-1][1], HEADER_SIZE).source


def payload(data: bytearray) -> bytes:
    return bytes(data[parse(data, HEADER_SIZE).transport + 8 :])


def test_a_packet_arrives_after_both_delays() -> None:
    """Not before, not changed but for its source and its hops."""
    bench = Bench()
    bench.send(bench.inside, packet(INSIDE, SERVER))
    assert bench.wire.next_timeout() == DELAY
    bench.wire.handle_timeout(DELAY - 0.001)
    assert bench.server.got == []
    bench.run()
    [(when, data)] = bench.server.got
    header = parse(data, HEADER_SIZE)
    assert when == DELAY
    assert (header.source, header.destination) == (Address(OUTSIDE, INSIDE.port), SERVER)
    assert header.hop_limit == 62
    assert payload(data) == b"data"
    assert bench.wire.next_timeout() is None


def test_the_answer_finds_its_way_back() -> None:
    """Through the mapping to the inside host and port."""
    bench = Bench()
    bench.send(bench.server, packet(SERVER, bench.mapped()))
    bench.run()
    when, data = bench.inside.got[-1]
    assert parse(data, HEADER_SIZE).destination == INSIDE
    assert when == 2 * DELAY


def test_filters_look_at_the_time_of_arrival() -> None:
    """A packet sent before the hole was there passes when the hole is there as it arrives."""
    bench = Bench()
    bench.send(bench.server, packet(SERVER, Address(OUTSIDE, INSIDE.port)))
    bench.now = DELAY / 2
    bench.send(bench.inside, packet(INSIDE, SERVER))
    bench.run()
    assert len(bench.inside.got) == 1


@pytest.mark.parametrize(("behaviour", "passes"), [(HOME, False), (FULL_CONE, True)])
def test_strangers_pass_as_the_behaviour_says(behaviour: NatBehaviour, passes: bool) -> None:
    """The wire asks the translator and does what it says."""
    bench = Bench(behaviour)
    bench.send(bench.other, packet(OTHER, bench.mapped()))
    bench.run()
    assert bool(bench.inside.got) == passes
    assert bench.wire.counters["filtered"] == (not passes)


def test_a_symmetric_gateway_maps_anew() -> None:
    """Two destinations see two ports."""
    bench = Bench(SYMMETRIC)
    first = bench.mapped()
    bench.send(bench.inside, packet(INSIDE, OTHER))
    bench.run()
    assert parse(bench.other.got[0][1], HEADER_SIZE).source != first


def test_neighbours_are_near() -> None:
    """Inside a site there is no delay, no hop and no translation."""
    bench = Bench()
    neighbour = Address("192.168.1.11", 5000)
    bench.send(bench.inside, packet(INSIDE, neighbour, hops=1))
    bench.run()
    [(when, data)] = bench.neighbour.got
    header = parse(data, HEADER_SIZE)
    assert (when, header.source, header.hop_limit) == (0.0, INSIDE, 1)


@pytest.mark.parametrize(
    ("hops", "router", "after"), [(1, OUTSIDE, 0.0), (2, ROUTER_V4, 2 * DELAY)], ids=["gateway", "router"]
)
def test_exhausted_hops_are_reported_to_the_inside(hops: int, router: str, after: float) -> None:
    """Whoever takes the last hop says so, and the quotation is translated back to what the host sent."""
    bench = Bench()
    bench.send(bench.inside, packet(INSIDE, SERVER, hops=hops))
    bench.run()
    [(when, data)] = bench.inside.got
    header = parse(data, HEADER_SIZE)
    quoted = parse_quoted(data, header)
    assert (header.kind, header.source.host, header.destination.host) == (Kind.ERROR, router, INSIDE.host)
    assert (quoted.source, quoted.destination) == (INSIDE, SERVER)
    assert when == after
    assert checksum(data[header.transport :]) == 0
    assert bench.server.got == []


@pytest.mark.parametrize("version", [4, 6])
def test_a_router_that_stands_for_several_takes_as_many_hops(version: int) -> None:
    """What has that many left dies there, and what has more is none the worse for it."""
    bench = Bench()
    bench.wire.core_hops = 8
    source, target = (INSIDE, SERVER) if version == 4 else (INSIDE_V6, SERVER_V6)
    bench.send(bench.inside, packet(source, target, hops=9))
    bench.run()
    [(_, data)] = bench.inside.got
    header = parse(data, HEADER_SIZE)
    router = ROUTER_V4 if version == 4 else ROUTER_V6
    assert (header.kind, header.source.host, bench.server.got) == (Kind.ERROR, router, [])
    bench.send(bench.inside, packet(source, target, hops=10))
    bench.run()
    [(_, data)] = bench.server.got
    header = parse(data, HEADER_SIZE)
    assert header.hop_limit == 1
    if version == 4:
        assert checksum(data[header.start : header.start + 20]) == 0


def test_hops_exhausted_at_the_far_gateway_are_reported() -> None:
    """The far gateway answers from its outside address, before it asks its translator."""
    bench = Bench()
    bench.send(bench.server, packet(SERVER, Address(OUTSIDE, 9), hops=2))
    bench.run()
    [(when, data)] = bench.server.got
    assert parse(data, HEADER_SIZE).source.host == OUTSIDE
    assert when == 2 * DELAY


def test_a_report_from_outside_is_translated() -> None:
    """An error about a translated packet reaches the host that sent it, quoting what it sent."""
    bench = Bench()
    bench.mapped()
    offender = bench.server.got[-1][1][HEADER_SIZE:]
    error = icmp_error(offender, parse(offender), SERVER.host, Trouble.PROHIBITED)
    assert error is not None
    bench.send(bench.server, bytearray(HEADER_SIZE) + error)
    bench.run()
    data = bench.inside.got[-1][1]
    assert parse_quoted(data, parse(data, HEADER_SIZE)).source == INSIDE


def test_a_report_from_inside_is_translated() -> None:
    """An error of an inside host about a packet from outside names the outside addresses only."""
    bench = Bench()
    bench.send(bench.server, packet(SERVER, bench.mapped()))
    bench.run()
    offender = bench.inside.got[-1][1][HEADER_SIZE:]
    error = icmp_error(offender, parse(offender), INSIDE.host, Trouble.PROHIBITED)
    assert error is not None
    bench.send(bench.inside, bytearray(HEADER_SIZE) + error)
    bench.run()
    data = bench.server.got[-1][1]
    header = parse(data, HEADER_SIZE)
    assert header.source.host == OUTSIDE
    assert parse_quoted(data, header).destination == Address(OUTSIDE, INSIDE.port)


def test_a_forged_report_is_filtered() -> None:
    """An error about a packet that no mapping has sent goes nowhere."""
    bench = Bench()
    bench.mapped()
    forged = packet(Address(OUTSIDE, 4444), SERVER)[HEADER_SIZE:]
    error = icmp_error(forged, parse(forged), SERVER.host, Trouble.NO_ROUTE)
    assert error is not None
    bench.send(bench.server, bytearray(HEADER_SIZE) + error)
    bench.run()
    assert bench.inside.got == []
    assert bench.wire.counters["filtered"] == 1


@pytest.mark.parametrize("firewalled", [False, True])
def test_ipv6_keeps_its_addresses(firewalled: bool) -> None:
    """A firewall lets in answers only; without one everybody may call."""
    bench = Bench(firewalled=firewalled)
    bench.send(bench.server, packet(SERVER_V6, INSIDE_V6))
    bench.run()
    assert len(bench.inside.got) == (not firewalled)
    bench.send(bench.inside, packet(INSIDE_V6, SERVER_V6))
    bench.run()
    assert parse(bench.server.got[-1][1], HEADER_SIZE).source == INSIDE_V6
    bench.send(bench.server, packet(SERVER_V6, INSIDE_V6))
    bench.run()
    assert len(bench.inside.got) == (1 if firewalled else 2)


def test_nowhere_is_reported() -> None:
    """A destination that nobody has is unreachable, private ones of another site included."""
    bench = Bench()
    for host in ("1.2.3.4", INSIDE.host):
        bench.send(bench.server, packet(SERVER, Address(host, 1)))
    bench.run()
    assert [data[HEADER_SIZE + 20] for _, data in bench.server.got] == [3, 3]
    assert bench.inside.got == []
    assert bench.wire.counters["no route"] == 2


@pytest.mark.parametrize("blocked_at", ["server", "site"])
def test_a_blocked_protocol_neither_enters_nor_leaves(blocked_at: str) -> None:
    """Whichever of the two ends blocks it; inside the site it still flows."""
    bench = Bench()
    target = bench.server.port if blocked_at == "server" else bench.gateway
    target.access.firewall = Firewall.UDP_BLOCKED
    bench.send(bench.inside, packet(INSIDE, SERVER))
    bench.send(bench.server, packet(SERVER, Address(OUTSIDE, INSIDE.port)))
    bench.send(bench.inside, packet(INSIDE, Address("192.168.1.11", 1)))
    bench.run()
    assert (bench.server.got, bench.inside.got) == ([], [])
    assert bench.wire.counters["blocked"] == 2
    assert len(bench.neighbour.got) == 1


def test_queues_are_bounded() -> None:
    """What exceeds the limit is dropped and counted, and the queue serves again once it has drained."""
    bench = Bench()
    big = packet(SERVER, OTHER, payload=b"x" * 60000)
    fitting = QUEUE_LIMIT // len(big)
    bench.other.port.access.delay = DELAY
    for _ in range(fitting + 5):
        bench.send(bench.server, bytearray(big))
    assert bench.wire.counters["queue full"] == 5
    bench.run()
    assert len(bench.other.got) == fitting
    bench.send(bench.server, bytearray(big))
    bench.run()
    assert len(bench.other.got) == fitting + 1
    assert bench.other.port.queued == 0


def test_order_is_kept() -> None:
    """Packets of one pair arrive in the order in which they were sent."""
    bench = Bench()
    for number in range(50):
        bench.send(bench.inside, packet(INSIDE, SERVER, payload=bytes([number])))
    bench.run()
    assert [payload(data)[0] for _, data in bench.server.got] == list(range(50))


def test_garbage_is_counted() -> None:
    """Bytes that are no packet are dropped, wherever they come from."""
    bench = Bench()
    for data in (b"", b"\0" * HEADER_SIZE, b"\0" * 30, b"\xff" * 90):
        bench.send(bench.inside, bytearray(data))
        bench.send(bench.server, bytearray(data))
    bench.run()
    assert bench.wire.counters["malformed"] == 8
    assert (bench.server.got, bench.inside.got) == ([], [])
