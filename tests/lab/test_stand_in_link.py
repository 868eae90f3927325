"""The link of simulations: it has QUIC's shape, its bytes arrive once and in order, strangers get nowhere."""

from __future__ import annotations

import random

import pytest

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.lab.impairment import Impairment
from crowline.lab.stand_in_link import (
    AUTHENTICATION_LIMIT,
    BACKLOG_LIMIT,
    IDLE_TIMEOUT,
    StandInLink,
    is_hello,
)
from crowline.lab.virtual import Internet, Node
from crowline.link.events import LinkData, LinkDown, LinkUp
from crowline.stun.message import is_stun
from crowline.turn.channel_data import is_channel_data

CLIENT = Address("203.0.113.1", 5000)
SERVER = Address("203.0.113.2", 5000)
KEY = Secret(b"k" * 32)


class Pair:
    """A client, and a server that accepts on the first greeting, 20 ms apart."""

    def __init__(self, *, server_key: Secret = KEY, loss: float = 0.0, seed: int = 1) -> None:
        self.internet = Internet(seed, delay=0.02, loss=loss)
        self.first: list[bytes] = []
        hosts = [self.internet.host(address.host) for address in (CLIENT, SERVER)]
        self.client = StandInLink.connect(
            destination=SERVER, local=CLIENT, key=KEY, link_id=b"12345678", now=0.0, rtt=0.04
        )
        hello = self.client.next_transmit()
        assert hello is not None
        self.hello = bytes(hello.data)
        self.server = StandInLink.accept(
            self.hello, destination=CLIENT, local=SERVER, key=server_key, now=0.0
        )
        self.nodes = [self.internet.attach(link) for link in (self.client, self.server)]
        for node, host, address in zip(self.nodes, hosts, (CLIENT, SERVER), strict=True):
            self.internet.bind(node, host, address)
        self.internet.call_at(0.02, self._deliver_hello)
        self.internet.poke(self.nodes[0])

    def _deliver_hello(self) -> None:
        self.server.receive(self.hello, CLIENT, self.internet.now, SERVER)
        self.internet.poke(self.nodes[1])

    def send(self, link: StandInLink, data: bytes) -> None:
        link.send(data, self.internet.now)
        self.internet.poke(self.nodes[link is self.server])

    def events(self, node: Node, kind: type) -> list[tuple[float, object]]:
        return [(time, event) for time, event in node.events if isinstance(event, kind)]

    def received(self, number: int) -> bytes:
        return b"".join(bytes(event.data) for _, event in self.events(self.nodes[number], LinkData))  # type: ignore[attr-defined]


def test_the_client_is_up_after_one_round_trip_and_the_server_half_a_one_later() -> None:
    """As with QUIC: the server waits for the client's proof."""
    pair = Pair()
    pair.internet.run(limit=1.0)
    assert [time for time, _ in pair.events(pair.nodes[0], LinkUp)] == [pytest.approx(0.04)]
    assert [time for time, _ in pair.events(pair.nodes[1], LinkUp)] == [pytest.approx(0.06)]


@pytest.mark.parametrize("loss", [0.0, 0.05, 0.3])
def test_bytes_arrive_once_and_in_order_in_spite_of_loss(loss: float) -> None:
    """Both ways at once, in many datagrams."""
    pair = Pair(loss=loss)
    pair.internet.run(lambda: pair.client.is_up and pair.server.is_up, limit=4.0)
    data = random.Random(1).randbytes(20_000)
    pair.send(pair.client, data)
    pair.send(pair.server, data[::-1])
    pair.internet.run(limit=25.0)
    assert pair.received(1) == data
    assert pair.received(0) == data[::-1]


def test_nothing_is_taken_before_the_link_is_up() -> None:
    """Room is nothing, and what is sent all the same is dropped."""
    pair = Pair()
    assert (pair.client.room(), pair.server.room()) == (0, 0)
    pair.client.send(b"too early", 0.0)
    pair.internet.run(limit=1.0)
    assert pair.received(1) == b""
    assert pair.client.room() == BACKLOG_LIMIT


def test_room_is_what_is_not_acknowledged_yet() -> None:
    """It shrinks by what is sent and grows back with the acknowledgements."""
    pair = Pair()
    pair.internet.run(limit=1.0)
    pair.send(pair.client, b"x" * 5000)
    assert pair.client.room() == BACKLOG_LIMIT - 5000
    pair.internet.run(limit=1.0)
    assert pair.client.room() == BACKLOG_LIMIT


def test_silence_is_told_from_the_first_unanswered_byte() -> None:
    """The session leaves a link by this."""
    pair = Pair()
    pair.internet.run(limit=1.0)
    assert pair.client.unanswered_since is None
    sent_at = pair.internet.now
    pair.send(pair.client, b"one")
    pair.internet.run(limit=0.01)
    pair.send(pair.client, b"two")
    assert pair.client.unanswered_since == sent_at
    pair.internet.run(limit=1.0)
    assert pair.client.unanswered_since is None


def test_another_key_never_comes_up() -> None:
    """Neither end believes the other; both give up after five seconds."""
    pair = Pair(server_key=Secret(b"z" * 32))
    pair.internet.run(limit=60.0)
    for node in pair.nodes:
        assert pair.events(node, LinkUp) == []
        ((time, event),) = pair.events(node, LinkDown)
        assert time == pytest.approx(AUTHENTICATION_LIMIT, abs=0.03)
        assert event == LinkDown("the other side did not prove itself in time")


@pytest.mark.parametrize("position", [0, 1, 5, 12, 16, 20, -1])
def test_a_changed_byte_is_dropped(position: int) -> None:
    """In every part of a datagram."""
    pair = Pair()
    pair.internet.run(limit=1.0)
    pair.client.send(b"payload", pair.internet.now)
    transmit = pair.client.next_transmit()
    assert transmit is not None
    changed = bytearray(transmit.data)
    changed[position] ^= 1
    pair.server.receive(bytes(changed), CLIENT, pair.internet.now)
    assert pair.server.next_event() is None
    pair.server.receive(bytes(transmit.data), CLIENT, pair.internet.now)
    assert pair.server.next_event() == LinkData(b"payload")


def test_an_end_that_is_told_is_heard() -> None:
    """The other end goes down at once; the one that closed says nothing more."""
    pair = Pair()
    pair.internet.run(limit=1.0)
    pair.client.close(pair.internet.now)
    pair.internet.poke(pair.nodes[0])
    pair.internet.run(limit=0.05)
    assert [event for _, event in pair.events(pair.nodes[1], LinkDown)] == [
        LinkDown("the other side ended the link")
    ]
    assert pair.events(pair.nodes[0], LinkDown) == []
    assert not pair.client.is_up and not pair.server.is_up


def test_a_link_without_datagrams_ends_after_half_a_minute() -> None:
    """Counted from the last one that came."""
    pair = Pair()
    pair.internet.run(limit=10.0)
    assert pair.events(pair.nodes[0], LinkDown) == []
    pair.internet.run(limit=60.0)
    ((time, event),) = pair.events(pair.nodes[0], LinkDown)
    assert event == LinkDown("the other side fell silent")
    assert time == pytest.approx(IDLE_TIMEOUT, abs=0.1)


def test_a_lost_greeting_is_sent_again() -> None:
    """The client repeats it until the server answers."""
    pair = Pair()
    place = pair.internet.root.hosts[SERVER.host]
    pair.internet.set_line(place, up=Impairment(loss=1.0), down=Impairment())
    pair.internet.run(limit=1.0)
    assert not pair.client.is_up
    pair.internet.set_line(place, up=Impairment(), down=Impairment())
    pair.internet.run(limit=3.0)
    assert pair.client.is_up and pair.server.is_up


def test_its_datagrams_are_taken_for_nothing_else() -> None:
    """RFC 9443: STUN and ChannelData begin otherwise; and no other datagram is a greeting."""
    pair = Pair()
    pair.internet.run(limit=1.0)
    assert is_hello(pair.hello)
    pair.client.send(b"data", pair.internet.now)
    transmit = pair.client.next_transmit()
    assert transmit is not None
    for data in (pair.hello, bytes(transmit.data)):
        assert not is_stun(data) and not is_channel_data(data)
    assert not is_hello(transmit.data)
    assert not is_hello(b"")
