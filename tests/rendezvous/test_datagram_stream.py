"""Messages over UDP between two hosts that named each other: openers, loss, order, strangers."""

from __future__ import annotations

import os
import random
from collections.abc import Callable

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.rendezvous import datagram_stream
from crowline.rendezvous.datagram_stream import (
    FULL_AFTER,
    MAGIC,
    SILENCE_LIMIT,
    DatagramStream,
    MessageArrived,
    StreamEvent,
    StreamOpened,
    StreamOver,
    Way,
)

A, B = Address("192.0.2.1", 4000), Address("198.51.100.1", 4000)
STRANGER = Address("203.0.113.9", 4000)


class Pair:
    """Two streams and a path between them, in virtual time; `passes` judges each datagram."""

    def __init__(self, *, begins: float = 0.0) -> None:
        self.now = 0.0
        self.passes: Callable[[Transmit], bool] = lambda _: True
        self.host = DatagramStream([Way(A, B)], knocks=False, entropy=os.urandom, now=0.0)
        self.join = DatagramStream([Way(B, A)], knocks=True, entropy=os.urandom, now=begins)
        self.events: dict[DatagramStream, list[StreamEvent]] = {self.host: [], self.join: []}
        self.sent: list[tuple[Address, Transmit]] = []

    def step(self) -> None:
        """Deliver all there is, then go to the next time."""
        for side, other, source in ((self.host, self.join, A), (self.join, self.host, B)):
            side.handle_timeout(self.now)
            while (transmit := side.next_transmit()) is not None:
                self.sent.append((source, transmit))
                if transmit.hop_limit is None and self.passes(transmit):
                    other.receive(transmit.data, source, self.now, transmit.destination)
            while (event := side.next_event()) is not None:
                self.events[side].append(event)

    def run(self, seconds: float) -> None:
        end = self.now + seconds
        while self.now < end:
            self.step()
            self.now += 0.05

    def messages(self, side: DatagramStream) -> list[str | bytes]:
        return [each.message for each in self.events[side] if isinstance(each, MessageArrived)]


def test_both_sides_find_each_other_and_messages_arrive() -> None:
    """Text and bytes, in both directions, also what was queued before the other side was there."""
    pair = Pair(begins=3.0)
    pair.host.send("early", 0.0)
    pair.run(6.0)
    assert [e for e in pair.events[pair.host] if isinstance(e, StreamOpened)] == [StreamOpened(A, B)]
    pair.join.send(b"\x00\xff", pair.now)
    pair.join.send("", pair.now)
    pair.run(1.0)
    assert pair.messages(pair.join) == ["early"]
    assert pair.messages(pair.host) == [b"\x00\xff", ""]
    assert pair.host.unacknowledged == pair.join.unacknowledged == 0


@pytest.mark.parametrize("seed", range(20))
def test_lost_repeated_and_reordered_packets_change_nothing(seed: int) -> None:
    """A third is lost, some come twice, some late."""
    rng = random.Random(seed)
    pair = Pair()
    late: list[tuple[DatagramStream, Transmit, Address]] = []

    def passes(transmit: Transmit) -> bool:
        to, source = (pair.join, A) if transmit.destination == B else (pair.host, B)
        if rng.random() < 0.2:
            late.append((to, transmit, source))
            return False
        if rng.random() < 0.1:
            to.receive(transmit.data, source, pair.now, transmit.destination)
        if late and rng.random() < 0.5:
            other, old, origin = late.pop(rng.randrange(len(late)))
            other.receive(old.data, origin, pair.now, old.destination)
        return rng.random() > 0.3

    pair.passes = passes
    messages = [os.urandom(rng.choice((0, 1, 999, 1000, 1001, 30_000))) for _ in range(12)]
    for message in messages:
        pair.host.send(message, 0.0)
        pair.join.send(message, 0.0)
    pair.run(120.0)
    assert pair.messages(pair.join) == messages == pair.messages(pair.host)


def test_the_hosting_side_sends_no_opener_that_arrives_for_a_while() -> None:
    """A translator that keeps strays would give the other side's flow another port; later one is risked."""
    pair = Pair(begins=1e9)
    pair.passes = lambda _: False
    pair.run(FULL_AFTER - 1.0)
    assert pair.sent and all(transmit.hop_limit in (4, 7) for _, transmit in pair.sent)
    pair.run(2.0)
    assert len([t for _, t in pair.sent if t.hop_limit is None]) == 1
    assert all(transmit.destination == B for _, transmit in pair.sent)


def test_the_other_side_may_come_from_another_port_than_was_named() -> None:
    """Its translator did not keep the port: the answer goes to where it came from."""
    host = DatagramStream([Way(A, B)], knocks=False, entropy=os.urandom, now=0.0)
    elsewhere = Address(B.host, 61_000)
    join = DatagramStream([Way(B, A)], knocks=True, entropy=os.urandom, now=0.0)
    join.handle_timeout(0.0)
    for _ in range(4):
        while (out := join.next_transmit()) is not None:
            if out.hop_limit is None:
                host.receive(out.data, elsewhere, 0.0, A)
        while (out := host.next_transmit()) is not None:
            assert out.destination == elsewhere
            join.receive(out.data, A, 0.0, B)
    assert host.next_event() == StreamOpened(A, elsewhere)
    assert join.next_event() == StreamOpened(B, A)


def test_strangers_and_forged_sources_open_nothing() -> None:
    """Another host is not heard; who forges the source never learns the id that must be repeated."""
    host = DatagramStream([Way(A, B)], knocks=False, entropy=os.urandom, now=0.0)
    forged = MAGIC + b"\0" + os.urandom(8) + bytes(8) + bytes(8)
    assert host.receive(forged, STRANGER, 0.0, A) and host.counters["stranger"] == 1
    assert host.next_transmit() is None
    for _ in range(50):
        host.receive(forged[:5] + os.urandom(8) + os.urandom(8) + bytes(8), B, 0.0, A)
    assert host.next_transmit() is None and host.next_event() is None
    host.receive(forged, B, 0.0, A)
    answer = host.next_transmit()
    assert answer is not None and len(answer.data) == len(forged) and answer.destination == B
    assert host.next_event() is None and not host.is_open


def test_whoever_came_first_with_a_forged_source_does_not_keep_the_right_one_out() -> None:
    """The place is taken only by one who repeats this side's id."""
    pair = Pair()
    forged = MAGIC + b"\0" + os.urandom(8) + bytes(8) + bytes(8)
    for side, local, source in ((pair.host, A, B), (pair.join, B, A)):
        side.receive(forged, source, 0.0, local)
    pair.run(3.0)
    assert pair.host.is_open and pair.join.is_open


def test_what_is_no_packet_of_its_kind_is_left_to_others() -> None:
    """STUN and QUIC share the socket; a cut packet of ours is dropped."""
    host = DatagramStream([Way(A, B)], knocks=False, entropy=os.urandom, now=0.0)
    assert not host.receive(b"\x00\x01\x00\x00", B, 0.0, A)
    assert not host.receive(b"\xc0" * 1200, B, 0.0, A)
    assert not host.receive(b"", B, 0.0, A)
    assert host.receive(MAGIC, B, 0.0, A) and host.counters["malformed"] == 1


def test_random_packets_of_the_right_kind_do_no_harm(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a side that has opened the stream sends: no exception, and what is held is bounded."""
    rng = random.Random(1)
    pair = Pair()
    pair.run(2.0)
    ids = pair.host._id, pair.join._id
    for _ in range(3000):
        head = MAGIC + bytes([rng.choice((0, 0, 0, 7))]) + ids[1] + ids[0]
        tail = rng.randbytes(8) if rng.random() < 0.5 else bytes([0, 0, rng.randrange(256), 9]) * 2
        pair.host.receive(head + tail + rng.randbytes(rng.choice((0, 3, 1000))), B, pair.now, A)
        while pair.host.next_transmit() is not None:
            pass
    assert len(pair.host._held) <= datagram_stream.MAX_HELD


def test_a_message_that_is_too_long_ends_the_stream() -> None:
    """Before anything of it is kept."""
    pair = Pair()
    pair.run(2.0)
    pair.join._out += b"\x7f\xff\xff\xff"
    pair.join._fill(pair.now)
    pair.run(1.0)
    assert pair.events[pair.host][-1] == StreamOver(False)


def test_both_sides_hear_of_the_end() -> None:
    """At once where it is said, and after a long silence where it is not."""
    pair = Pair()
    pair.run(2.0)
    pair.join.close(pair.now)
    pair.run(0.5)
    assert pair.events[pair.host][-1] == StreamOver(True)
    pair = Pair()
    pair.run(2.0)
    pair.passes = lambda _: False
    pair.run(SILENCE_LIMIT + 1.0)
    assert pair.events[pair.host][-1] == pair.events[pair.join][-1] == StreamOver(False)
    assert pair.host.next_timeout() is None


def test_a_quiet_stream_stays_open() -> None:
    """Keepalives hold the translators' flows, and either side's place."""
    pair = Pair()
    pair.run(300.0)
    assert pair.host.is_open and pair.join.is_open
    assert len(pair.sent) < 200


def test_a_packet_that_does_not_repeat_the_own_id_says_nothing_once_the_stream_is_open() -> None:
    """The other side's id is told to whoever asks it from this side's host: a forged source needs both ids.
    It is answered all the same, for the other side may have missed the first answer.
    """
    pair = Pair()
    pair.run(2.0)
    theirs, text = pair.join._id, b"\0\0\0\3lie"
    for kind, tail in ((b"\0", bytes(8) + text), (b"\1", bytes(8)), (b"\0", bytes(4) + b"\0\0\0\7")):
        pair.host.receive(MAGIC + kind + theirs + bytes(8) + tail, Address(B.host, 9), pair.now, A)
        answer = pair.host.next_transmit()
        assert answer is not None and len(answer.data) <= len(MAGIC) + 1 + 16 + len(tail)
    pair.run(1.0)
    assert pair.host.is_open and pair.messages(pair.host) == []
    pair.host.send("still there", pair.now)
    assert [each.destination for each in iter(pair.host.next_transmit, None)] == [B]


def test_what_waits_for_a_side_that_acknowledges_nothing_is_bounded() -> None:
    """It asks and asks and takes no answer: the stream ends."""
    pair = Pair()
    pair.run(2.0)
    pair.passes = lambda _: False
    for _ in range(datagram_stream.MAX_QUEUED // 50_000 + 10):
        pair.host.send(bytes(50_000), pair.now)
    pair.step()
    assert pair.events[pair.host][-1] == StreamOver(False) and not pair.host.is_open
    assert pair.host.unacknowledged <= datagram_stream.MAX_QUEUED + 60_000


def test_a_stream_of_more_bytes_than_offsets_can_say_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    """On either side, without an exception."""
    monkeypatch.setattr(datagram_stream, "MAX_STREAM", 100_000)
    pair = Pair()
    pair.run(2.0)
    for _ in range(30):
        pair.join.send(bytes(10_000), pair.now)
        pair.run(0.5)
    assert not pair.join.is_open and pair.events[pair.join][-1] == StreamOver(False)
    pair = Pair()
    pair.run(2.0)
    head = MAGIC + b"\0" + pair.join._id + pair.host._id
    pair.host.receive(head + b"\xff" * 4 + bytes(4) + b"x", B, pair.now, A)
    assert pair.host.next_event() is not None and not pair.host.is_open
