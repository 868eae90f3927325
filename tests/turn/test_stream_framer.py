"""Messages on a stream are found whole, wherever it is cut."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.stun.message import MalformedStun, Message, MessageClass, Method
from crowline.turn import channel_data
from crowline.turn.framing import StreamFramer, pad

BINDING = Message(Method.BINDING, MessageClass.REQUEST, b"twelve bytes").encode()


def frames(framer: StreamFramer, data: bytes) -> list[bytes]:
    """What `data` completes."""
    framer.feed(data)
    found = []
    while (message := framer.next_message()) is not None:
        found.append(message)
    return found


@given(st.lists(st.binary(max_size=40), max_size=8), st.lists(st.integers(0, 400), max_size=8))
def test_messages_are_the_same_however_the_stream_is_cut(payloads: list[bytes], cuts: list[int]) -> None:
    """STUN and ChannelData of every size, in pieces of every size."""
    messages = [channel_data.wrap(0x4000, payload) for payload in payloads] + [BINDING]
    stream = b"".join(message if message is BINDING else pad(message) for message in messages)
    framer = StreamFramer()
    found: list[bytes] = []
    edges = [0, *sorted(min(cut, len(stream)) for cut in cuts), len(stream)]
    for start, end in itertools.pairwise(edges):
        found += frames(framer, stream[start:end])
    assert found == messages
    assert len(framer) == 0


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-", b"\x16\x03\x01\x02", b"\0\1\0\3", b"\0\1\0\0\x21\x12\xa4\x43", b"\x50\0\0\0"],
)
def test_anything_else_ends_the_stream(data: bytes) -> None:
    """SSH, TLS, odd lengths, a wrong cookie and numbers beyond the channels are refused at once."""
    with pytest.raises(MalformedStun):
        frames(StreamFramer(), data)


def test_a_message_beyond_the_cap_is_refused_before_it_is_kept() -> None:
    """The header alone decides."""
    with pytest.raises(MalformedStun):
        frames(StreamFramer(max_stun=4096), b"\0\1\x20\0\x21\x12\xa4\x42")


def test_what_follows_the_last_message_can_be_taken_raw() -> None:
    """Data may come in one segment with the answer that announces it."""
    framer = StreamFramer()
    framer.feed(BINDING + b"raw data")
    assert framer.next_message() == BINDING
    assert framer.rest() == b"raw data"
    assert framer.next_message() is None
