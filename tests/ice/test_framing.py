"""Packets on a stream are found whole wherever it is cut, and what waits is bounded."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.base.errors import UsageError
from crowline.ice.framing import (
    FIRST_LIMIT,
    MAX_EMPTY_RUN,
    MAX_PACKET,
    MAX_WAITING,
    Deframer,
    MalformedFraming,
    frame,
)


def packets(deframer: Deframer, data: bytes) -> list[bytes]:
    """What `data` completes."""
    deframer.feed(data)
    found = []
    while (packet := deframer.next_packet()) is not None:
        found.append(packet)
    return found


@given(st.lists(st.binary(min_size=1, max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_packets_are_the_same_however_the_stream_is_cut(sent: list[bytes], cuts: list[int]) -> None:
    """Packets of every size, in pieces of every size."""
    stream = b"".join(map(frame, sent))
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    deframer = Deframer()
    found: list[bytes] = []
    for start, end in itertools.pairwise(edges):
        found += packets(deframer, stream[start:end])
    assert found == sent
    assert len(deframer) == 0


def test_the_length_stands_before_the_packet() -> None:
    """Two bytes, the higher one first."""
    assert frame(b"x" * 258) == b"\x01\x02" + b"x" * 258
    assert frame(memoryview(b"")) == b"\0\0"


def test_the_largest_packet_passes_and_a_larger_one_is_refused() -> None:
    """The length field ends at 65,535."""
    whole = bytes(MAX_PACKET)
    assert packets(Deframer(), frame(whole)) == [whole]
    with pytest.raises(UsageError, match="65536 bytes"):
        frame(bytes(MAX_PACKET + 1))


def test_empty_packets_are_left_out() -> None:
    """They may stand anywhere after the first packet, cut in two as well."""
    deframer = Deframer()
    assert packets(deframer, frame(b"one") + b"\0\0\0\0" + frame(b"two") + b"\0") == [b"one", b"two"]
    assert packets(deframer, b"\0" + frame(b"three")) == [b"three"]


def test_an_empty_first_packet_loses_the_stream() -> None:
    """A stranger says who it is, or goes."""
    deframer = Deframer(FIRST_LIMIT)
    with pytest.raises(MalformedFraming, match="empty first"):
        packets(deframer, b"\0\0" + frame(b"late"))


def test_a_first_packet_beyond_the_limit_loses_the_stream_by_its_length_alone() -> None:
    """Nothing of its body is waited for, and later ones may be larger."""
    with pytest.raises(MalformedFraming, match="1501 bytes"):
        packets(Deframer(FIRST_LIMIT), (FIRST_LIMIT + 1).to_bytes(2, "big"))
    first, second = bytes(FIRST_LIMIT), bytes(MAX_PACKET)
    assert packets(Deframer(FIRST_LIMIT), frame(first) + frame(second)) == [first, second]


def test_a_flood_of_empty_packets_loses_the_stream() -> None:
    """So many on end may be a keepalive, more are none; a packet with something in it begins a new run."""
    deframer = Deframer()
    run = b"\0\0" * MAX_EMPTY_RUN
    assert packets(deframer, frame(b"x") + run + frame(b"y")) == [b"x", b"y"]
    assert packets(deframer, run) == []
    with pytest.raises(MalformedFraming, match="empty packets"):
        packets(deframer, b"\0\0")


def test_a_lost_stream_stays_lost_and_keeps_nothing() -> None:
    """Whatever follows is not looked at."""
    deframer = Deframer(FIRST_LIMIT)
    for data in (b"\xff\xff" + bytes(1000), frame(b"fine")):
        with pytest.raises(MalformedFraming):
            packets(deframer, data)
    assert len(deframer) == 0


def test_no_more_than_the_limit_waits() -> None:
    """Whoever feeds without taking is told so."""
    deframer = Deframer()
    deframer.feed(bytes(MAX_WAITING))
    with pytest.raises(UsageError, match="take the packets"):
        deframer.feed(b"x")


def test_the_rest_of_a_stream_can_be_had() -> None:
    """What follows the last packet taken may be something else."""
    deframer = Deframer()
    deframer.feed(frame(b"last") + b"\x16\x03\x01")
    assert deframer.next_packet() == b"last"
    assert deframer.rest() == b"\x16\x03\x01"
    assert len(deframer) == 0
