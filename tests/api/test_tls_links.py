"""TCP connections that ICE checks and TLS takes over, on real sockets of the loopback interface."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator, Callable
from contextlib import closing
from typing import Any

import pytest

from crowline.api import tls_links
from crowline.base.errors import UsageError
from crowline.ice.framing import FIRST_LIMIT, LENGTH_SIZE, MAX_PACKET, MAX_WAITING, frame
from crowline.link import tls
from crowline.link.stream_switch import EMPTY_FRAME
from crowline.link.tls import BACKLOG_LIMIT, BROKEN_OFF, ENDED
from crowline.net import tcp_framed
from crowline.net.tcp_framed import MAX_UNTRUSTED
from tls_meeting import Checking, Meeting, Speaker, meeting, socket_pair, strangers
from tls_pair import EVE

Meet = Callable[..., Meeting]


@pytest.fixture
async def meet() -> AsyncIterator[Meet]:
    """Makes meetings that are over with the test."""
    made: list[Meeting] = []

    def make(**options: Any) -> Meeting:
        made.append(meeting(**options))
        return made[-1]

    yield make
    for each in made:
        each.close()


# --- from frames to TLS -----------------------------------------------------------------------------------


@pytest.mark.parametrize("client_controls", [True, False])
@pytest.mark.parametrize("client_dials", [True, False])
async def test_checks_are_framed_and_tls_follows_on_the_same_connection(
    meet: Meet, client_dials: bool, client_controls: bool
) -> None:
    """Whoever dialled and whoever controls: packets with their addresses first, then a link's bytes."""
    both = meet(client_dials=client_dials)
    for side in both.sides:
        for number in range(3):
            side.stream.send(b"check %d" % number)
    await both.until(lambda: all(len(side.stuns) == 3 for side in both.sides))
    assert both.server.stuns[1] == (b"check 1", both.client.stream.local, both.server.stream.local)
    await both.rise(client_controls=client_controls)
    both.client.send(b"to the server")
    both.server.send(b"to the client")
    await both.until(lambda: len(both.client.data) == len(both.server.data) == 13)
    assert both.client.data == b"to the client"
    assert both.server.data == b"to the server"


async def test_links_have_what_the_session_and_its_driver_ask_for(meet: Meet) -> None:
    """The number is the driver's next one, the key the connection's, and the silence that of TLS."""
    both = await meet().rise()
    link = both.client.ups[0]
    assert (link.number, link.category) == (7, "direct")
    assert link.key == (both.client.stream.local, both.client.stream.remote)
    assert link.room() == BACKLOG_LIMIT and link.unanswered_since is None
    link.send(b"x", 5.0)
    assert link.unanswered_since == 5.0


async def test_ice_has_no_say_on_a_connection_that_has_gone_over(meet: Meet) -> None:
    """Its packets are lost, and a second nomination means nothing."""
    both = await meet().rise()
    for side in both.sides:
        side.stream.send(b"consent?")
        side.nominate(is_controlling=True)
    both.client.send(b"still here")
    await both.until(lambda: bool(both.server.data))
    assert [packet for packet, *_ in both.server.stuns] == [b"check"]
    assert both.client.downs == [] == both.server.downs


async def test_agents_check_a_connection_and_a_session_goes_by_it(meet: Meet) -> None:
    """From the first framed check by nomination, empty frames and TLS to a stream, byte for byte."""
    both = meet()
    speaker, listener = Speaker(both.client, initiator=True), Speaker(both.server, initiator=False)
    one, other = Checking(both.client, controlling=True), Checking(both.server, controlling=False)
    one.meet(other)
    other.meet(one)
    await both.until(lambda: bool(both.client.ups and both.server.ups))
    contents = random.Random(1).randbytes(8 << 20)
    stream = speaker.say(contents)
    await both.until(lambda: listener.has_all(stream))
    assert listener.received == contents
    for each in (one, other, speaker, listener):
        each.close()


async def test_a_connection_with_another_make_of_peer_stays_framed(meet: Meet) -> None:
    """Empty frames on it mean nothing, and nobody can put a link there."""
    both = meet(stays_framed=True)
    both.client.raw.send(frame(b"check") + EMPTY_FRAME + frame(b"data"))
    await both.until(lambda: len(both.server.stuns) == 2)
    assert both.server.stuns[1][0] == b"data"
    with pytest.raises(UsageError):
        both.server.nominate(is_controlling=True)
    assert both.server.stream.is_open


async def test_a_dialled_pair_becomes_a_link_that_outlives_the_port() -> None:
    """What ICE ends of its own from then on, wish, port and all, is not the link."""
    with (
        closing(strangers()) as both,
        closing(both.client.listen()) as dialling,
        closing(both.server.listen()) as listening,
    ):
        dialling.want(dialling.bases[0], listening.bases[0], simultaneous=False)
        await both.until(lambda: bool(both.client.streams and both.server.streams))
        await both.rise()
        dialling.unwant(*both.client.stream.key)
        dialling.close()
        listening.close()
        both.client.send(b"still here")
        await both.until(lambda: bool(both.server.data))
        assert both.server.stuns == [(b"check", both.client.stream.local, both.server.stream.local)]
        assert both.client.downs == [] == both.server.downs


# --- back-pressure ----------------------------------------------------------------------------------------


async def test_a_side_that_does_not_read_stops_the_other(meet: Meet) -> None:
    """Room runs out at the backlog's limit, and all that was taken arrives once it reads again."""
    both = await meet(buffer=64 * 1024).rise()
    link = both.client.ups[0]
    both.server.raw.pause()
    sent = bytearray()
    while link.room() and len(sent) < 64 << 20:
        piece = random.Random(len(sent)).randbytes(64 * 1024)
        both.client.send(piece)
        sent += piece
    assert link.room() == 0
    assert BACKLOG_LIMIT <= both.client.stream.waiting < BACKLOG_LIMIT + 2 * len(piece)
    drained = both.client.drained
    both.server.raw.resume()
    await both.until(lambda: len(both.server.data) == len(sent))
    assert both.server.data == sent
    assert both.client.drained > drained and link.room() == BACKLOG_LIMIT


async def test_an_application_that_does_not_read_stops_the_other_side(meet: Meet) -> None:
    """The session's credit holds it back: no more than a window waits, and TCP itself goes on."""
    both = await meet().rise()
    window, size = 1 << 16, 4 << 20
    speaker = Speaker(both.client, initiator=True, window=window)
    listener = Speaker(both.server, initiator=False, window=window)
    listener.is_reading = False
    stream = speaker.say(bytes(size))
    await both.until(lambda: speaker.session.unsent(stream) == size - window)
    assert both.client.ups[0].room() > 0
    listener.is_reading = True
    listener.read(stream)
    await both.until(lambda: listener.has_all(stream))
    assert len(listener.received) == size
    speaker.close()
    listener.close()


# --- the end ----------------------------------------------------------------------------------------------


async def test_a_link_that_is_ended_says_goodbye_after_its_last_bytes(meet: Meet) -> None:
    """The other side gets everything, and is told of an end, not of a cut."""
    both = await meet().rise()
    last_words = random.Random(2).randbytes(200_000)
    both.client.send(last_words)
    both.client.table.end(both.client.ups[0], "a better path took over")
    assert both.client.downs == ["a better path took over"]
    assert both.client.ended == ["a better path took over"]
    await both.until(lambda: bool(both.server.ended))
    assert both.server.data == last_words
    assert both.server.downs == [ENDED]
    await both.until(lambda: not (both.client.stream.is_open or both.server.stream.is_open))


async def test_last_words_arrive_although_the_other_side_goes_on_talking(meet: Meet) -> None:
    """Nothing of its bytes is wanted any more, and none of them resets the connection before its end."""
    both = await meet(buffer=64 * 1024).rise()
    last_words = random.Random(3).randbytes(400_000)
    both.client.send(last_words)
    both.client.table.end(both.client.ups[0], "a better path took over")
    both.server.send(bytes(400_000))
    await both.until(lambda: bool(both.server.ended))
    assert both.server.data == last_words and both.client.data == b""
    assert both.server.downs == [ENDED]
    await both.until(lambda: not both.client.stream.is_open)


async def test_last_words_that_nobody_answers_are_waited_for_so_long_only(
    meet: Meet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other side keeps its end of the connection open."""
    monkeypatch.setattr(tcp_framed, "FINISH_LIMIT", 0.05)
    both = await meet().rise()
    both.server.raw.pause()
    both.client.table.end(both.client.ups[0], "a better path took over")
    assert both.client.stream.is_open
    await both.until(lambda: not both.client.stream.is_open)


async def test_a_table_that_closes_says_goodbye_and_nothing_else(meet: Meet) -> None:
    """The other side's links end, its own go without a word."""
    both = await meet().rise()
    both.client.table.close()
    both.client.table.close()
    await both.until(lambda: bool(both.server.downs))
    assert both.server.downs == [ENDED]
    assert both.client.downs == [] == both.client.ended


async def test_a_connection_that_is_reset_is_a_cut(meet: Meet) -> None:
    """The session hears of it at once and goes on elsewhere; both connections are gone."""
    both = await meet().rise()
    both.client.raw.abort()
    await both.until(lambda: bool(both.server.ended))
    assert both.server.downs == [BROKEN_OFF]
    assert both.server.ended == [BROKEN_OFF]
    assert not both.server.stream.is_open


async def test_a_connection_that_ends_while_ice_checks_it_is_told_once(meet: Meet) -> None:
    """There is no link yet that could go down."""
    both = meet()
    both.client.stream.close()
    await both.until(lambda: bool(both.server.ended))
    assert both.server.ended == ["the other side closed the connection"]
    assert both.server.downs == []


async def test_a_connection_that_its_owner_closes_ends_in_silence(meet: Meet) -> None:
    """Only the other side hears of it."""
    both = meet()
    both.client.stream.close()
    await both.until(lambda: bool(both.server.ended))
    assert both.client.ended == [] and not both.client.stream.is_open


@pytest.mark.parametrize("is_nominated", [True, False])
async def test_a_connection_that_its_owner_drops_ends_its_link_too(meet: Meet, is_nominated: bool) -> None:
    """Where its address is gone, for one: the kernel would let it wait for minutes."""
    both = meet()
    if is_nominated:
        await both.rise()
    both.client.stream.drop("this side's address is gone")
    assert both.client.downs == [BROKEN_OFF] * is_nominated
    assert both.client.ended == [BROKEN_OFF if is_nominated else "this side's address is gone"]
    assert not both.client.stream.is_open


# --- bad input --------------------------------------------------------------------------------------------


async def test_a_side_that_leaves_ice_without_a_nomination_is_left(meet: Meet) -> None:
    """Its first check may have been good: nobody is led to TLS on a pair that was not chosen."""
    both = meet()
    both.client.raw.send(frame(b"check") + EMPTY_FRAME + b"\x16\x03\x01")
    await both.until(lambda: bool(both.server.ended))
    assert both.server.stuns[0][0] == b"check"
    assert both.server.ended == ["the other side left ICE without a nomination"]


async def test_a_nomination_in_the_same_read_as_the_empty_frame_counts(meet: Meet) -> None:
    """The answer to the nominating check, the empty frame and the first bytes of TLS come together."""
    both = meet()
    both.client.act_on_stun = lambda: both.client.nominate(is_controlling=True)
    both.client.stream.send(b"check")
    both.server.stream.send(b"answer")
    both.server.nominate(is_controlling=False)
    await both.until(lambda: bool(both.client.ups and both.server.ups))


@pytest.mark.parametrize("bad", [b"\x7f\xff" + bytes(100), (FIRST_LIMIT + 1).to_bytes(2, "big")])
async def test_a_stream_that_is_not_framed_is_ended(meet: Meet, bad: bytes) -> None:
    """Nobody waits for the rest of a first packet that cannot be a check."""
    both = meet()
    both.client.raw.send(bad)
    await both.until(lambda: bool(both.server.ended))
    assert both.server.stuns == []
    assert not both.server.stream.is_open


@pytest.mark.parametrize("controls", [True, False])
async def test_a_side_that_never_goes_over_is_left(
    meet: Meet, monkeypatch: pytest.MonkeyPatch, controls: bool
) -> None:
    """The limit of the handshake counts from the nomination, whoever waits for whose empty frame."""
    monkeypatch.setattr(tls, "AUTHENTICATION_LIMIT", 0.05)
    both = meet()
    both.server.raw.pause()
    both.client.nominate(is_controlling=controls)
    await both.until(lambda: bool(both.client.ended))
    assert both.client.downs == ["the other side did not prove itself in time"]
    assert not both.client.stream.is_open


async def test_another_certificate_than_the_announced_one_ends_the_connection(meet: Meet) -> None:
    """Neither side's link comes up, and both have closed what they had."""
    both = meet(server=EVE)
    both.client.stream.send(b"check")
    both.server.stream.send(b"check")
    both.client.nominate(is_controlling=True)
    both.server.nominate(is_controlling=False)
    await both.until(lambda: bool(both.client.ended and both.server.ended))
    assert both.client.ups == [] == both.server.ups
    assert both.client.downs == ["the other side shows another certificate than the one announced"]


async def test_a_stranger_can_say_only_so_much(meet: Meet) -> None:
    """Whoever has not proven who it is has no use for more than some checks."""
    both = meet()
    packet = frame(bytes(1000))
    both.client.raw.send(packet * (MAX_UNTRUSTED // len(packet) + 1))
    await both.until(lambda: bool(both.server.ended))
    assert both.server.ended == ["it said too much before it proved itself"]


@pytest.mark.parametrize("feed", [7, tcp_framed._FEED])
async def test_the_other_side_can_say_more(meet: Meet, feed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a good check there is no such bound, and one read may bring more than the deframer takes."""
    monkeypatch.setattr(tcp_framed, "_FEED", feed)
    both = meet()
    both.server.stream.trust()
    packet = frame(bytes(1000))
    count = MAX_UNTRUSTED // len(packet) + 1
    both.client.raw.send(packet * count)
    await both.until(lambda: len(both.server.stuns) == count)
    assert both.server.stream.is_open


def test_what_one_read_brings_is_cut_into_pieces_that_the_deframer_takes() -> None:
    """Also where it still holds most of a packet."""
    assert tcp_framed._FEED + LENGTH_SIZE + MAX_PACKET <= MAX_WAITING


async def test_there_are_only_so_many_links(meet: Meet, monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection too many stays framed, and is ICE's to keep or to end."""
    monkeypatch.setattr(tls_links, "MAX_LINKS", 1)
    both = await meet().rise()
    further = [both.client.adopt(sock) for sock in socket_pair()]
    for stream in further:
        both.client.table.nominate(both.client.pair, stream, is_controlling=True)
    assert [stream.is_nominated for stream in further] == [False, False]
    assert all(stream.is_open for stream in further)


async def test_a_connection_that_has_ended_gets_no_link(meet: Meet) -> None:
    """It may have ended while ICE came to its decision, and packets for it are lost."""
    both = meet()
    both.client.stream.close()
    both.client.stream.send(b"check")
    both.client.nominate(is_controlling=True)
    assert not both.client.stream.is_nominated


async def test_a_link_that_was_let_go_leaves_its_addresses_free(meet: Meet) -> None:
    """The last word is a reset: after a FIN, neither side could dial from there until TIME_WAIT is over."""
    both = await meet().rise()
    both.client.table.end(both.client.ups[0], "a better path took over")
    await both.until(lambda: bool(both.client.resets and both.server.resets))
    assert both.server.downs == [ENDED]
    assert both.client.resets == [True]
