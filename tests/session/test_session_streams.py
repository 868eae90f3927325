"""A session's streams over links that come, stall, cross and die."""

from __future__ import annotations

import hashlib
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crowline.base.errors import UsageError
from crowline.session.events import LinkChosen, SessionBroken, SessionClosed, StreamOpened, StreamReset
from crowline.session.frames import CREDIT, MAX_DATA, FrameParser, Kind, MalformedFrame, header
from crowline.session.session import Session
from crowline.session.streams import MAX_STREAMS
from session_pair import Pair


def payload(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


def test_bytes_arrive_in_order_and_the_end_with_them() -> None:
    """What is written on one side is what is read on the other, up to the end."""
    pair = Pair()
    pair.link(1, rank=1)
    stream = pair.sessions[0].open_stream()
    data = payload(300_000)
    pair.sessions[0].write(stream, data)
    pair.sessions[0].finish(stream)
    pair.run(3)
    assert StreamOpened(stream) in pair.events[1]
    assert pair.received[1, stream] == data
    assert pair.sessions[1].is_ended(stream)
    assert pair.sessions[0].is_delivered(stream)


def test_a_better_link_takes_over_without_losing_or_repeating_a_byte() -> None:
    """Make before break: the slow link's bytes still arrive, the new link's go on from there."""
    pair = Pair(window=1 << 20)
    pair.link(1, rank=1, delay=0.2)
    stream = pair.sessions[0].open_stream()
    data = payload(2_000_000)
    pair.sessions[0].write(stream, data)
    pair.sessions[0].finish(stream)
    pair.run(0.5)
    pair.link(2, rank=2, delay=0.01)
    pair.run(20)
    assert pair.received[1, stream] == data
    assert pair.sessions[0].chosen == 2
    assert pair.sessions[0].links.carried(2)[0] > 0


def test_a_link_that_dies_unannounced_is_left_within_its_stall_time() -> None:
    """Silence for max(3 round trips, 500 ms) while sending moves the streams to the other link."""
    pair = Pair(window=1 << 18)
    pair.link(1, rank=1, delay=0.02)
    pair.link(2, rank=2, delay=0.01)
    stream = pair.sessions[0].open_stream()
    data = payload(3_000_000)
    pair.sessions[0].write(stream, data)
    pair.sessions[0].finish(stream)
    pair.run(0.2)
    cut_at = pair.now
    pair.cut(2)
    while pair.sessions[0].chosen == 2:
        assert pair.step()
    assert pair.now - cut_at <= 0.6
    pair.run(60)
    assert pair.received[1, stream] == data


def test_what_a_dead_link_carried_goes_again_by_the_next_one() -> None:
    """All links may be gone for a while; the stream goes on with the next."""
    pair = Pair(window=1 << 18)
    pair.link(1, rank=1)
    stream = pair.sessions[0].open_stream()
    data = payload(1_000_000)
    pair.sessions[0].write(stream, data)
    pair.sessions[0].finish(stream)
    pair.run(0.1)
    pair.detach(1)
    assert pair.sessions[0].chosen is None
    pair.now += 100
    pair.link(2, rank=1)
    pair.run(30)
    assert pair.received[1, stream] == data
    assert pair.sessions[0].is_delivered(stream)


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 2**32), sizes=st.lists(st.integers(0, 200_000), min_size=1, max_size=4))
def test_no_byte_is_lost_or_repeated_whatever_the_links_do(seed: int, sizes: list[int]) -> None:
    """Random cuts, detachments and arrivals of links under several streams in both directions."""
    rng = random.Random(seed)
    pair = Pair(window=1 << 16)
    sent: dict[tuple[int, int], bytes] = {}
    for index, size in enumerate(sizes):
        side = index % 2
        stream = pair.sessions[side].open_stream()
        data = payload(size, seed + index)
        sent[1 - side, stream] = data
        pair.sessions[side].write(stream, data)
        pair.sessions[side].finish(stream)
    number = 0
    for _ in range(rng.randrange(1, 6)):
        number += 1
        pair.link(number, rank=rng.randrange(3), delay=rng.choice([0.001, 0.05, 0.3]))
        pair.run(rng.random())
        if rng.random() < 0.5:
            pair.cut(number)
            pair.run(rng.random())
        if rng.random() < 0.7:
            pair.detach(number)
    pair.link(number + 1, rank=9, delay=0.01)
    pair.run(120)
    for (side, stream), data in sent.items():
        assert (
            hashlib.sha256(pair.received.get((side, stream), b"")).digest() == hashlib.sha256(data).digest()
        )
        assert pair.sessions[1 - side].is_delivered(stream)


def test_an_idle_reader_stops_the_writer_at_the_window() -> None:
    """Credit is the session's own: unread bytes are bounded whatever the link would take."""
    pair = Pair(window=1 << 16)
    pair.reading = False
    pair.link(1, rank=1)
    stream = pair.sessions[0].open_stream()
    pair.sessions[0].write(stream, payload(1_000_000))
    pair.run(5)
    assert pair.sessions[0].unsent(stream) == 1_000_000 - (1 << 16)
    pair.reading = True
    pair._read(1, stream)
    pair.pump()
    pair.run(30)
    assert len(pair.received[1, stream]) == 1_000_000


def test_a_reset_ends_both_directions_and_survives_a_dead_link() -> None:
    """The other side hears of a reset, even when the link that carried it died."""
    pair = Pair()
    pair.link(1, rank=1)
    stream = pair.sessions[0].open_stream()
    pair.run(0.1)
    pair.cut(1)
    pair.sessions[0].reset(stream, 7)
    pair.pump()
    pair.detach(1)
    pair.link(2, rank=1)
    pair.run(1)
    assert StreamReset(stream, 7) in pair.events[1]
    with pytest.raises(UsageError):
        pair.sessions[0].write(stream, b"late")


def test_closing_tells_the_other_side_why() -> None:
    """The sentence and the code arrive."""
    pair = Pair()
    pair.link(1, rank=1)
    pair.sessions[0].close(5, "No, thank you.")
    pair.pump()
    pair.run(0.1)
    assert SessionClosed(5, "No, thank you.") in pair.events[1]
    with pytest.raises(UsageError):
        pair.sessions[0].open_stream()


def test_every_change_of_link_is_told_with_its_reason() -> None:
    """Events name the link that was, the one that is, and why."""
    pair = Pair()
    pair.link(1, rank=1)
    pair.link(2, rank=2)
    pair.detach(2)
    changes = [e for e in pair.events[0] if isinstance(e, LinkChosen)]
    assert [(c.link, c.was) for c in changes] == [(1, None), (2, 1), (1, 2)]
    assert all(c.reason for c in changes)


def hostile(data: bytes) -> Session:
    """A session that was sent `data` on its only link."""
    pair = Pair(window=1000)
    pair.link(1, rank=1)
    pair.sessions[1].receive(data, 1, 0.1)
    return pair.sessions[1]


def broken(session: Session) -> bool:
    events = []
    while (event := session.next_event()) is not None:
        events.append(event)
    return any(isinstance(event, SessionBroken) for event in events)


@pytest.mark.parametrize(
    "data",
    [
        header(Kind.DATA, 0, 900, 200) + bytes(200),
        header(Kind.DATA, 0, 2**63, 1) + b"x",
        header(Kind.DATA, 1, 0, 1) + b"x",
        header(Kind.DATA, 2 * MAX_STREAMS + 2, 0, 1) + b"x",
        header(Kind.FIN, 0, 0, 2) + b"xx" + header(Kind.DATA, 0, 2, 1) + b"x",
        header(Kind.DATA, 0, 5, 5) + b"xxxxx" + header(Kind.FIN, 0, 0, 2) + b"xx",
        header(Kind.DATA, 0, 0) + header(Kind.WINDOW, 0, 5, 8) + CREDIT.pack(9),
        header(Kind.DATA, 0, 0, MAX_DATA + 1),
        bytes([77]) + bytes(16),
        header(Kind.WINDOW, 0, 0, 9),
        b"".join(header(Kind.DATA, 0, i, 1) + b"x" for i in range(2, 400, 2)),
    ],
    ids=[
        "beyond_credit", "huge_offset", "stream_never_opened", "too_many_streams", "after_the_end",
        "end_before_bytes", "acknowledges_unsent", "oversized", "unknown_kind", "wrong_window_size", "gaps",
    ],
)  # fmt: skip
def test_a_peer_that_breaks_the_rules_ends_the_session(data: bytes) -> None:
    """Each violation is one event, not an exception."""
    assert broken(hostile(data))


@given(st.binary(max_size=400))
def test_any_bytes_are_survived(data: bytes) -> None:
    """Garbage never raises out of `receive`."""
    session = hostile(data)
    while session.next_transmit() is not None:
        pass
    broken(session)


@given(st.lists(st.integers(1, 40), max_size=30))
def test_frames_survive_any_split(cuts: list[int]) -> None:
    """The parser sees the same bytes however the link cuts them."""
    stream = (
        header(Kind.DATA, 4, 10, 30) + bytes(range(30)) + header(Kind.WINDOW, 4, 3, 8) + CREDIT.pack(5)
        + header(Kind.FIN, 4, 40, 3) + b"end" + header(Kind.CLOSE, 0, 5, 2) + b"no" + header(Kind.FIN, 6, 0)
    )  # fmt: skip
    seen: list[tuple[Kind, int, int, bytes]] = []
    parser = FrameParser(lambda k, s, o, p: seen.append((k, s, o, bytes(p))))
    position = 0
    for cut in cuts:
        parser.feed(stream[position : position + cut])
        position += cut
    parser.feed(stream[position:])
    data = b"".join(p for k, s, _, p in seen if s == 4 and k in (Kind.DATA, Kind.FIN))
    assert data == bytes(range(30)) + b"end"
    assert seen[-3][0] is Kind.FIN or seen[-3][3] == b"end"
    assert seen[-2:] == [(Kind.CLOSE, 0, 5, b"no"), (Kind.FIN, 6, 0, b"")]


def test_an_oversized_frame_is_refused_before_it_is_stored() -> None:
    """A length beyond the kind's limit raises as soon as the header is there."""
    with pytest.raises(MalformedFrame):
        FrameParser(lambda *_: None).feed(header(Kind.CLOSE, 0, 0, 5000))
