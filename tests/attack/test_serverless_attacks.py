"""Meetings without a server: what a token, a neighbour or a named host can make this side do."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from dataclasses import replace

import pytest

import crowline
from crowline.api import token_point
from crowline.api.gatherer import Gatherer
from crowline.api.serverless import host_by_token, host_on_lan, join_by_token
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net import mdns
from crowline.net.framed_messages import FramedMessages
from crowline.rendezvous import wire
from crowline.rendezvous.code import Code
from crowline.rendezvous.datagram_stream import OPENER_HOPS, DatagramStream, Way
from crowline.rendezvous.signals import CandidateSignal
from crowline.rendezvous.token import MAX_CANDIDATES, Token

VICTIM = "198.51.100.9"


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Transmit]:
    """What would leave by UDP; nothing does."""
    kept: list[Transmit] = []
    monkeypatch.setattr(Gatherer, "send", lambda self, transmit: kept.append(transmit))
    return kept


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


async def test_a_neighbour_has_one_guess_at_the_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever knows the number, which is no secret, claims the place once; the second claim finds nothing."""
    monkeypatch.setattr(mdns, "PORT", 0)
    async with asyncio.timeout(60), host_on_lan(loopback=True) as room:
        number = Code.parse(room.code).number
        server = room._connection._hub._server  # type: ignore[union-attr]
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
