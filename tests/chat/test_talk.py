"""A chat's two sides: messages, marks, signs of writing, being away, and what waits for the other side."""

from __future__ import annotations

import pytest

from chat_pair import ChatPair
from crowline.base.errors import UsageError
from crowline.chat.events import Arrived, Delivered, PeerAway, PeerLeft, PeerTyping, Read
from crowline.chat.messages import MAX_TEXT
from crowline.chat.talk import MAX_KEPT, TYPING_LIFE, TYPING_PAUSE, TYPING_REPEAT, Talk


@pytest.fixture
def pair() -> ChatPair:
    return ChatPair()


@pytest.mark.parametrize("piece", [None, 1, 3])
def test_messages_arrive_in_order_and_are_marked_as_delivered(pair: ChatPair, piece: int | None) -> None:
    """Whatever the pieces that the stream cuts them into."""
    pair.piece = piece
    for text in ("one", "zwei ü", "three\nwith\nlines"):
        pair.sides[0].say(text)
    assert [said.text for said in pair.sides[0].undelivered] == ["one", "zwei ü", "three\nwith\nlines"]
    pair.carry()
    assert pair.events[1] == [Arrived(1, "one"), Arrived(2, "zwei ü"), Arrived(3, "three\nwith\nlines")]
    assert pair.events[0][-1] == Delivered(3)
    assert not pair.sides[0].undelivered


def test_what_was_seen_is_marked_as_read(pair: ChatPair) -> None:
    """Only when the program says that the person saw it, and never more than has come."""
    pair.sides[1].say("hello")
    pair.sides[1].say("there")
    pair.carry()
    assert pair.events[1] == [Delivered(2)]
    pair.sides[0].saw(1)
    pair.carry()
    pair.sides[0].saw(99)
    pair.carry()
    assert pair.events[1] == [Delivered(2), Read(1), Read(2)]


def test_both_may_say_something_at_once(pair: ChatPair) -> None:
    """Each side counts its own messages."""
    pair.sides[0].say("a")
    pair.sides[1].say("b")
    pair.carry()
    assert Arrived(1, "b") in pair.events[0] and Delivered(1) in pair.events[0]
    assert Arrived(1, "a") in pair.events[1] and Delivered(1) in pair.events[1]


def test_marks_do_not_pile_up() -> None:
    """A thousand messages that came at once are marked by one frame."""
    sender, receiver = Talk(), Talk()
    for _ in range(1000):
        sender.say("x")
    while (data := sender.next_transmit(0.0)) is not None:
        receiver.receive(data, 0.0)
    assert receiver.next_transmit(0.0) is not None
    assert receiver.next_transmit(0.0) is None


def test_writing_is_told_while_it_lasts(pair: ChatPair) -> None:
    """One sign at the first key, one again now and then, and one at the end of it."""
    for _ in range(20):
        pair.sides[0].typed(pair.now)
        pair.run(pair.now + 1.0)
    assert pair.events[1] == [PeerTyping(True)]
    pair.run(pair.now + TYPING_PAUSE)
    assert pair.events[1] == [PeerTyping(True), PeerTyping(False)]
    assert pair.sides[0].next_timeout() is None and pair.sides[1].next_timeout() is None


def test_signs_of_writing_are_few() -> None:
    """A key a tenth of a second costs the path one frame in five seconds."""
    writer = Talk()
    frames = 0
    for tenth in range(100):
        writer.typed(tenth / 10)
        while writer.next_transmit(tenth / 10) is not None:
            frames += 1
    assert frames <= 100 / 10 / TYPING_REPEAT + 1


def test_a_message_ends_the_writing(pair: ChatPair) -> None:
    """Without a sign of its own."""
    pair.sides[0].typed(pair.now)
    pair.carry()
    pair.sides[0].say("done")
    pair.carry()
    assert pair.events[1] == [PeerTyping(True), PeerTyping(False), Arrived(1, "done")]
    pair.run(60.0)
    assert len(pair.events[1]) == 3


def test_a_sign_of_writing_ends_by_itself(pair: ChatPair) -> None:
    """The other side may be out of reach when it ends."""
    pair.sides[0].typed(pair.now)
    pair.carry()
    pair.now = TYPING_LIFE
    pair.sides[1].handle_timeout(pair.now)
    pair.collect()
    assert pair.events[1] == [PeerTyping(True), PeerTyping(False)]


def test_being_away_is_told_with_a_line_and_being_back_too(pair: ChatPair) -> None:
    """The same twice is told once."""
    pair.sides[0].away("lunch")
    pair.carry()
    pair.sides[0].away("lunch")
    pair.carry()
    pair.sides[0].away(None)
    pair.carry()
    assert pair.events[1] == [PeerAway(True, "lunch"), PeerAway(False, "")]


def test_what_is_said_before_there_is_a_stream_waits(pair: ChatPair) -> None:
    """A person may write while the other one is still typing the code."""
    pair.sides[0].say("are you there?")
    assert pair.sides[0].undelivered[0].text == "are you there?"
    pair.run(600.0)
    assert pair.events[1] == [Arrived(1, "are you there?")]


def test_the_end_of_the_stream_is_the_other_sides_leaving(pair: ChatPair) -> None:
    """What was not delivered stays known, and nothing is sent any more."""
    pair.sides[0].say("too late")
    pair.sides[0].receive(b"", 0.0)
    pair.collect()
    assert pair.events[0] == [PeerLeft()]
    assert pair.sides[0].next_transmit(0.0) is None
    assert [said.text for said in pair.sides[0].undelivered] == ["too late"]


@pytest.mark.parametrize("text", ["", "x" * (MAX_TEXT + 1)])
def test_a_message_has_some_characters_and_not_too_many(text: str) -> None:
    """The caller is told."""
    with pytest.raises(UsageError):
        Talk().say(text)


def test_only_so_much_is_kept_for_an_absent_side() -> None:
    """By number and by characters; delivery makes room again."""
    many, long = Talk(), Talk()
    for _ in range(MAX_KEPT):
        many.say("x")
    with pytest.raises(UsageError):
        many.say("x")
    with pytest.raises(UsageError):
        for _ in range(MAX_KEPT):
            long.say("x" * MAX_TEXT)
    receiver = Talk()
    while (data := many.next_transmit(0.0)) is not None:
        receiver.receive(data, 0.0)
    marks = receiver.next_transmit(0.0)
    assert marks is not None
    many.receive(marks, 0.0)
    assert many.say("x") == MAX_KEPT + 1


def test_text_that_cannot_be_encoded_is_made_to_fit(pair: ChatPair) -> None:
    """Half a surrogate pair becomes a question mark."""
    pair.sides[0].say("a\ud800b")
    pair.sides[0].away("at \udfff")
    pair.carry()
    assert pair.events[1] == [Arrived(1, "a?b"), PeerAway(True, "at ?")]


def test_who_has_room_may_say_the_longest_message() -> None:
    """Whatever was said before, many short ones or few long ones."""
    for text in ("x", "x" * MAX_TEXT):
        talk = Talk()
        while talk.has_room:
            talk.say(text)
        with pytest.raises(UsageError):
            talk.say("x" * MAX_TEXT)
        assert talk.waiting >= 200
