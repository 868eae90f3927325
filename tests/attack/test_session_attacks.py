"""Attacks by an authenticated peer on the session, by the identifiers of the threat list: K streams."""

from __future__ import annotations

import random
import tracemalloc

import pytest

from crowline.session.events import (
    DatagramReceived,
    SessionBroken,
    SessionEvent,
    StreamOpened,
    StreamReadable,
    StreamReset,
)
from crowline.session.frames import CREDIT, HEADER, MAX_DATAGRAM, Kind, header
from crowline.session.session import Session
from crowline.session.streams import MAX_STREAMS
from crowline.session.windows import BASE, LARGEST, SPARE


class Sink:
    """A link that takes everything and forgets it."""

    unanswered_since = None

    def room(self) -> int:
        return 1 << 20

    def send(self, data: object, now: float) -> None:
        pass


class Victim:
    """The accepting side of a session, on one link, whose application reads what it is told to."""

    def __init__(self) -> None:
        self.session = Session(initiator=False)
        self.session.attach(1, Sink(), 1, 0.0)
        self.now = 0.0
        self.sent: list[bytes] = []
        self.events: list[SessionEvent] = []

    def hear(self, data: bytes, link: int = 1) -> None:
        self.now += 0.001
        self.session.receive(data, link, self.now)
        if (at := self.session.next_timeout()) is not None and at <= self.now:
            self.session.handle_timeout(self.now)
        while (transmit := self.session.next_transmit()) is not None:
            self.sent.append(b"".join(bytes(part) for part in transmit.data))
        while (event := self.session.next_event()) is not None:
            self.events.append(event)

    def read(self, stream: int) -> bytes:
        parts = iter(lambda: bytes(self.session.read(stream, 1 << 20, self.now)), b"")
        return b"".join(parts)

    def stream_bytes(self) -> list[int]:
        """Bytes of each DATA frame that it sent."""
        return [len(frame) - HEADER.size for frame in self.sent if frame[0] == Kind.DATA]

    @property
    def is_broken(self) -> bool:
        return any(isinstance(event, SessionBroken) for event in self.events)

    def held(self) -> int:
        """Bytes that wait for the application."""
        states = self.session._streams._table._streams.values()
        return sum(
            sum(map(len, state.receiving._ready))
            + sum(len(piece) for run in state.receiving._ahead for piece in run.pieces)
            for state in states
        )


def data(stream: int, offset: int, payload: bytes, *, fin: bool = False) -> bytes:
    return header(Kind.FIN if fin else Kind.DATA, stream, offset, len(payload)) + payload


def test_k10_a_million_streams_in_one_frame_cost_no_more_than_those_that_were_granted() -> None:
    """The number of the last one would open all before it; the session ends there and then."""
    victim = Victim()
    tracemalloc.start()
    victim.hear(header(Kind.DATA, 2_000_000, 0))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert victim.is_broken
    assert sum(isinstance(event, StreamOpened) for event in victim.events) == MAX_STREAMS
    assert peak < 1 << 20


def test_k10_a_million_streams_one_after_the_other_are_refused_at_the_grant() -> None:
    """What comes after the violation is not looked at."""
    victim = Victim()
    opens = b"".join(header(Kind.DATA, 2 * number, 0) for number in range(1_000_000))
    victim.hear(opens)
    assert victim.is_broken
    assert sum(isinstance(event, StreamOpened) for event in victim.events) == MAX_STREAMS


def test_k10_streams_that_are_opened_and_reset_for_ever_leave_nothing() -> None:
    """A peer that keeps to its grants may go on; what it did before is forgotten."""
    victim = Victim()
    victim.hear(b"")
    victim.events.clear()
    burst = MAX_STREAMS // 2
    for start in range(0, 200 * burst, burst):
        numbers = range(start, start + burst)
        victim.hear(b"".join(data(2 * n, 0, b"x") + header(Kind.RESET, 2 * n, 7) for n in numbers))
        victim.events = [
            event for event in victim.events if not isinstance(event, StreamOpened | StreamReset)
        ]
        assert len(victim.sent) <= 2 * burst + 4
        victim.sent.clear()
    assert victim.events == []
    table = victim.session._streams._table
    sizes = [len(value) for value in vars(table).values() if hasattr(value, "__len__")]
    assert max(sizes) <= 1 and table.in_flight == 0
    assert victim.session._streams._windows.spare == SPARE


def test_k10_what_waits_for_the_application_is_bounded_over_all_streams() -> None:
    """Readers that keep up earn larger windows, and then all of them stop; each is filled to the brim."""
    victim = Victim()
    at = dict.fromkeys(range(0, 2 * MAX_STREAMS, 2), 0)
    table = victim.session._streams._table
    for _ in range(12):
        for stream in at:
            victim.hear(header(Kind.DATA, stream, at[stream]))
            state = table.get(stream)
            assert state is not None
            size = min(state.receiving.credit - at[stream], 200_000)
            victim.hear(data(stream, at[stream], bytes(size)))
            at[stream] += size
            victim.read(stream)
    for stream in at:
        state = table.get(stream)
        assert state is not None
        while (left := state.receiving.credit - at[stream]) > 0:
            size = min(left, 256 * 1024)
            victim.hear(data(stream, at[stream], bytes(size)))
            at[stream] += size
    assert not victim.is_broken
    assert BASE * MAX_STREAMS < victim.held() <= BASE * MAX_STREAMS + SPARE
    victim.hear(data(0, at[0], b"one more"))
    assert victim.is_broken


@pytest.mark.parametrize("stream", [0, 2 * MAX_STREAMS - 2])
def test_k10_one_byte_beyond_a_window_ends_the_session(stream: int) -> None:
    """Also ahead of a gap, where nothing would have to be kept in order."""
    for offset in (0, BASE // 2):
        victim = Victim()
        victim.hear(data(stream, offset, bytes(BASE - offset)))
        assert not victim.is_broken
        victim.hear(data(stream, BASE, b"x"))
        assert victim.is_broken


def test_k10_frames_without_bytes_for_ever_cost_nothing() -> None:
    """Neither memory nor an answer to each."""
    victim = Victim()
    empty = header(Kind.DATA, 0, 0) * 1000
    for _ in range(100):
        victim.hear(empty)
    assert len(victim.sent) <= 110
    assert victim.held() == 0
    assert not victim.is_broken


def test_k10_grants_without_end_let_this_side_open_no_more_than_it_would() -> None:
    """A peer cannot make this side keep more streams than its own limit."""
    victim = Victim()
    victim.hear(header(Kind.STREAMS, 0, 2**64 - 1))
    opened = 0
    while victim.session.may_open_stream():
        victim.session.open_stream()
        opened += 1
    assert opened == MAX_STREAMS


def test_k10_credit_and_grants_are_never_taken_back() -> None:
    """Smaller numbers than before are old news, not new rules."""
    victim = Victim()
    victim.session.write(victim.session.open_stream(), bytes(200_000))
    victim.hear(header(Kind.WINDOW, 1, 0, 8) + CREDIT.pack(100_000))
    victim.hear(header(Kind.WINDOW, 1, 0, 8) + CREDIT.pack(5) + header(Kind.STREAMS, 0, 0))
    assert victim.session.unsent(1) == 100_000
    assert victim.session.may_open_stream() and not victim.is_broken


def recorded(seed: int) -> tuple[list[bytes], dict[int, bytes]]:
    """All that an honest peer sends in a session, and what it says on each stream."""
    rng = random.Random(seed)
    said = {stream: rng.randbytes(rng.randrange(1, 50_000)) for stream in range(0, 20, 2)}
    frames = [data(stream, 0, contents, fin=True) for stream, contents in said.items()]
    return [*frames, header(Kind.RESET, 20, 3)], said


def test_k10_stream_bytes_in_tiny_frames_are_put_together() -> None:
    """What waits for a reader is bounded in memory too, in order or behind a gap: an object for each byte
    would take two hundred times as much."""
    victim = Victim()
    size = 40_000
    for stream, first in ((0, 0), (2, 1)):
        for start in range(first, size, 1000):
            victim.hear(b"".join(data(stream, at, b"x") for at in range(start, min(start + 1000, size))))
    states = list(victim.session._streams._table._streams.values())
    assert victim.held() == 2 * size - 1
    assert len(states[0].receiving._ready) == len(states[1].receiving._ahead[0].pieces) == 3
    victim.hear(data(2, 0, b"y"))
    assert (victim.read(0), victim.read(2)) == (b"x" * size, b"y" + b"x" * (size - 1))


def test_k10_a_small_part_of_a_large_piece_does_not_keep_it_alive() -> None:
    """A link hands on much at once; most of it may be for others."""
    victim = Victim()
    tracemalloc.start()
    for start in range(0, BASE, 4096):
        filling = b"".join(header(Kind.PONG, 0, 0, 1500) + bytes(1500) for _ in range(100))
        victim.hear(data(0, start, bytes(4096)) + filling)
    del filling
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert victim.held() == BASE
    assert held < 2 * BASE


def test_k10_credit_that_comes_byte_by_byte_is_not_used_byte_by_byte() -> None:
    """Each piece that waits for its acknowledgement is remembered."""
    victim = Victim()
    stream = victim.session.open_stream()
    victim.session.write(stream, bytes(2 * BASE))
    victim.hear(b"")
    victim.sent.clear()
    for credit in range(BASE + 1, BASE + 5001):
        victim.hear(header(Kind.WINDOW, stream, 0, CREDIT.size) + CREDIT.pack(credit))
    assert victim.stream_bytes() == [1024] * 4
    victim.hear(header(Kind.WINDOW, stream, BASE + 4096, CREDIT.size) + CREDIT.pack(BASE + 5000))
    assert victim.stream_bytes() == [1024] * 4 + [904], "nothing else is on its way that would bring more"


def test_k5_a_session_that_is_played_again_on_another_link_changes_nothing() -> None:
    """All of it, in any order, as often as one likes: no byte, no stream and no reset comes twice."""
    victim = Victim()
    victim.session.attach(2, Sink(), 2, 0.0)
    frames, said = recorded(1)
    for frame in frames:
        victim.hear(frame)
    assert {stream: victim.read(stream) for stream in said} == said
    news = len([event for event in victim.events if not isinstance(event, StreamReadable)])
    rng = random.Random(2)
    for _ in range(5):
        again = rng.sample(frames, len(frames))
        for frame in again:
            victim.hear(frame, link=rng.choice([1, 2]))
    assert all(victim.read(stream) == b"" for stream in said)
    assert len([event for event in victim.events if not isinstance(event, StreamReadable)]) == news
    assert not victim.is_broken


def test_k5_bytes_that_come_again_with_other_contents_are_not_taken() -> None:
    """What was acknowledged stands; a peer cannot rewrite it."""
    victim = Victim()
    victim.hear(data(0, 0, b"pay 10"))
    victim.hear(data(0, 4, b"99999"))
    assert victim.read(0) == b"pay 10999"


def test_k10_datagrams_may_be_as_large_as_those_of_udp_and_no_larger() -> None:
    """A longer one ends the session before its bytes are taken."""
    victim = Victim()
    victim.hear(header(Kind.DATAGRAM, 0, 0, MAX_DATAGRAM) + bytes(MAX_DATAGRAM))
    assert victim.events.pop() == DatagramReceived(bytes(MAX_DATAGRAM))
    victim.hear(header(Kind.DATAGRAM, 0, 0, MAX_DATAGRAM + 1))
    assert victim.is_broken


def test_k10_datagrams_by_a_link_that_is_gone_or_of_a_session_that_is_over_are_dropped() -> None:
    """They may be on their way for long."""
    victim = Victim()
    victim.session.receive_datagram(b"late", 9, 1.0)
    victim.hear(header(Kind.CLOSE, 0, 0))
    victim.session.receive_datagram(b"late", 1, 1.0)
    victim.hear(b"")
    assert not any(isinstance(event, DatagramReceived) for event in victim.events)


def test_windows_are_as_large_as_the_documents_say() -> None:
    """48 MiB for all streams of both sides."""
    assert BASE * 2 * MAX_STREAMS + SPARE == 48 << 20
    assert LARGEST == 16 << 20
