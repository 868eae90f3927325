"""Sockets that are renewed in the event loop, by the gatherer that has them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

import crowline
from crowline.api.room import enter
from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.renewals import Renewals
from crowline.base.addresses import Address
from crowline.base.send_problem import SendProblem
from crowline.ice.candidate import Candidate, CandidateType
from crowline.link import renewal
from serving import serving
from waiting import until

HERE, THERE = Address("203.0.113.1", 40000), Address("203.0.113.1", 40001)
PATIENCE = 30.0  # seconds for what must happen, on the slowest machine


class Side:
    """A gatherer on loopback with what renews its sockets, and what both of them told."""

    def __init__(self) -> None:
        self.hosts: list[Address] = []
        self.lost: list[Address] = []
        self.fading: list[Address] = []
        self.used: list[Address] = []
        self.gatherer = Gatherer(self, ["127.0.0.1"])
        self.gatherer.offer_hosts()
        self.renewals = Renewals(self.gatherer, self)
        self.first = self.hosts[0]
        self.renewals.opened(self.first)

    def on_candidate(self, candidate: Candidate) -> None:
        if candidate.type is CandidateType.HOST:
            self.hosts.append(candidate.address)

    def on_base_lost(self, base: Address) -> None:
        self.lost.append(base)

    def on_gathered(self) -> None: ...

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None: ...

    def on_drained(self) -> None: ...

    def on_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None: ...

    def bases_in_use(self) -> list[Address]:
        return self.used

    def on_fading(self, base: Address) -> None:
        self.fading.append(base)

    def close(self) -> None:
        self.renewals.close()
        self.gatherer.close()


async def test_a_socket_whose_mapping_ended_gets_a_successor_and_is_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The successor is offered, the other side's links are to move, and the old one is gone."""
    monkeypatch.setattr(renewal, "MIN_LIFETIME", 0.0)
    monkeypatch.setattr(renewal, "SHARE", 1e6)  # the successors last
    side = Side()
    side.renewals.seen(side.first, HERE)
    side.renewals.fell_silent(side.first)
    side.renewals.seen(side.first, THERE)
    assert side.renewals.is_renewed(side.first)
    await until(lambda: side.lost == [side.first])
    assert side.fading == [side.first]
    assert len(side.hosts) == 2
    assert set(side.gatherer._sockets) == {side.hosts[1]}
    side.close()


@pytest.mark.parametrize("side", ["host", "joining side"])
async def test_a_running_stream_moves_to_the_successor(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever side renews: both move to a link on the new socket, and each byte arrives once."""
    monkeypatch.setattr(renewal, "MIN_LIFETIME", 0.0)
    monkeypatch.setattr(renewal, "SHARE", 1e6)  # the successors last
    monkeypatch.setattr(renewal, "RETIRE_AFTER", 0.2)
    data = os.urandom(300_000)
    async with serving() as server, crowline.host(server.url) as room, enter(room.code, server.url) as other:
        here, there = await room.peer(), await other.peer()
        await until(lambda: all(peer.path is not None and peer.path.is_direct for peer in (here, there)))
        stream = await here.open_stream()
        await stream.write(data[:100_000])
        own = room if side == "host" else other
        [base] = own._connection.carriers.bases_in_use()
        traversal = own._connection._traversal
        assert traversal is not None
        renewals = traversal._renewals
        renewals.seen(base, HERE)
        renewals.fell_silent(base)
        renewals.seen(base, THERE)
        await until(lambda: base not in traversal._gatherer._sockets)
        await until(lambda: all(peer.path is not None and peer.path.is_direct for peer in (here, there)))
        assert own._connection.carriers.bases_in_use() != [base]
        await stream.write(data[100_000:])
        await stream.close()
        async with asyncio.timeout(PATIENCE):
            async for incoming in there.streams():
                assert b"".join([part async for part in parts_of(incoming)]) == data
                break


async def parts_of(stream: crowline.Stream) -> AsyncIterator[bytes]:
    while part := await stream.read():
        yield bytes(part)


async def test_silence_makes_the_servers_asked_from_that_socket_again() -> None:
    """By whoever has the sockets; nothing else happens while no answer says that the mapping moved."""
    side = Side()
    asked: list[Address] = []
    side.gatherer.ask = asked.extend  # type: ignore[method-assign]
    side.renewals.seen(side.first, HERE)
    side.renewals.fell_silent(side.first)
    await until(lambda: asked == [side.first])
    assert not side.fading
    side.close()


async def test_nothing_happens_after_the_end() -> None:
    """A timer that was running does not fire into what is closed."""
    side = Side()
    side.renewals.seen(side.first, HERE)
    side.renewals.close()
    side.renewals.fell_silent(side.first)
    assert side.renewals._timer is None
    side.gatherer.close()
