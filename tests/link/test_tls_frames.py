"""Frames inside a TLS link, and answers to what needs one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.link.events import LinkData
from crowline.link.tls import IDLE_TIMEOUT
from crowline.link.tls_frames import ANSWER_DELAY, HEADER, FrameReader
from tls_pair import Wire


@given(st.lists(st.binary(max_size=50), max_size=20), st.integers(1, 60))
def test_bytes_come_out_of_frames_however_they_are_cut(parts: list[bytes], chunk: int) -> None:
    """Answers in between disappear, and no byte is lost or moved."""
    stream = memoryview(b"".join(HEADER.pack(len(part)) + part for part in parts))
    reader = FrameReader()
    found = b""
    for start in range(0, len(stream), chunk):
        pieces = list(reader.feed(stream[start : start + chunk]))
        assert all(len(piece) for piece in pieces)
        found += b"".join(pieces)
    assert found == b"".join(parts)


def test_a_frame_of_any_length_is_handed_on_as_it_comes() -> None:
    """A claim of 4 GiB costs nothing."""
    reader = FrameReader()
    assert list(reader.feed(memoryview(b"\xff\xff\xff\xffabc"))) == [b"abc"]
    assert list(reader.feed(memoryview(b"def"))) == [b"def"]


def test_what_needs_no_reply_is_answered_all_the_same() -> None:
    """A link that has carried the last word of a session does not look silent."""
    wire = Wire().run()
    wire.client.send(b"the last word", 1.0)
    wire.now = 1.01
    wire.run()
    assert wire.client.unanswered_since == 1.0
    assert wire.server.next_timeout() == pytest.approx(1.01 + ANSWER_DELAY)
    wire.now = 1.1
    wire.server.handle_timeout(wire.now)
    wire.run()
    assert wire.client.unanswered_since is None
    assert wire.data("client") == b""


def test_an_answer_is_not_answered() -> None:
    """After it both sides rest until the next ping."""
    wire = Wire().run()
    wire.client.send(b"word", 0.0)
    wire.run()
    wire.server.handle_timeout(1.0)
    wire.run()
    assert wire.server.unanswered_since is None
    assert wire.client.next_timeout() == IDLE_TIMEOUT == wire.server.next_timeout()


def test_session_bytes_take_the_place_of_an_answer() -> None:
    """Whoever has something to say needs no empty frame."""
    wire = Wire().run()
    wire.client.send(b"ask", 0.0)
    wire.run()
    wire.server.send(b"reply", 0.01)
    wire.run()
    wire.server.handle_timeout(ANSWER_DELAY)
    assert wire.server.next_transmit() is None
    assert wire.data("client") == b"reply"


def test_sending_nothing_sends_nothing() -> None:
    """No bytes are no frame: an empty one would be an answer."""
    wire = Wire().run()
    wire.client.send(b"", 0.0)
    assert wire.client.next_transmit() is None and wire.client.unanswered_since is None


def test_answers_keep_a_link_alive() -> None:
    """They are as authentic as anything else."""
    wire = Wire().run()
    for second in range(10, 100, 10):
        wire.now = float(second)
        wire.client.send(b"x", wire.now)
        wire.run()
        wire.server.handle_timeout(wire.now + ANSWER_DELAY)
        wire.run()
        wire.client.handle_timeout(wire.now + 1)
    assert wire.client.is_up and wire.server.is_up
    assert all(isinstance(event, LinkData) for event in wire.events["server"][1:])
