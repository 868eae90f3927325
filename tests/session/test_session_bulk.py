"""Two links of one rank in virtual time: the streams' bulk goes by the one that brings more of it."""

from __future__ import annotations

import random

import pytest

from crowline.session.bulk_route import WISH_INTERVAL
from crowline.session.events import LinkChosen, LinkSought
from crowline.session.frames import Kind, header
from crowline.session.links import BETTER_PATH
from crowline.session.session import Session
from session_pair import Pair

NATURAL, FOR_BULK = 1, 2
DELAY = 0.04  # seconds one way
# Bytes that may be on the way by each: what a round trip brings. A link that losses keep small, and one that
# they do not.
SLOW, FAST = 1 << 15, 1 << 20
CONTENTS = random.Random(7).randbytes(1 << 20) * 48


def met(*, slow: int = SLOW, fast: int | None = FAST) -> Pair:
    """Both sides, up for a while."""
    pair = Pair(window=8 << 20)
    pair.link(NATURAL, rank=3, delay=DELAY, room=slow, merit=9, rtt=2 * DELAY)
    if fast is not None:
        pair.link(FOR_BULK, rank=3, delay=DELAY, room=fast, merit=5, rtt=2 * DELAY, is_for_bulk=True)
    pair.run(5)
    for events in pair.events:
        events.clear()
    return pair


def say(pair: Pair, contents: bytes, side: int = 0) -> int:
    session = pair.sessions[side]
    stream = session.open_stream()
    session.write(stream, contents)
    session.finish(stream)
    pair.pump()
    return stream


def chosen(pair: Pair, side: int = 0) -> list[int | None]:
    return [event.link for event in pair.events[side] if isinstance(event, LinkChosen)]


def wishes(pair: Pair, side: int) -> int:
    return sum(isinstance(event, LinkSought) for event in pair.events[side])


@pytest.mark.parametrize("side", [0, 1])
def test_bulk_moves_and_comes_back_with_every_byte(side: int) -> None:
    """Only the side that sends moves; when its bytes are through, its streams are where they were."""
    pair = met()
    stream = say(pair, CONTENTS, side)
    pair.run(30)
    assert chosen(pair, side) == [FOR_BULK, NATURAL]
    assert chosen(pair, 1 - side) == []
    assert pair.received[1 - side, stream] == CONTENTS
    assert pair.sessions[side].links.carried(FOR_BULK)[0] > len(CONTENTS) // 2
    reasons = [event.reason for event in pair.events[side] if isinstance(event, LinkChosen)]
    assert reasons[0].startswith("a trial") and reasons[1] == BETTER_PATH
    assert wishes(pair, 0) == wishes(pair, 1) == 0


def test_what_the_slow_link_carried_goes_again_and_arrives_once() -> None:
    """Bytes that are a second away by the slow link are not waited for by those of the fast one."""
    pair = met(slow=1 << 13, fast=FAST)
    stream = say(pair, CONTENTS[: 8 << 20])
    pair.run(15)
    assert pair.received[1, stream] == CONTENTS[: 8 << 20]


def test_a_link_for_bulk_that_is_no_faster_is_left_after_its_trial() -> None:
    """Equal links: one trial, then a long rest."""
    pair = met(slow=SLOW, fast=SLOW)
    say(pair, CONTENTS)
    pair.run(40)
    assert chosen(pair) == [FOR_BULK, NATURAL]


def test_a_link_that_bulk_has_left_is_measured_anew() -> None:
    """Its pings waited behind that bulk, which would look like a queue on the path."""
    pair = met(slow=SLOW, fast=SLOW)
    say(pair, CONTENTS)
    while chosen(pair) != [FOR_BULK, NATURAL]:
        pair.step()
    pair.run(2)
    member = pair.sessions[0].links._members[FOR_BULK]
    assert member.recent_rtt == pytest.approx(2 * DELAY)


def test_the_end_of_the_link_for_bulk_loses_nothing() -> None:
    """What was on its way by it goes again by the natural link, at once."""
    pair = met()
    stream = say(pair, CONTENTS[: 24 << 20])
    while pair.sessions[0].chosen != FOR_BULK:
        pair.step()
    pair.run(0.5)
    pair.detach(FOR_BULK)
    assert pair.sessions[0].chosen == NATURAL
    pair.run(120)
    assert pair.received[1, stream] == CONTENTS[: 24 << 20]


def test_what_has_arrived_is_said_by_the_link_that_brought_it() -> None:
    """The side that receives says nothing by the natural link meanwhile, and every byte comes."""
    pair = met()
    stream = say(pair, CONTENTS)
    while pair.sessions[1].links.bringer != FOR_BULK:
        pair.step()
    pair.run(0.5)
    natural, said = pair._pipes[1, NATURAL], list[bytes]()
    send = natural.send
    natural.send = lambda data, now: (said.append(bytes(data)), send(data, now))[1]  # type: ignore[method-assign]
    pair.run(1)
    assert pair.sessions[0].chosen == FOR_BULK
    assert not any(data[0] == Kind.WINDOW for data in said)
    pair.run(30)
    assert pair.received[1, stream] == CONTENTS


@pytest.mark.parametrize("side", [0, 1])
def test_a_link_for_bulk_that_is_deaf_on_one_side_loses_nothing(side: int) -> None:
    """Whether the bytes or what is said of them gets stuck: all of it goes by the natural link."""
    pair = met()
    stream = say(pair, CONTENTS[: 24 << 20])
    while pair.sessions[0].chosen != FOR_BULK:
        pair.step()
    pair.run(0.5)
    pair.narrow(FOR_BULK, 0, side)
    pair.run(3)
    assert pair.sessions[0].chosen == NATURAL
    pair.run(120)
    assert pair.received[1, stream] == CONTENTS[: 24 << 20]


@pytest.mark.parametrize("is_heard_from", [False, True])
def test_credit_that_a_dead_link_swallowed_is_told_again(is_heard_from: bool) -> None:
    """The side that sends has nothing on the way, waits for credit, and says nothing that could be answered;
    perhaps the other link has brought something meanwhile."""
    pair = met()
    stream = say(pair, CONTENTS[: 24 << 20])
    while pair.sessions[1].links.bringer != FOR_BULK:
        pair.step()
    pair.reading = False
    while pair.sessions[0]._streams.in_flight:
        pair.step()
    assert pair.sessions[0].chosen == FOR_BULK
    pair.cut(FOR_BULK)
    pair.reading = True
    pair._read(1, stream)
    pair.pump()
    pair.run(0.02)
    if is_heard_from:
        pair.sessions[1].links.bringer = NATURAL
    pair.run(120)
    assert pair.received[1, stream] == CONTENTS[: 24 << 20]


def test_both_sides_hear_that_bulk_is_slow() -> None:
    """Either may be the one that can make another link; it is said now and then, not all the time."""
    pair = met(fast=None)
    say(pair, CONTENTS)
    pair.run(3 * WISH_INTERVAL)
    assert wishes(pair, 0) == wishes(pair, 1) == 3


def test_a_slow_reader_is_no_slow_link() -> None:
    """Bytes that wait for whoever reads them move nothing and wish for nothing."""
    pair = met()
    pair.reading = False
    say(pair, CONTENTS)
    pair.run(3 * WISH_INTERVAL)
    assert chosen(pair) == []
    alone = met(fast=None)
    alone.reading = False
    say(alone, CONTENTS)
    alone.run(3 * WISH_INTERVAL)
    assert wishes(alone, 0) == wishes(alone, 1) == 0


def test_words_now_and_then_are_no_bulk() -> None:
    """Small writes stay on the natural link, however long it goes on."""
    pair = met()
    stream = pair.sessions[0].open_stream()
    for _ in range(200):
        pair.sessions[0].write(stream, b"word" * 100)
        pair.pump()
        pair.run(0.1)
    assert chosen(pair) == []


def test_wishes_of_the_other_side_are_heard_no_more_often_than_they_make_sense() -> None:
    """Whoever asks ten thousand times at once makes one event."""
    pair = met(fast=None)
    session: Session = pair.sessions[1]
    session.receive(header(Kind.SEEK, 0, 0) * 10_000, NATURAL, pair.now)
    pair.pump()
    assert wishes(pair, 1) == 1
    assert not session.is_closed
