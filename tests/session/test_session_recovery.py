"""What a session must not do when links flap and the other side means harm."""

from __future__ import annotations

import pytest

from crowline.base.errors import UsageError
from crowline.session.buffers import ReceiveBuffer, SendBuffer
from crowline.session.events import SessionBroken, StreamDone, StreamOpened, StreamReset
from crowline.session.frames import CREDIT, MAX_DATA, Kind, header
from crowline.session.multiplexer import MAX_IN_FLIGHT
from crowline.session.session import Session
from crowline.session.streams import MAX_STREAMS
from session_pair import Pair


def frames(session: Session) -> list[bytes]:
    """What the session has to send, whole frames."""
    found = []
    while (transmit := session.next_transmit()) is not None:
        found.append(b"".join(bytes(part) for part in transmit.data))
    return found


def kinds(session: Session) -> list[int]:
    return [frame[0] for frame in frames(session)]


def test_a_reset_that_is_told_twice_is_not_answered_for_ever() -> None:
    """The second link repeats the reset; both answers arrive, and then there is silence."""
    pair = Pair()
    pair.link(1, rank=1, delay=0.2)
    stream = pair.sessions[0].open_stream()
    pair.run(1)
    pair.sessions[0].reset(stream, 7)
    pair.pump()
    pair.link(2, rank=2, delay=0.01)
    pair.run(2)
    seen = pair.bytes_sent
    pair.run(1)
    assert pair.bytes_sent - seen < 500
    assert list(pair.events[1]).count(StreamReset(stream, 7)) == 1


def test_a_stream_that_was_reset_before_anyone_heard_of_it_does_not_rise_again() -> None:
    """Its opening frame is lost; the next stream's must not open it for good."""
    pair = Pair()
    pair.link(1, rank=1)
    pair.cut(1)
    lost = pair.sessions[0].open_stream()
    pair.sessions[0].reset(lost, 3)
    pair.pump()
    pair.detach(1)
    pair.link(2, rank=1)
    pair.run(0.5)
    following = pair.sessions[0].open_stream()
    pair.pump()
    pair.run(0.5)
    events = list(pair.events[1])
    assert StreamOpened(following) in events
    assert events.count(StreamOpened(lost)) == events.count(StreamReset(lost, 3)) == 1
    assert events.index(StreamOpened(lost)) < events.index(StreamReset(lost, 3))


def test_what_another_link_has_carried_again_is_not_rewound_a_second_time() -> None:
    """A link that stalled is left, and ends later: the bytes went by the next one in the meantime."""
    buffer = SendBuffer()
    buffer.credit = 1000
    buffer.write(bytes(300))
    buffer.take(200, link=1)
    buffer.rewind(1)
    assert buffer.take(300, link=2)[0] == 0
    buffer.rewind(1)
    assert not buffer.ready()


def test_what_has_been_acknowledged_is_not_rewound_by_a_link_that_carried_it() -> None:
    """Acknowledgements count whichever link carried the bytes last."""
    buffer = SendBuffer()
    buffer.credit = 1000
    buffer.write(bytes(300))
    buffer.take(100, link=1)
    buffer.take(100, link=2)
    buffer.rewind(1)
    buffer.take(50, link=2)
    buffer.take(250, link=3)
    assert buffer.acknowledge(50)
    buffer.rewind(1)
    assert not buffer.ready()


def test_a_link_that_falls_silent_after_it_was_left_does_not_hold_bytes_back() -> None:
    """A better link has taken over; what the old one still carried goes by the better one."""
    pair = Pair(window=1 << 20)
    pair.link(1, rank=1, delay=0.3)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, bytes(30_000))
    pair.pump()
    pair.run(0.1)
    pair.link(2, rank=2, delay=0.01)
    pair.cut(1)
    pair.sessions[0].write(stream, bytes(1000))
    pair.pump()
    pair.run(2)
    assert len(pair.received[1, stream]) == 31_000


def test_a_link_that_dies_with_the_last_bytes_is_noticed_without_more_to_send() -> None:
    """The link answered something else in between, and nothing further is written."""
    pair = Pair()
    pair.link(1, rank=1)
    pair.link(2, rank=2)
    stream = pair.sessions[0].open_stream()
    pair.run(1)
    pair.sessions[0].write(stream, b"first")
    pair.pump()
    pair.now += 0.005
    pair.sessions[0].write(stream, b"last")
    pair.pump()
    assert pair.step()
    pair.cut(2)
    pair.run(1.5)
    assert pair.received[1, stream] == b"firstlast"


def test_no_more_streams_are_opened_than_the_other_side_takes() -> None:
    """The one too many is the caller's error, not the end of the session; a reset makes room."""
    pair = Pair()
    pair.link(1, rank=1)
    streams = [pair.sessions[0].open_stream() for _ in range(MAX_STREAMS)]
    with pytest.raises(UsageError):
        pair.sessions[0].open_stream()
    pair.sessions[0].reset(streams[5])
    pair.pump()
    pair.run(0.1)
    pair.sessions[0].open_stream()
    pair.pump()
    pair.run(0.1)
    assert not any(isinstance(e, SessionBroken) for side in pair.events for e in side)


def test_streams_that_their_receiver_gave_up_may_be_opened_anew() -> None:
    """The other side hears so, although nothing else is said on any stream."""
    pair = Pair()
    pair.link(1, rank=1, delay=0.05)
    opener, receiver = pair.sessions
    for _ in range(3):
        streams = [opener.open_stream() for _ in range(MAX_STREAMS)]
        pair.pump()
        pair.run(1)
        for stream in streams:
            receiver.reset(stream)
        pair.pump()
        pair.run(1)
    assert opener.may_open_stream()


def test_a_stream_that_both_sides_ended_is_forgotten_although_nobody_read_the_end() -> None:
    """One side writes and never reads: such streams do not use up the number that may be open."""
    pair = Pair()
    pair.link(1, rank=1)
    pair.reading = False
    for _ in range(MAX_STREAMS + 5):
        stream = pair.sessions[0].open_stream()
        pair.sessions[0].finish(stream)
        pair.pump()
        pair.run(0.03)
        pair.sessions[1].finish(stream)
        pair.pump()
        pair.run(0.06)
        assert StreamDone(stream) in pair.events[0] and StreamDone(stream) in pair.events[1]


def test_a_peer_that_opens_and_resets_leaves_nothing_behind() -> None:
    """Ten thousand streams cost as much memory as one."""
    pair = Pair()
    pair.link(1, rank=1, room=0)
    victim = pair.sessions[1]
    for number in range(0, 20_000, 2):
        victim.receive(header(Kind.DATA, number, 0) + header(Kind.RESET, number, 1), 1, 0.1)
        while victim.next_event() is not None:
            pass
        frames(victim)
    held = [vars(victim), vars(victim._streams), vars(victim._streams._table)]
    assert max(len(v) for d in held for v in d.values() if hasattr(v, "__len__")) < 10


def test_a_peer_that_never_answers_resets_cannot_pile_them_up() -> None:
    """Streams that we reset count as open until the other side has heard."""
    pair = Pair()
    pair.link(1, rank=1)
    victim = pair.sessions[1]
    for number in range(0, 4 * MAX_STREAMS, 2):
        victim.receive(header(Kind.DATA, number, 0), 1, 0.1)
        victim.reset(number)
    events = list(iter(victim.next_event, None))
    assert any(isinstance(event, SessionBroken) for event in events)


def test_a_receiver_that_grants_all_and_acknowledges_nothing_gets_no_more_than_a_bound() -> None:
    """What is kept for sending again is bounded by this side."""
    pair = Pair()
    pair.link(1, rank=1, room=1 << 40)
    session = pair.sessions[0]
    chunk = bytes(1 << 20)
    for _ in range(2):
        stream = session.open_stream()
        session.receive(header(Kind.WINDOW, stream, 0, 8) + CREDIT.pack(1 << 60), 1, 0.0)
        for _ in range(MAX_IN_FLIGHT // len(chunk)):
            session.write(stream, chunk)
    sent = sum(len(frame) for frame in frames(session))
    assert MAX_IN_FLIGHT <= sent <= MAX_IN_FLIGHT + 2 * MAX_DATA
    session.receive(header(Kind.WINDOW, 0, len(chunk), 8) + CREDIT.pack(1 << 60), 1, 0.1)
    assert frames(session)


def test_overlapping_runs_behind_a_gap_are_held_once() -> None:
    """Runs that begin ever earlier and all end at the window's edge do not multiply it."""
    window = 10_000
    buffer = ReceiveBuffer(window)
    data = bytes(i % 251 for i in range(window))
    for start in range(60, 0, -1):
        assert buffer.insert(start, memoryview(data)[start:], False)
    held = sum(len(piece) for run in buffer._ahead for piece in run.pieces)
    assert held < window
    assert buffer.insert(0, memoryview(data)[:1], False)
    assert b"".join(bytes(part) for part in iter(lambda: buffer.read(window), b"")) == data


def test_a_piece_that_spans_runs_fills_every_gap() -> None:
    """Nothing of it is lost between and behind what was there."""
    data = bytes(range(100))
    buffer = ReceiveBuffer(1000)
    for start, end in ((10, 20), (30, 40), (60, 61), (5, 80), (90, 100), (85, 95), (0, 6), (79, 86)):
        assert buffer.insert(start, memoryview(data)[start:end], False)
    assert b"".join(bytes(part) for part in iter(lambda: buffer.read(1000), b"")) == data


def test_acknowledgements_of_a_stream_that_is_over_are_repeated() -> None:
    """The last one may have been lost with its link; the bytes that come again are acknowledged again."""
    pair = Pair()
    pair.link(1, rank=1)
    victim = pair.sessions[1]
    victim.receive(header(Kind.FIN, 0, 0, 3) + b"end", 1, 0.1)
    victim.finish(0)
    frames(victim)
    victim.receive(header(Kind.WINDOW, 0, 1, 8) + CREDIT.pack(99), 1, 0.2)
    victim.read(0, 10)
    frames(victim)
    victim.receive(header(Kind.FIN, 0, 0, 3) + b"end", 1, 0.3)
    assert header(Kind.WINDOW, 0, 4, 8) in frames(victim)[0]
