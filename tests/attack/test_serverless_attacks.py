"""Meetings without a server: what a token, a neighbour or a named host can make this side do."""

from __future__ import annotations

import asyncio
import os
import socket as socket_module
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import fields, replace
from types import SimpleNamespace
from typing import Any

import pytest

import crowline
from crowline.api import lan_point, token_point
from crowline.api.hub_channel import HubChannel
from crowline.api.meeting_point import Callbacks
from crowline.api.serverless import host_by_token, host_on_lan, join_by_token, join_on_lan
from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net import framed_messages, mdns
from crowline.net.framed_messages import FramedMessages
from crowline.rendezvous import wire
from crowline.rendezvous.code import Code
from crowline.rendezvous.datagram_stream import OPENER_HOPS, DatagramStream, Way
from crowline.rendezvous.events import HostVouched, MeetingEvent
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import CandidateSignal
from crowline.rendezvous.token import MAX_CANDIDATES, Token
from crowline.stun import Message, MessageClass, Method, short_term_key
from crowline.stun.attributes import IceControlling, Priority, Username
from waiting import until

VICTIM = "198.51.100.9"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Transmit]:
    """What would leave by UDP; nothing does."""
    kept: list[Transmit] = []
    monkeypatch.setattr(Gatherer, "send", lambda self, transmit: kept.append(transmit))
    return kept


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """None but loopback, and no port that anybody asks at."""
    monkeypatch.setattr(lan_point, "local_addresses", lambda *, loopback: ["127.0.0.1"])
    monkeypatch.setattr(mdns, "PORT", 0)


def naming(token: Token, addresses: list[tuple[str, int]]) -> str:
    """The same token, with other candidates."""
    signals = [
        CandidateSignal("f", 1, "udp", 1000 + number, host, port, "srflx")
        for number, (host, port) in enumerate(addresses)
    ]
    return str(replace(token, candidates=tuple(signals)))


async def joined_by(
    sent: list[Transmit], addresses: list[tuple[str, int]], rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Read a token that names these, and keep translators open for it so many times."""
    monkeypatch.setattr(token_point, "LOCAL_LIMIT", 0.005)
    monkeypatch.setattr(token_point, "OPENER_INTERVAL", 0.005)
    done = asyncio.Event()
    knocks = Counter[Address]()
    real = token_point.Traversal.knock

    def counted(self: token_point.Traversal, address: Address, hop_limit: int) -> None:
        knocks[address] += 1
        if max(knocks.values()) > rounds:
            done.set()
        real(self, address, hop_limit)

    monkeypatch.setattr(token_point.Traversal, "knock", counted)
    async with asyncio.timeout(60), host_by_token(loopback=True) as room:
        text = naming(Token.parse(room.code), addresses)
        async with join_by_token(text, loopback=True):
            await done.wait()


async def test_a_token_cannot_name_what_no_candidate_may(
    sent: list[Transmit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Metadata services, multicast, ports of services: neither a check nor an opener goes there."""
    forbidden = [
        ("169.254.169.254", 4000),
        ("224.0.0.1", 4000),
        (VICTIM, 53),
        ("0.0.0.0", 4000),
        ("ff02::1", 4000),
    ]
    await joined_by(sent, forbidden, 5, monkeypatch)
    assert not {each.destination.host for each in sent} & {host for host, _ in forbidden}


async def test_what_a_token_names_gets_a_bounded_number_of_packets_that_arrive(
    sent: list[Transmit], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third party that a token names at all its places gets checks within ICE's budget; every opener beyond
    those dies on its way.
    """
    many = [("44.9.9.9", 4000 + number) for number in range(MAX_CANDIDATES)]
    await joined_by(sent, many, 50, monkeypatch)
    to_victim = [each for each in sent if each.destination.host == "44.9.9.9"]
    arriving = [each for each in to_victim if each.hop_limit is None]
    assert 0 < len(arriving) <= 100
    assert {each.hop_limit for each in to_victim} - {None} == set(OPENER_HOPS)


def test_openers_to_a_named_host_are_few_and_go_nowhere_else() -> None:
    """Ten minutes of waiting: two a second that die on their way, and those that arrive as documented."""
    here, there = Address("192.0.2.1", 4000), Address(VICTIM, 4000)
    for knocks, most in ((False, 6), (True, 1201)):
        stream = DatagramStream([Way(here, there)], knocks=knocks, entropy=os.urandom, now=0.0)
        now, packets = 0.0, []
        while now < 600.0:
            stream.handle_timeout(now)
            while (transmit := stream.next_transmit()) is not None:
                packets.append(transmit)
            now = stream.next_timeout() or 600.0
        assert {each.destination for each in packets} == {there}
        assert len([each for each in packets if each.hop_limit is not None]) <= 1201
        assert len([each for each in packets if each.hop_limit is None]) <= most


async def test_a_neighbour_has_one_guess_at_the_words() -> None:
    """Whoever knows the number, which is no secret, claims the place once; the second claim finds nothing."""
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        number = Code.parse(room.code).number
        server = room._connection._hub._servers["127.0.0.1"]  # type: ignore[union-attr]
        where = Address(*server.sockets[0].getsockname()[:2])
        answers = []
        for _ in range(2):
            socket = await FramedMessages.connect(where)
            messages = socket.messages()
            assert isinstance(wire.decode_hub(str(await anext(messages)).encode()), wire.Welcome)
            socket.send(wire.encode(wire.Claim(wire.VERSION, number, os.urandom(33))).decode())
            answers.append(wire.decode_hub(str(await anext(messages)).encode()))
            await socket.close()
        with pytest.raises(crowline.WrongCode):
            await room.peer()
        assert isinstance(answers[0], wire.Claimed) and isinstance(answers[1], wire.Error)


async def test_a_neighbour_cannot_have_meetings_of_its_own_at_a_hub_in_a_pocket() -> None:
    """It serves the one meeting of this process, and is no relay for the network."""
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        socket, messages = await neighbour_of(room)
        socket.send(wire.encode(wire.Allocate(wire.VERSION, os.urandom(33))).decode())
        answer = wire.decode_hub(str(await anext(messages)).encode())
        assert isinstance(answer, wire.Error) and answer.code == "full"
        await socket.close()


async def test_a_neighbour_that_asks_and_never_reads_is_cut_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """What waits for it is bounded, and its place is free again."""
    monkeypatch.setattr(framed_messages, "MAX_QUEUED", 10_000)
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        socket, messages = await neighbour_of(room)
        number = Code.parse(room.code).number
        socket.send(wire.encode(wire.Claim(wire.VERSION, number, os.urandom(33))).decode())
        await anext(messages)
        hub = room._connection._hub._hub  # type: ignore[union-attr]
        [sink] = [each for each in hub._sinks.values() if isinstance(each.send.__self__, FramedMessages)]
        server_side = sink.send.__self__
        socket._reader._transport.pause_reading()  # type: ignore[attr-defined]
        while not server_side._writer.transport.is_closing():
            server_side.send("x" * 50_000)
            assert server_side.queued <= 110_000
        await until(lambda: sink not in hub._sinks.values())
        socket._writer.transport.abort()


async def test_a_connection_that_was_reset_at_once_is_said_to_be_none() -> None:
    """The system no longer knows whom it was with: whoever is found may do that."""
    closed: list[bool] = []
    writer: Any = SimpleNamespace(get_extra_info=lambda _: None, close=lambda: closed.append(True))
    with pytest.raises(crowline.ServerUnreachable):
        FramedMessages(asyncio.StreamReader(), writer)
    assert closed


async def test_a_hub_of_the_other_side_names_no_third_party(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever answers in this network first is heard before it has proven anything: its servers are not
    asked, its relay is not used, its words reach no screen.
    """
    asked: list[object] = []

    async def query_stun(self: Traversal, servers: object) -> None:
        asked.append(("stun", servers))

    async def allocate(self: Traversal, grant: object) -> None:
        asked.append(("turn", grant))

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there = FramedMessages(reader, writer)
        bad = wire.ServerAddress(VICTIM, 3478)
        welcome = wire.Welcome(wire.VERSION, stun=(bad,), motd="Call this number.", vouches=True)
        there.send(wire.encode(welcome).decode())
        messages = there.messages()
        assert isinstance(wire.decode_client(str(await anext(messages)).encode()), wire.Claim)
        grant = wire.TurnGrant((bad,), "user", "password", 600)
        element = Spake2Pake(Role.HOST, b"?", os.urandom).element
        there.send(wire.encode(wire.Claimed(element, "ab" * 16, grant)).decode())
        async for _ in messages:
            there.send(wire.encode(wire.Gone("burned")).decode())
        await there.close()

    monkeypatch.setattr(Traversal, "query_stun", query_stun)
    monkeypatch.setattr(Traversal, "allocate", allocate)
    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    where = Address(*server.sockets[0].getsockname()[:2])

    async def find(code: Code, hosts: object) -> Address:
        return where

    monkeypatch.setattr(lan_point, "find", find)
    warnings: list[str] = []
    async with asyncio.timeout(60):
        with pytest.raises(crowline.WrongCode):
            async with join_on_lan(str(Code.from_secret(12_345, 6)), loopback=True) as room:
                room.on_warning(warnings.append)
                await room.peer()
        server.close()
        await server.wait_closed()
    assert asked == [("stun", ()), ("turn", None)] and warnings == []


async def test_a_hub_of_the_other_side_vouches_for_nobody() -> None:
    """Plans for hard NATs send many packets to a host that is vouched for: only where the other side is."""
    events: list[MeetingEvent] = []
    callbacks: Any = SimpleNamespace(
        **dict.fromkeys((each.name for each in fields(Callbacks)), lambda *_: None)
    )
    callbacks.on_event = events.append
    meeting: Any = SimpleNamespace(next_transmit=lambda: None, next_event=lambda: None, vouch=events.append)
    meeting.next_timeout = lambda: None
    point = HubChannel(None, meeting, callbacks, peer_hosts={"192.0.2.1"})  # type: ignore[arg-type]
    for host in (VICTIM, "127.0.0.1", "192.0.2.1"):
        point.vouch(host)
    await asyncio.sleep(0)
    assert events == [HostVouched("192.0.2.1")]


async def test_a_forged_check_does_not_begin_a_meeting_by_tokens() -> None:
    """The user fragment goes over the wire in clear; the password that signs checks is in the token alone."""
    async with (
        asyncio.timeout(60),
        host_by_token(loopback=True) as here,
        join_by_token(here.code, loopback=True) as there,
    ):
        token = Token.parse(there.code)
        heard: list[Address] = []
        point: Any = there._connection._hub
        real = point._traversal.on_heard

        def hear(data: memoryview, source: Address, local: Address) -> None:
            heard.append(source)
            real(data, source, local)

        point._traversal.on_heard = hear
        attributes = (Username(f"{token.ufrag}:them"), Priority(1), IceControlling(7))
        request = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), attributes)
        forged = request.encode(key=short_term_key("guessed"), fingerprint=True)
        own = next(each for each in token.candidates if each.host == "127.0.0.1")
        with socket_module.socket(socket_module.AF_INET, socket_module.SOCK_DGRAM) as stranger:
            stranger.bind(("127.0.0.1", 0))
            stranger.sendto(forged, (own.host, own.port))
            source = Address(*stranger.getsockname())
            await until(lambda: source in heard)
        assert not point._has_met
        here.answer(there.code)
        peers = await asyncio.gather(here.peer(), there.peer())
        assert peers[0].words == peers[1].words


def where(room: crowline.Room) -> tuple[str, int]:
    """Where the hosting side of a room listens."""
    server = room._connection._hub._servers["127.0.0.1"]  # type: ignore[union-attr]
    name: tuple[str, int] = server.sockets[0].getsockname()[:2]
    return name


async def neighbour_of(room: crowline.Room) -> tuple[FramedMessages, AsyncIterator[str | bytes]]:
    """A connection to the hub in the pocket of that room, welcomed there."""
    socket = await FramedMessages.connect(Address(*where(room)))
    messages = socket.messages()
    assert isinstance(wire.decode_hub(str(await anext(messages)).encode()), wire.Welcome)
    return socket, messages
