"""The virtual internet itself: routing, translation, delay, loss, and that a seed repeats a run."""

from __future__ import annotations

from collections import deque
from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.lab.attempt import stun_server
from crowline.lab.behaviour import Hairpin
from crowline.lab.presets import FULL_CONE, HOME, SYMMETRIC
from crowline.lab.virtual import LAN_DELAY, Internet, Node
from crowline.stun.client import BindingClient, Mapped

SERVER = Address("198.51.100.1", 3478)


class Recorder:
    """A machine that keeps what it gets with the time, and sends what it is told."""

    def __init__(self) -> None:
        self.got: list[tuple[float, bytes, Address]] = []
        self.out: deque[Transmit] = deque()
        self.alarm: float | None = None
        self.woken: list[float] = []

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        self.got.append((now, bytes(data), source))

    def handle_timeout(self, now: float) -> None:
        self.woken.append(now)
        self.alarm = None

    def next_timeout(self) -> float | None:
        return self.alarm

    def next_transmit(self) -> Transmit | None:
        return self.out.popleft() if self.out else None

    def next_event(self) -> None:
        return None


def machine(internet: Internet, host: str, port: int = 5000, network: object = None) -> tuple[Recorder, Node]:
    recorder = Recorder()
    node = internet.attach(recorder)
    place = internet.host(host, network)  # type: ignore[arg-type]
    internet.bind(node, place, Address(host, port))
    return recorder, node


def send(internet: Internet, node: Node, data: bytes, destination: Address) -> None:
    assert isinstance(node.machine, Recorder)
    node.machine.out.append(Transmit(data, destination))
    internet.poke(node)


def test_a_packet_takes_the_delay_between_its_places() -> None:
    """The default, or what was set for the two, both ways."""
    internet = Internet(delay=0.03)
    one, node = machine(internet, "203.0.113.1")
    two, far = machine(internet, "203.0.113.2")
    three, _ = machine(internet, "203.0.113.3")
    internet.set_delay(next(iter(node.hosts.values())), next(iter(far.hosts.values())), 0.2)
    send(internet, node, b"a", Address("203.0.113.2", 5000))
    send(internet, node, b"b", Address("203.0.113.3", 5000))
    send(internet, far, b"c", Address("203.0.113.1", 5000))
    internet.run()
    assert [time for time, _, _ in two.got + three.got + one.got] == pytest.approx([0.2, 0.03, 0.2])


def test_a_packet_leaves_a_site_translated_and_the_answer_comes_in() -> None:
    """The server sees the outside address; its answer reaches the inside."""
    internet = Internet()
    site = internet.site(HOME, "203.0.113.9")
    inside, node = machine(internet, "10.0.0.2", network=site)
    server, server_node = machine(internet, SERVER.host, SERVER.port)
    send(internet, node, b"hello", SERVER)
    internet.run()
    ((_, data, source),) = server.got
    assert (data, source) == (b"hello", Address("203.0.113.9", 5000))
    send(internet, server_node, b"welcome", source)
    internet.run()
    assert [(data, source) for _, data, source in inside.got] == [(b"welcome", SERVER)]


def test_an_uninvited_packet_is_filtered_at_its_arrival() -> None:
    """The filter looks at the time of arrival: a hole opened meanwhile lets the packet in."""
    internet = Internet(delay=0.05)
    site = internet.site(HOME, "203.0.113.9")
    inside, node = machine(internet, "10.0.0.2", network=site)
    _, outside = machine(internet, SERVER.host, SERVER.port)
    send(internet, outside, b"too early", Address("203.0.113.9", 5000))
    internet.run()
    assert (inside.got, internet.counters["filtered"]) == ([], 1)
    send(internet, outside, b"in time", Address("203.0.113.9", 5000))
    internet.call_at(internet.now + 0.02, lambda: send(internet, node, b"opens", SERVER))
    internet.run()
    assert [data for _, data, _ in inside.got] == [b"in time"]


def test_neighbours_talk_inside_their_site() -> None:
    """No translation, the short delay, and sites with the same inside addresses do not meet."""
    internet = Internet()
    first, second = internet.site(HOME, "203.0.113.8"), internet.site(HOME, "203.0.113.9")
    _, node = machine(internet, "10.0.0.2", network=first)
    near, _ = machine(internet, "10.0.0.3", network=first)
    far, _ = machine(internet, "10.0.0.3", network=second)
    send(internet, node, b"hi", Address("10.0.0.3", 5000))
    internet.run()
    assert near.got == [(pytest.approx(LAN_DELAY), b"hi", Address("10.0.0.2", 5000))]
    assert far.got == []


@pytest.mark.parametrize("hairpin", [Hairpin.NONE, Hairpin.EXTERNAL_SOURCE])
def test_hairpin_is_what_the_translator_says(hairpin: Hairpin) -> None:
    """Neighbours reach each other by their outside addresses only with hairpinning."""
    internet = Internet()
    site = internet.site(replace(FULL_CONE, hairpin=hairpin), "203.0.113.9")
    one, one_node = machine(internet, "10.0.0.2", 5001, network=site)
    _, two_node = machine(internet, "10.0.0.3", 5002, network=site)
    machine(internet, SERVER.host, SERVER.port)
    send(internet, one_node, b"open", SERVER)
    send(internet, two_node, b"hi", Address("203.0.113.9", 5001))
    internet.run()
    assert [source for _, _, source in one.got] == (
        [] if hairpin is Hairpin.NONE else [Address("203.0.113.9", 5002)]
    )


def test_sites_nest() -> None:
    """Behind a home NAT behind a carrier's NAT: the server sees the carrier, the answer finds its way."""
    internet = Internet()
    carrier = internet.site(SYMMETRIC, "203.0.113.9")
    home = internet.site(HOME, "100.64.0.7", parent=carrier)
    inside, node = machine(internet, "10.0.0.2", network=home)
    server, server_node = machine(internet, SERVER.host, SERVER.port)
    send(internet, node, b"hello", SERVER)
    internet.run()
    source = server.got[0][2]
    assert source.host == "203.0.113.9"
    send(internet, server_node, b"welcome", source)
    internet.run()
    assert [data for _, data, _ in inside.got] == [b"welcome"]


def test_a_relay_socket_adds_the_way_to_its_owner() -> None:
    """A socket on another host sends and receives there, the tunnel's delay later."""
    internet = Internet(delay=0.02)
    owner, node = machine(internet, "203.0.113.1")
    relay = internet.host("198.51.100.9")
    internet.bind(node, relay, Address("198.51.100.9", 49152), tunnel=0.01)
    peer, peer_node = machine(internet, "203.0.113.2")
    owner.out.append(Transmit(b"out", Address("203.0.113.2", 5000), Address("198.51.100.9", 49152)))
    internet.poke(node)
    internet.run()
    assert peer.got == [(pytest.approx(0.03), b"out", Address("198.51.100.9", 49152))]
    send(internet, peer_node, b"in", Address("198.51.100.9", 49152))
    internet.run()
    assert owner.got == [(pytest.approx(0.06), b"in", Address("203.0.113.2", 5000))]


def test_loss_is_drawn_from_the_seed() -> None:
    """About the share that was asked for, the same packets for the same seed, others for another."""

    def arrived(seed: int) -> list[bytes]:
        internet = Internet(seed, loss=0.25)
        _, node = machine(internet, "203.0.113.1")
        there, _ = machine(internet, "203.0.113.2")
        for number in range(1000):
            send(internet, node, number.to_bytes(2, "big"), Address("203.0.113.2", 5000))
        internet.run()
        return [data for _, data, _ in there.got]

    assert arrived(1) == arrived(1) != arrived(2)
    assert 700 < len(arrived(1)) < 800


def test_the_clock_jumps_to_the_next_deadline() -> None:
    """A machine is woken exactly when it asked to be; an older wish that it gave up wakes nobody."""
    internet = Internet()
    recorder, node = machine(internet, "203.0.113.1")
    recorder.alarm = 3600.0
    internet.poke(node)
    recorder.alarm = 1800.0
    internet.poke(node)
    assert internet.step()
    assert internet.now == 1800.0
    internet.run(limit=10_000.0)
    assert recorder.woken == [1800.0]
    assert not internet.step()


def test_a_machine_that_asks_for_the_present_for_ever_is_found_out() -> None:
    """A busy loop in virtual time is an error, not a hang."""

    class Restless(Recorder):
        def handle_timeout(self, now: float) -> None:
            self.alarm = now

    internet = Internet()
    restless = Restless()
    restless.alarm = 1.0
    internet.poke(internet.attach(restless))
    with pytest.raises(UsageError):
        internet.run()


def test_addresses_are_given_once() -> None:
    """A second host, a second site or a second socket of one address is the caller's mistake."""
    internet = Internet()
    _, node = machine(internet, "203.0.113.1")
    with pytest.raises(UsageError):
        internet.host("203.0.113.1")
    with pytest.raises(UsageError):
        internet.site(HOME, "203.0.113.1")
    with pytest.raises(UsageError):
        internet.bind(node, next(iter(node.hosts.values())), Address("203.0.113.1", 5000))


def test_what_a_server_would_see_is_what_the_real_one_sees() -> None:
    """`reflexive` and a Binding with the real responder agree, and nothing leads nowhere."""
    internet = Internet()
    server = stun_server(internet, SERVER.host)
    site = internet.site(SYMMETRIC, "203.0.113.9")
    host = internet.host("10.0.0.2", site)
    base = Address("10.0.0.2", 5000)
    client = BindingClient(entropy=internet.random.randbytes)
    node = internet.attach(client)
    internet.bind(node, host, base)
    client.query(server, 0.0, base)
    internet.poke(node)
    internet.run()
    ((time, event),) = node.events
    assert isinstance(event, Mapped)
    assert time == pytest.approx(0.04)
    assert event.address == internet.reflexive(host, base, server)
    assert internet.reflexive(host, base, Address("198.51.100.99", 1)) is None
