"""ICE connections over TCP (RFC 6544): their own ports, with lines as signals."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import NoPath, UsageError
from crowline.base.transport import Transport
from crowline.ice.candidate import CandidateType, TcpType
from crowline.ice.candidate_line import CandidateLine
from crowline.ice.events import LossReason, PairLost, PairNominated
from crowline.ice.framing import MAX_PACKET, frame
from crowline.stun.attributes import XorMappedAddress
from crowline.stun.message import MessageClass, parse
from crowline.turn.framing import StreamFramer
from nice_process import libnice
from our_ice import PATIENCE, OurIce, our_ice
from waiting import until

HOST = Address("127.0.0.1", 0)
SEEN = Address("198.51.100.7", 7)  # how a server sees a port behind a NAT


@asynccontextmanager
async def pair(**options: Any) -> AsyncIterator[tuple[OurIce, OurIce]]:
    """Two ends that hear each other's lines; without a call to `add_socket` there is nothing but TCP."""
    async with (
        asyncio.timeout(2 * PATIENCE),
        our_ice(controlling=True) as one,
        our_ice(controlling=False, **options) as two,
    ):
        one.speak_to(two.connection.hear)
        two.speak_to(one.connection.hear)
        yield one, two


async def agree(*sides: OurIce) -> None:
    await asyncio.gather(*(side.connection.gather() for side in sides))
    await asyncio.gather(*(side.connection.connected() for side in sides))


async def exchange(one: OurIce, two: OurIce) -> None:
    for data in (b"a", b"b" * 1200, b"c" * MAX_PACKET):
        for sender, receiver in ((one, two), (two, one)):
            sender.connection.send(data)
            assert await receiver.data.get() == data


def remote_host(side: OurIce) -> str:
    """Where its data goes."""
    chosen = side.connection.selected
    return chosen.remote.address.host if chosen is not None else ""


def told(side: OurIce) -> list[CandidateLine]:
    return [CandidateLine.parse(line) for line in side.lines if line.startswith("candidate")]


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_two_sides_connect_over_tcp(host: str) -> None:
    """With a framed connection, on which packets of all sizes keep their borders."""
    async with pair() as (one, two):
        bases = [side.connection.open_tcp(Address(host, 0)) for side in (one, two)]
        await agree(one, two)
        chosen = await one.connection.connected()
        assert (chosen.transport, chosen.base, chosen.kind) == (Transport.TCP, bases[0], "lan")
        await exchange(one, two)


async def test_the_lines_say_how_each_port_is_connected() -> None:
    """Active, passive and both at once, as RFC 6544 has them, in lines of RFC 8839."""
    async with our_ice(controlling=True) as lone:
        base = lone.connection.open_tcp(HOST)
        assert {(line.tcp_type, line.port) for line in told(lone)} == {
            (TcpType.ACTIVE, 9),
            (TcpType.PASSIVE, base.port),
            (TcpType.SIMULTANEOUS_OPEN, base.port),
        }
        assert {(line.transport, line.host) for line in told(lone)} == {("tcp", "127.0.0.1")}


async def test_udp_is_better_where_both_lead_across() -> None:
    """A lost packet holds up nobody there."""
    async with pair() as (one, two):
        for side in (one, two):
            side.connection.add_socket(side.own.local)
            side.connection.open_tcp(HOST)
        await agree(one, two)
        assert (await one.connection.connected()).transport is Transport.UDP


async def test_a_lite_side_is_dialled() -> None:
    """It has a passive candidate and no other."""
    async with pair(lite=True) as (full, lite):
        lite.connection.open_tcp(HOST)
        full.connection.open_tcp(HOST)
        assert [line.tcp_type for line in told(lite)] == [TcpType.PASSIVE]
        await agree(full, lite)
        await exchange(full, lite)


async def test_data_of_a_stranger_is_dropped() -> None:
    """Whoever connects without a check that is signed is heard by nobody."""
    async with pair() as (one, two):
        bases = [side.connection.open_tcp(HOST) for side in (one, two)]
        await agree(one, two)
        _, stranger = await asyncio.open_connection(bases[0].host, bases[0].port)
        stranger.write(frame(b"let me in"))
        await until(lambda: one.connection.counters["unproven"] == 1)
        await exchange(one, two)
        stranger.close()


async def test_a_server_says_where_the_port_is_met() -> None:
    """What it sees of that very port is a candidate for simultaneous opens; the end comes after that."""
    async with stun_over_tcp() as server, our_ice(controlling=True) as lone, asyncio.timeout(PATIENCE):
        base = lone.connection.open_tcp(HOST)
        for _ in range(2):  # the second gathering asks nobody again
            await lone.connection.gather(stun=[server])
        reflexive = [line for line in told(lone) if line.type is CandidateType.SERVER_REFLEXIVE]
        assert [(line.host, line.port, line.tcp_type, line.related_port) for line in reflexive] == [
            (SEEN.host, SEEN.port, TcpType.SIMULTANEOUS_OPEN, base.port)
        ]
        assert lone.lines[-1] == "end-of-candidates"


async def test_servers_are_left_alone_once_a_pair_is_agreed_on() -> None:
    """Their connections end; the next gathering asks anew."""
    ended: list[Address] = []
    async with (
        asyncio.timeout(2 * PATIENCE),
        stun_over_tcp(ended.append) as server,
        our_ice(controlling=True) as one,
        our_ice(controlling=False) as two,
    ):
        bases = [side.connection.open_tcp(HOST) for side in (one, two)]
        await asyncio.gather(*(side.connection.gather(stun=[server]) for side in (one, two)))
        assert not ended
        one.speak_to(two.connection.hear)
        two.speak_to(one.connection.hear)
        await asyncio.gather(*(side.connection.connected() for side in (one, two)))
        await until(lambda: set(bases) <= set(ended))
        assert one.connection.restart()
        await one.connection.gather(stun=[server])
        await exchange(one, two)


async def test_a_server_that_speaks_no_tcp_holds_nobody_up() -> None:
    """Its refusal is an answer."""
    async with our_ice(controlling=True) as lone, asyncio.timeout(PATIENCE):
        lone.connection.open_tcp(HOST)
        await lone.connection.gather(stun=[lone.own.local])
        assert lone.lines[-1] == "end-of-candidates"


@pytest.mark.parametrize("rounds", [1, 2, 5])
async def test_nothing_is_told_after_the_end(rounds: int) -> None:
    """A gathering that was under way ends with it, however far it was."""
    async with our_ice(controlling=True) as lone, asyncio.timeout(PATIENCE):
        lone.connection.open_tcp(HOST)
        mute = await asyncio.start_server(lambda reader, writer: None, "127.0.0.1", 0)
        server = Address(*mute.sockets[0].getsockname())
        gathering = asyncio.ensure_future(lone.connection.gather(stun=[server]))
        for _ in range(rounds):
            await asyncio.sleep(0)
        await lone.connection.close()
        await gathering
        assert "end-of-candidates" not in lone.lines
        mute.close()


async def test_a_port_that_is_closed_is_not_used_any_more() -> None:
    """Both sides hear of it: this one from itself, the other from the end of the connection."""
    async with pair() as (one, two):
        base = one.connection.open_tcp(HOST)
        two.connection.open_tcp(HOST)
        await agree(one, two)
        one.connection.close_tcp(base)
        assert [event.reason for event in one.of(PairLost)] == [LossReason.LOCAL_REMOVED]
        with pytest.raises(NoPath):
            one.connection.send(b"nowhere")
        await until(lambda: bool(two.of(PairLost)))
        assert two.of(PairLost)[0].reason is LossReason.CONNECTION_LOST


async def test_a_restart_goes_on_with_the_data() -> None:
    """Over the connection that is there, until the new session has one, and then over that."""
    async with pair() as (one, two):
        for side in (one, two):
            side.connection.open_tcp(HOST)
        await agree(one, two)
        assert one.connection.restart()
        await exchange(one, two)
        await one.connection.gather()
        await until(lambda: all(len(side.of(PairNominated)) == 2 for side in (one, two)))
        await exchange(one, two)


async def test_a_new_port_takes_over_after_a_restart() -> None:
    """The network has changed: the old address is gone."""
    async with pair() as (one, two):
        old = one.connection.open_tcp(HOST)
        two.connection.open_tcp(HOST)
        await agree(one, two)
        one.connection.close_tcp(old)
        fresh = one.connection.open_tcp(Address("127.0.0.2", 0))
        assert one.connection.restart()
        await one.connection.gather()
        await one.connection.connected()
        await until(lambda: remote_host(two) == fresh.host)
        await exchange(one, two)


async def test_what_makes_no_sense_is_said() -> None:
    """Ports where nobody is reached, ports that give away what shall be hidden, packets beyond a frame."""
    async with pair(relay_only=True) as (one, hidden):
        with pytest.raises(UsageError, match="where this one is"):
            hidden.connection.open_tcp(HOST)
        with pytest.raises(UsageError, match="Nobody can connect"):
            one.connection.open_tcp(Address("0.0.0.0", 0))
    async with pair() as (one, two):
        for side in (one, two):
            side.connection.open_tcp(HOST)
        await agree(one, two)
        with pytest.raises(UsageError, match="framed"):
            one.connection.send(bytes(MAX_PACKET + 1))


@pytest.mark.peer
@pytest.mark.parametrize("we_control", [True, False], ids=["we-control", "it-controls"])
async def test_an_agent_of_others_is_met(we_control: bool) -> None:
    """libnice's ICE-TCP, whoever of the two dials."""
    async with (
        asyncio.timeout(2 * PATIENCE),
        our_ice(controlling=we_control) as ours,
        libnice(controlling=not we_control, tcp=1) as theirs,
    ):
        ours.connection.open_tcp(HOST)
        ours.speak_to(theirs.hear)
        theirs.speak_to(ours.connection.hear)
        await ours.connection.gather()
        assert (await ours.connection.connected()).transport is Transport.TCP
        await theirs.until("state ready")
        ours.connection.send(b"\xff" * 1200)
        assert await theirs.data() == b"\xff" * 1200
        theirs.send(b"\xfe" * 1200)
        assert await ours.data.get() == b"\xfe" * 1200


@asynccontextmanager
async def stun_over_tcp(
    on_end: Callable[[Address], object] = lambda client: None,
) -> AsyncIterator[Address]:
    """A server that sees everybody at one address. `on_end` gets the client of each connection that ended."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        framer, client = StreamFramer(), writer.get_extra_info("peername")
        with suppress(ConnectionError):
            while data := await reader.read(2048):
                framer.feed(data)
                while (asked := framer.next_message()) is not None:
                    seen = parse(asked).message.answer(MessageClass.SUCCESS, XorMappedAddress(SEEN))
                    writer.write(seen.encode())
        if client is not None:
            on_end(Address(*client))
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield Address(*server.sockets[0].getsockname())
    finally:
        server.close()
