"""Where a stream goes over from frames to TLS, and who says so first."""

from __future__ import annotations

import pytest

from crowline.link.stream_switch import EMPTY_FRAME, StreamSwitch

FRAMES = b"\x00\x03abc" + b"\x01\x00" + bytes(256) + b"\x00\x01\x00"
TLS = b"\x16\x03\x01\x00\x00\x00\x00tls"


@pytest.mark.parametrize("chunk", [1, 2, 3, 5, 100, 1000])
def test_the_empty_frame_is_found_however_the_stream_is_cut(chunk: int) -> None:
    """Zeros inside of frames and inside of TLS mean nothing; all after the empty frame is TLS."""
    switch = StreamSwitch()
    stream = FRAMES + EMPTY_FRAME + TLS
    framed, secured = b"", b""
    for start in range(0, len(stream), chunk):
        first, second = switch.split(stream[start : start + chunk])
        framed += first
        secured += second
    assert framed == FRAMES + EMPTY_FRAME
    assert secured == TLS
    assert switch.has_received


def test_a_stream_of_frames_stays_one() -> None:
    """Without an empty frame nothing is TLS, and nothing is kept back."""
    switch = StreamSwitch()
    for _ in range(3):
        framed, secured = switch.split(FRAMES)
        assert framed == FRAMES and secured == b""
    assert not switch.has_received


def test_no_bytes_are_no_frame() -> None:
    """An empty read in the middle of a header changes nothing."""
    switch = StreamSwitch()
    for piece in (b"", b"\0", b"", b"\0"):
        switch.split(piece)
    assert switch.has_received


def test_the_controlled_side_goes_over_first() -> None:
    """Until its empty frame has come, the controlling side answers its checks; then both are over."""
    controlling, controlled = StreamSwitch(), StreamSwitch()
    assert controlled.take_frame() == b"" == controlling.take_frame()
    controlling.nominate(is_controlling=True)
    assert controlling.take_frame() == b"" and not controlling.has_sent
    controlled.nominate(is_controlling=False)
    controlling.split(controlled.take_frame())
    assert controlled.has_sent and not controlled.is_over
    controlled.split(controlling.take_frame())
    assert controlling.is_over and controlled.is_over


def test_the_empty_frame_is_given_once() -> None:
    """Whatever is sent after it is TLS: a second one would be taken for that."""
    switch = StreamSwitch()
    switch.nominate(is_controlling=False)
    switch.nominate(is_controlling=True)
    assert [switch.take_frame() for _ in range(3)] == [EMPTY_FRAME, b"", b""]


def test_the_answer_to_the_nominating_check_may_come_with_the_empty_frame() -> None:
    """All in one read: what is framed is acted on first, and nominates."""
    switch = StreamSwitch()
    framed, secured = switch.split(b"\x00\x06answer" + EMPTY_FRAME + TLS)
    assert bytes(framed[2:8]) == b"answer"
    switch.nominate(is_controlling=True)
    assert not switch.is_premature
    assert switch.take_frame() == EMPTY_FRAME
    assert secured == TLS


def test_going_over_without_a_nomination_is_noticed() -> None:
    """Nobody is led to TLS on a pair that was not chosen, and no empty frame is sent for it."""
    switch = StreamSwitch()
    switch.split(EMPTY_FRAME)
    assert switch.is_premature
    assert switch.take_frame() == b""
