"""A peer that breaks the chat protocol: one event, bounded memory, and never an exception."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from crowline.chat.events import Arrived, Broken, ChatEvent, PeerLeft
from crowline.chat.messages import (
    HEADER_BYTES,
    MAX_FRAME,
    MAX_TEXT,
    Away,
    Marks,
    Message,
    Say,
    Typing,
    encode,
)
from crowline.chat.talk import Talk


def frame(payload: bytes) -> bytes:
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


def raw(**fields: object) -> bytes:
    return frame(msgspec.msgpack.encode(fields))


def events_of(talk: Talk) -> list[ChatEvent]:
    found = []
    while (event := talk.next_event()) is not None:
        found.append(event)
    return found


@pytest.mark.parametrize(
    "data",
    [
        bytes(HEADER_BYTES),
        (MAX_FRAME + 1).to_bytes(HEADER_BYTES, "big"),
        b"\xff\xff\xff\xff",
        b"crowline/pipe 1\n",
        frame(b"\xc1"),
        frame(b"\x91" * 4000),
        raw(t="say", id=1),
        raw(t="say", id=1, text=""),
        raw(t="say", id=1, text="x" * (MAX_TEXT + 1)),
        raw(t="say", id=0, text="x"),
        raw(t="say", id=2**60, text="x"),
        raw(t="say", id="1", text="x"),
        raw(t="marks", delivered=-1),
        raw(t="typing", on=1),
        raw(t="away", on=True, note="x" * 500),
        raw(t="later", on=True),
        frame(b"\x83\xa1t\xa3say\xa2id\x01\xa4text\xa2\xff\xfe"),
    ],
    ids=lambda data: repr(data[:24]),
)
def test_k10_what_is_no_message_ends_the_chat(data: bytes) -> None:
    """With one event; what follows is not looked at."""
    talk = Talk()
    talk.receive(data, 0.0)
    talk.receive(encode(Say(1, "after")), 0.0)
    (event,) = events_of(talk)
    assert isinstance(event, Broken)
    assert talk.next_transmit(0.0) is None


@pytest.mark.parametrize(
    "messages",
    [
        [Say(2, "x")],
        [Say(1, "x"), Say(1, "x")],
        [Say(1, "x"), Say(3, "x")],
        [Marks(1)],
        [Marks(0, 1)],
    ],
    ids=["gap", "twice", "skipped", "delivered", "read"],
)
def test_k10_lies_about_numbers_end_the_chat(messages: list[Message]) -> None:
    """Nothing is shown twice, and nothing is taken for delivered that was never sent."""
    talk = Talk()
    talk.say("kept")
    for message in messages:
        talk.receive(encode(message), 0.0)
    assert isinstance(events_of(talk)[-1], Broken)
    assert [said.text for said in talk.undelivered] == ["kept"]


def test_k10_an_announced_frame_is_not_waited_for_in_memory() -> None:
    """A length is bounded before anything of the frame is kept, and one frame is all that ever is."""
    talk = Talk()
    talk.receive(MAX_FRAME.to_bytes(HEADER_BYTES, "big"), 0.0)
    for _ in range(MAX_FRAME // 1000):
        talk.receive(bytes(1000), 0.0)
    assert events_of(talk) == []
    talk.receive(bytes(1000), 0.0)
    assert isinstance(events_of(talk)[-1], Broken)


def test_a_flood_of_signs_is_one_event_and_no_answer() -> None:
    """The same said ten thousand times costs this side nothing."""
    talk = Talk()
    talk.receive(b"".join([encode(Typing(True)), encode(Away(True, "out"))] * 10_000), 0.0)
    assert len(events_of(talk)) == 2
    assert talk.next_transmit(0.0) is None


@given(st.binary(max_size=400), st.lists(st.integers(1, 50), max_size=20))
def test_no_bytes_raise(data: bytes, cuts: list[int]) -> None:
    """Whatever comes, in whatever pieces: events, and nothing after the last one."""
    talk = Talk()
    start = 0
    for cut in [*cuts, len(data) + 1]:
        if piece := data[start : start + cut]:
            talk.receive(piece, 0.0)
        start += cut
    talk.receive(b"", 0.0)
    found = events_of(talk)
    assert isinstance(found[-1], Broken | PeerLeft)
    assert all(isinstance(event, Arrived) or event is found[-1] for event in found if event != found[-1])
