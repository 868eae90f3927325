"""Datagrams of a session: packets of their own where a link has them, frames where it has not."""

from __future__ import annotations

import pytest

from crowline.base.errors import UsageError
from crowline.base.machine import Buffer
from crowline.session import datagrams
from crowline.session.datagrams import DatagramQueue
from crowline.session.events import DatagramReceived
from crowline.session.frames import MAX_DATAGRAM
from crowline.session.session import Session
from session_pair import Pair


class PacketCarrier:
    """A link that takes datagrams of up to `max_datagram_size` bytes, while `takes` holds."""

    unanswered_since = None

    def __init__(self, room: int = 1 << 20) -> None:
        self.max_datagram_size = 1200
        self.takes = True
        self.sent: list[bytes] = []
        self._room = room

    def room(self) -> int:
        return self._room

    def send(self, data: Buffer, now: float) -> None:
        pass

    def send_datagram(self, data: Buffer, now: float) -> bool:
        if self.takes:
            self.sent.append(bytes(data))
        return self.takes


def drained(session: Session) -> list[tuple[int, bytes]]:
    """What the session gives its links as bytes: link and last part."""
    return [(t.link, bytes(t.data[-1])) for t in iter(session.next_transmit, None)]


def arrived(pair: Pair, side: int) -> list[bytes]:
    return [bytes(event.data) for event in pair.events[side] if isinstance(event, DatagramReceived)]


def on(carrier: PacketCarrier) -> Session:
    session = Session(initiator=True)
    session.attach(1, carrier, 1, 0.0)
    drained(session)
    return session


def test_a_datagram_arrives_whole_by_a_link_without_packets() -> None:
    """Of any size, the empty one too, and beside streams."""
    pair = Pair()
    pair.link(1, rank=1, room=1 << 18)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(100_000))
    for size in (0, 1, 1200, MAX_DATAGRAM):
        pair.sessions[0].send_datagram(bytes(size))
    pair.pump()
    pair.run(2)
    assert [len(data) for data in arrived(pair, 1)] == [0, 1, 1200, MAX_DATAGRAM]
    assert len(pair.received[1, stream]) == 100_000
    assert pair.sessions[0].packet_size == 0


def test_what_fits_a_packet_is_one_and_what_does_not_is_a_frame() -> None:
    """The link's size decides at the moment of sending."""
    carrier = PacketCarrier()
    session = on(carrier)
    assert session.packet_size == 1200
    session.send_datagram(b"a" * 1200)
    session.send_datagram(b"b" * 1201)
    session.send_datagram(b"c")
    assert drained(session) == [(1, b"b" * 1201)]
    assert carrier.sent == [b"a" * 1200, b"c"]
    carrier.max_datagram_size = 0
    assert session.packet_size == 0
    session.send_datagram(b"d")
    assert drained(session) == [(1, b"d")]


def test_a_datagram_that_a_link_has_no_room_for_is_lost_and_counted() -> None:
    """Nobody waits for it."""
    carrier = PacketCarrier()
    session = on(carrier)
    carrier.takes = False
    session.send_datagram(b"x")
    assert drained(session) == [] and session.datagrams_lost == 1


def test_large_datagrams_wait_for_room_and_the_oldest_are_lost() -> None:
    """They share the link's stream, which is full for a moment."""
    carrier = PacketCarrier(room=0)
    session = on(carrier)
    count = datagrams.MAX_WAITING_BYTES // 2000 + 10
    for number in range(count):
        session.send_datagram(number.to_bytes(2, "big") * 1000)
    assert drained(session) == []
    carrier._room = 1 << 20
    sent = drained(session)
    assert len(sent) == datagrams.MAX_WAITING_BYTES // 2000
    assert session.datagrams_lost == count - len(sent)
    assert sent[-1][1][:2] == (count - 1).to_bytes(2, "big")


def test_bulk_does_not_keep_large_datagrams_waiting() -> None:
    """It takes every little room that a full link has, and they go first all the same."""
    pair = Pair(window=1 << 20)
    pair.link(1, rank=1, room=1 << 13)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(1 << 20))
    pair.pump()
    pair.sessions[0].send_datagram(bytes(MAX_DATAGRAM))
    pair.pump()
    pair.run(0.1)
    assert [len(data) for data in arrived(pair, 1)] == [MAX_DATAGRAM]


def test_without_a_link_datagrams_are_lost() -> None:
    """What was for then is not for later; streams wait."""
    pair = Pair()
    session = pair.sessions[0]
    stream = session.open_stream()
    session.write(stream, b"later")
    session.send_datagram(b"now")
    pair.pump()
    assert session.datagrams_lost == 1
    pair.link(1, rank=1)
    pair.run(1)
    assert arrived(pair, 1) == []
    assert pair.received[1, stream] == b"later"


def test_datagrams_go_before_stream_bytes_that_wait() -> None:
    """Bulk does not make them late by more than what the link holds already."""
    pair = Pair(window=1 << 20)
    pair.link(1, rank=1, room=1 << 14, delay=0.05)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(1 << 20))
    pair.pump()
    pair.sessions[0].send_datagram(b"quick")
    pair.pump()
    pair.run(0.11)
    assert arrived(pair, 1) == [b"quick"]


def test_too_large_or_too_late_is_misuse() -> None:
    """Of a whole datagram, and after the end of the session."""
    session = on(PacketCarrier())
    with pytest.raises(UsageError):
        session.send_datagram(bytes(MAX_DATAGRAM + 1))
    session.close(0, "")
    with pytest.raises(UsageError):
        session.send_datagram(b"x")


def test_the_queue_is_bounded_by_number_too() -> None:
    """Empty datagrams cost memory all the same."""
    queue = DatagramQueue()
    for _ in range(datagrams.MAX_WAITING + 5):
        queue.append(b"")
    assert len(queue) == datagrams.MAX_WAITING and queue.lost == 5
    queue.clear()
    assert len(queue) == 0 and queue.lost == datagrams.MAX_WAITING + 5
