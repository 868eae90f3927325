"""The wire with more than one gateway on the way, with hairpins, refusals, losses and slow lines."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from crowline.base.addresses import Address
from crowline.lab.access import Access
from crowline.lab.behaviour import Hairpin, NatBehaviour, UnsolicitedSyn
from crowline.lab.gateway import Gateway
from crowline.lab.impairment import Impairment
from crowline.lab.packet import (
    TCP,
    UDP,
    Header,
    Kind,
    Trouble,
    checksum,
    icmp_error,
    ipv4_header,
    ipv6_header,
    parse,
    parse_quoted,
)
from crowline.lab.presets import CARRIER, FULL_CONE, HOME, SYMMETRIC
from crowline.lab.profile import Firewall
from crowline.lab.tun import HEADER_SIZE
from crowline.lab.wire import Port, Wire

SERVER = Address("198.51.100.1", 3478)
INSIDE, NEIGHBOUR = Address("192.168.1.10", 5000), Address("192.168.1.11", 5001)
BETWEEN, OUTSIDE = "100.64.1.2", "203.0.113.1"
INSIDE_V6, SERVER_V6 = Address("2001:db8:1::10", 5000), Address("2001:db8::1", 3478)
DELAY = 0.010
ENTROPY: Callable[[int], bytes] = random.Random(1).randbytes


def datagram(source: Address, destination: Address, hops: int = 64, payload: bytes = b"data") -> bytearray:
    udp = struct.pack("!HHHH", source.port, destination.port, 8 + len(payload), 0) + payload
    return with_header(source, destination, UDP, udp, hops)


def opening(source: Address, destination: Address) -> bytearray:
    segment = struct.pack("!HHIIBBHHH", source.port, destination.port, 7, 0, 0x50, 0x02, 1000, 0, 0)
    return with_header(source, destination, TCP, segment, 64)


def with_header(source: Address, destination: Address, protocol: int, body: bytes, hops: int) -> bytearray:
    head = ipv6_header if source.is_ipv6 else ipv4_header
    hosts = source.packed + destination.packed
    return bytearray(HEADER_SIZE) + head(hosts, len(body), protocol, hop_limit=hops) + body


@dataclass
class End:
    port: Port
    got: list[tuple[float, bytearray]] = field(default_factory=list)

    @property
    def headers(self) -> list[Header]:
        return [parse(data, HEADER_SIZE) for _, data in self.got]


class World:
    """Two hosts behind `nats`, innermost first, and a server; all in virtual time."""

    def __init__(self, *nats: NatBehaviour) -> None:
        self.now = 0.0
        self.wire = Wire()
        self.gateways: list[Gateway] = []
        outer = None
        for layer, behaviour in reversed(list(enumerate(nats))):
            external = OUTSIDE if layer == len(nats) - 1 else BETWEEN
            gateway = Gateway.build(f"nat{layer}", external, behaviour, ENTROPY)
            gateway.outer = outer
            if outer is not None:
                outer.admit(external, gateway)
            else:
                gateway.access.delay = DELAY
                self.wire.route([external], gateway)
            self.gateways.insert(0, gateway)
            outer = gateway
        self.server = self.end(Access(), None)
        self.wire.route([SERVER.host, SERVER_V6.host], self.server.port)
        self.inside, self.neighbour = self.end(Access(), outer), self.end(Access(), outer)
        if outer is not None:
            outer.admit(INSIDE.host, self.inside.port)
            outer.admit(NEIGHBOUR.host, self.neighbour.port)

    def end(self, access: Access, outer: Gateway | None) -> End:
        def deliver(data: bytearray) -> bool:
            made.got.append((self.now, data))
            return True

        made = End(Port("end", deliver, access, outer))
        return made

    def send(self, end: End, data: bytearray) -> None:
        self.wire.forward(end.port, data, self.now)
        while (due := self.wire.next_timeout()) is not None:
            self.now = max(self.now, due)
            self.wire.handle_timeout(self.now)

    def mapped(self, end: End, source: Address) -> Address:
        self.send(end, datagram(source, SERVER))
        return self.server.headers[-1].source


def test_two_layers_translate_twice_and_back() -> None:
    """The server sees the outermost address; each layer takes a hop; the answer finds its way."""
    world = World(HOME, CARRIER)
    outside = world.mapped(world.inside, INSIDE)
    assert outside.host == OUTSIDE and outside.port != INSIDE.port
    assert world.server.headers[-1].hop_limit == 61
    assert world.server.got[-1][0] == DELAY
    world.send(world.server, datagram(SERVER, outside))
    assert world.inside.headers[-1].destination == INSIDE
    assert world.inside.headers[-1].hop_limit == 61


@pytest.mark.parametrize(
    ("hops", "router"), [(1, BETWEEN), (2, OUTSIDE), (3, "44.0.0.1")], ids=["inner", "outer", "router"]
)
def test_exhausted_hops_are_reported_through_the_layers(hops: int, router: str) -> None:
    """Whichever router takes the last hop, the inside host hears of the packet that it has sent."""
    world = World(HOME, CARRIER)
    world.send(world.inside, datagram(INSIDE, SERVER, hops))
    [(_, data)] = world.inside.got
    header = parse(data, HEADER_SIZE)
    quoted = parse_quoted(data, header)
    assert (header.kind, header.source.host, header.destination.host) == (Kind.ERROR, router, INSIDE.host)
    assert (quoted.source, quoted.destination) == (INSIDE, SERVER)
    assert checksum(data[header.transport :]) == 0


def test_a_report_from_outside_passes_both_layers() -> None:
    """An error about a translated packet reaches the host that sent it."""
    world = World(HOME, SYMMETRIC)
    world.mapped(world.inside, INSIDE)
    offender = world.server.got[-1][1][HEADER_SIZE:]
    error = icmp_error(offender, parse(offender), SERVER.host, Trouble.PROHIBITED)
    assert error is not None
    world.send(world.server, bytearray(HEADER_SIZE) + error)
    data = world.inside.got[-1][1]
    assert parse_quoted(data, parse(data, HEADER_SIZE)).source == INSIDE


@pytest.mark.parametrize("kind", Hairpin)
def test_hairpins_are_as_described(kind: Hairpin) -> None:
    """A neighbour's outside address leads back in or not, with the sender's outside or inside source."""
    world = World(replace(FULL_CONE, hairpin=kind))
    outside = world.mapped(world.neighbour, NEIGHBOUR)
    mine = world.mapped(world.inside, INSIDE)
    world.send(world.inside, datagram(INSIDE, outside))
    if kind is Hairpin.NONE:
        assert world.neighbour.got == [] and world.wire.counters["filtered"] == 1
        return
    [header] = world.neighbour.headers
    assert header.destination == NEIGHBOUR
    assert header.source == (mine if kind is Hairpin.EXTERNAL_SOURCE else INSIDE)


def test_a_hairpin_turns_at_the_carrier() -> None:
    """Behind two layers the outermost address leads back through the carrier's gateway and the inner one."""
    world = World(FULL_CONE, replace(CARRIER, filtering=FULL_CONE.filtering))
    outside = world.mapped(world.neighbour, NEIGHBOUR)
    world.send(world.inside, datagram(INSIDE, outside))
    [header] = world.neighbour.headers
    assert header.destination == NEIGHBOUR and header.source.host == OUTSIDE


@pytest.mark.parametrize("answer", UnsolicitedSyn)
@pytest.mark.parametrize("layers", [(), (HOME,)], ids=["one layer", "two layers"])
def test_unsolicited_openings_are_answered_as_described(
    answer: UnsolicitedSyn, layers: tuple[NatBehaviour, ...]
) -> None:
    """Silence, RST with the right number, or an ICMP error; always from the address that was tried."""
    world = World(*layers, replace(HOME, unsolicited_syn=answer))
    world.send(world.server, opening(SERVER, Address(OUTSIDE, 4444)))
    if answer is UnsolicitedSyn.DROP:
        assert world.server.got == []
        return
    [(when, data)] = world.server.got
    header = parse(data, HEADER_SIZE)
    assert when == 2 * DELAY and header.source.host == OUTSIDE
    if answer is UnsolicitedSyn.ICMP:
        assert header.kind is Kind.ERROR
        assert parse_quoted(data, header).destination == Address(OUTSIDE, 4444)
        return
    assert (header.source, header.destination) == (Address(OUTSIDE, 4444), SERVER)
    segment = bytes(data[header.transport :])
    sequence, acknowledged, flags = struct.unpack_from("!II1xB", segment, 4)
    assert (sequence, acknowledged, flags) == (0, 8, 0x14)
    pseudo = header.source.packed + header.destination.packed + struct.pack("!HH", TCP, len(segment))
    assert checksum(pseudo + segment) == 0


def test_only_openings_are_refused_aloud() -> None:
    """A datagram that nobody asked for is dropped in silence even where a SYN is not."""
    world = World(replace(HOME, unsolicited_syn=UnsolicitedSyn.RST))
    world.send(world.server, datagram(SERVER, Address(OUTSIDE, 4444)))
    assert world.server.got == [] and world.wire.counters["filtered"] == 1


def test_a_gateway_without_translator_guards_ipv6() -> None:
    """IPv4 passes as it is in both directions; IPv6 comes in only as an answer."""
    world = World()
    guard = Gateway("guard", "", None)
    inside = world.end(Access(), guard)
    public = Address("203.0.113.9", 5000)
    guard.admit(public.host, inside.port)
    guard.admit(INSIDE_V6.host, inside.port, firewalled=True, entropy=ENTROPY)
    world.wire.route([public.host, INSIDE_V6.host], guard)
    world.send(world.server, datagram(SERVER, public))
    world.send(world.server, datagram(SERVER_V6, INSIDE_V6))
    assert [header.destination for header in inside.headers] == [public]
    world.send(inside, datagram(INSIDE_V6, SERVER_V6))
    assert world.server.headers[-1].source == INSIDE_V6
    world.send(world.server, datagram(SERVER_V6, INSIDE_V6))
    assert inside.headers[-1].destination == INSIDE_V6


@pytest.mark.parametrize("upwards", [True, False])
def test_lines_lose_in_both_directions(upwards: bool) -> None:
    """About the share that was asked for, and every loss is counted."""
    world = World(HOME)
    world.gateways[0].access.impair(Impairment(DELAY, loss=0.3), random.Random(7), world.wire.counters)
    outside = next(iter([world.mapped(world.inside, INSIDE) for _ in range(20)]))
    world.server.got.clear()
    world.wire.counters.clear()
    for _ in range(500):
        if upwards:
            world.send(world.inside, datagram(INSIDE, SERVER))
        else:
            world.send(world.server, datagram(SERVER, outside))
    arrived = len(world.server.got if upwards else world.inside.got)
    assert 310 < arrived < 390
    assert world.wire.counters["lost"] == 500 - arrived


def test_slow_lines_queue_and_overflow() -> None:
    """Packets leave at the line's rate one after the other; what the queue cannot take is dropped."""
    world = World()
    slow = world.end(Access(), None)
    world.wire.route(["203.0.113.9"], slow.port)
    rate = Impairment(DELAY, rate=10_000, queue=5_000)
    slow.port.access.impair(rate, random.Random(1), world.wire.counters)
    packet = datagram(SERVER, Address("203.0.113.9", 1), payload=b"x" * 972)
    assert len(packet) - HEADER_SIZE == 1000
    for _ in range(8):
        world.wire.forward(world.server.port, bytearray(packet), 0.0)
    world.send(world.server, bytearray(packet))
    assert [round(when, 6) for when, _ in slow.got] == [0.11, 0.21, 0.31, 0.41, 0.51]
    assert world.wire.counters["queue full"] == 4


def test_queues_see_packets_in_the_order_of_their_coming() -> None:
    """A packet from far away that was sent earlier does not hold up a near one that comes first."""
    world = World()
    far, slow = world.end(Access(0.5), None), world.end(Access(), None)
    world.wire.route(["203.0.113.9"], slow.port)
    world.wire.route(["203.0.113.8"], far.port)
    slow.port.access.impair(Impairment(jitter=1e-9), random.Random(1), world.wire.counters)
    target = Address("203.0.113.9", 1)
    world.wire.forward(far.port, datagram(Address("203.0.113.8", 1), target), 0.0)
    world.now = 0.1
    world.send(world.server, datagram(SERVER, target))
    assert [round(when, 3) for when, _ in slow.got] == [0.1, 0.5]
    assert [header.source for header in slow.headers] == [SERVER, Address("203.0.113.8", 1)]


def test_firewalls_stand_outside_of_translators() -> None:
    """What they refuse neither leaves nor enters, and the site itself does not notice."""
    world = World(FULL_CONE)
    outside = world.mapped(world.inside, INSIDE)
    world.gateways[0].access.firewall = Firewall.UDP_BLOCKED
    world.send(world.inside, datagram(INSIDE, SERVER))
    world.send(world.server, datagram(SERVER, outside))
    world.send(world.inside, datagram(INSIDE, NEIGHBOUR))
    assert len(world.server.got) == 1 and world.inside.got == []
    assert len(world.neighbour.got) == 1
    assert world.wire.counters["blocked"] == 2
