"""This machine's network changes under a meeting: what is left and offered, and what streams see of it."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Collection
from typing import Any

import pytest

import crowline
from crowline.api.room import enter
from crowline.api.traversal import announcer, surroundings
from crowline.api.traversal.restart_pace import BURST, INTERVAL, RestartPace
from crowline.api.traversal.traversal import Traversal
from crowline.net.network import Network, NetworkChange
from crowline.rendezvous.signals import CandidateSignal, Description, Signal
from crowline.server.server import Server
from serving import serving
from waiting import until

PATIENCE = 30.0
NOTHING = Network((), ())


class Machine:
    """The addresses that this machine says it has: one side of a meeting sees those at its beginning."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.hosts: list[str] = []
        self.usable: set[str] = set()
        monkeypatch.setattr(surroundings, "local_addresses", lambda *, loopback: list(self.hosts))
        monkeypatch.setattr(surroundings, "usable_hosts", lambda: set(self.usable))

    def has(self, *hosts: str) -> None:
        """127.0.0.1, by which packets to the server leave, is there all the time, and not gathered from."""
        self.hosts = list(hosts)
        self.usable = {*hosts, "127.0.0.1"}


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(monkeypatch)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


def traversal_of(room: crowline.Room) -> Traversal:
    found = room._connection._traversal
    assert found is not None
    return found


def change(room: crowline.Room, renewed: Collection[str] = ()) -> None:
    traversal_of(room).on_network_change(NetworkChange(NOTHING, NOTHING, frozenset(renewed)))


def ends_at(peer: crowline.Peer, host: str) -> bool:
    """Whether the other side is seen at `host` on a direct path."""
    path = peer.path
    return path is not None and path.is_direct and path.remote.startswith(f"{host}:")


@pytest.mark.parametrize(
    "renewed", [(), ("127.0.0.1",)], ids=["the hub stays", "the hub has to be reached again"]
)
async def test_a_replaced_address_costs_the_stream_nothing(
    server: Server, machine: Machine, renewed: Collection[str]
) -> None:
    """In mid-stream the only direct address goes, another comes: each byte arrives once, by the new one."""
    data = os.urandom(4_000_000)
    machine.has("127.0.0.2")
    async with crowline.host(server.url) as room:
        machine.has("127.0.0.3")
        async with crowline.join(room.code, server.url) as there:
            here = await room.peer()
            await until(lambda: ends_at(there, "127.0.0.2") and ends_at(here, "127.0.0.3"))
            stream = await here.open_stream()
            await stream.write(data[:1_000_000])

            async def read() -> str:
                async for incoming in there.streams():
                    checksum = hashlib.sha256()
                    while part := await incoming.read():
                        checksum.update(part)
                    return checksum.hexdigest()
                return ""

            reader = asyncio.create_task(read())
            machine.has("127.0.0.4")
            change(room, renewed)
            await stream.write(data[1_000_000:])
            await until(lambda: ends_at(there, "127.0.0.4"))
            await stream.close()
            async with asyncio.timeout(PATIENCE):
                assert await reader == hashlib.sha256(data).hexdigest()
            assert "127.0.0.2" not in traversal_of(room)._gatherer.hosts()
            if renewed:
                # Nothing arrives by link zero any more: neither side may go on sending there.
                assert not [path for peer in (here, there) for path in peer.paths() if path.kind == "hub"]


async def test_both_sides_may_change_at_once(server: Server, machine: Machine) -> None:
    """Each restarts before it hears of the other's restart; they meet at their new addresses."""
    machine.has("127.0.0.2")
    async with crowline.host(server.url) as room:
        machine.has("127.0.0.3")
        async with enter(room.code, server.url) as other:
            here, there = await room.peer(), await other.peer()
            await until(lambda: ends_at(there, "127.0.0.2") and ends_at(here, "127.0.0.3"))
            machine.has("127.0.0.4")
            change(room)
            machine.has("127.0.0.5")
            change(other)
            await until(lambda: ends_at(there, "127.0.0.4") and ends_at(here, "127.0.0.5"))


async def test_a_restart_for_a_new_address_keeps_the_links_that_carry(
    server: Server, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An address more, and none less: new credentials, and the link in use goes on."""
    told: list[Signal] = []
    machine.has("127.0.0.2")
    async with crowline.host(server.url) as room:
        machine.has("127.0.0.3")
        async with crowline.join(room.code, server.url) as there:
            here = await room.peer()
            await until(lambda: ends_at(there, "127.0.0.2") and ends_at(here, "127.0.0.3"))
            found = traversal_of(room)
            before, ufrag = set(room._connection.carriers.paths.up), found._agent.ufrag
            teller = found._announcer
            signal = teller._signal
            monkeypatch.setattr(teller, "_signal", lambda each: (told.append(each), signal(each)))
            machine.has("127.0.0.2", "127.0.0.4")
            change(room)
            await until(lambda: found._agent.selected is not None and found._agent.ufrag != ufrag)
            assert before <= set(room._connection.carriers.paths.up)
    descriptions = [each for each in told if isinstance(each, Description)]
    assert [each.ufrag != ufrag and each.restarts for each in descriptions] == [True]
    hosts = [each.host for each in told[told.index(descriptions[0]) :] if isinstance(each, CandidateSignal)]
    assert {"127.0.0.2", "127.0.0.4"} <= set(hosts)


async def test_a_side_that_knows_no_restarts_is_told_candidates_alone(
    server: Server, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An older version would overlook the second description, and never find the new credentials."""
    machine.has("127.0.0.2")
    async with crowline.host(server.url) as room:
        machine.has("127.0.0.3")
        async with crowline.join(room.code, server.url) as there:
            await room.peer()
            await until(lambda: ends_at(there, "127.0.0.2"))
            found = traversal_of(room)
            monkeypatch.setattr(found._restarts, "is_understood", False)
            ufrag = found._agent.ufrag
            machine.has("127.0.0.4")
            change(room)
            await until(lambda: ends_at(there, "127.0.0.4"))
            assert found._agent.ufrag == ufrag


async def test_relay_only_tells_no_address_after_a_change(
    server: Server, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither in a candidate nor beside it."""
    told: list[CandidateSignal] = []
    to_signal = announcer.to_signal

    def note(*arguments: Any, **options: Any) -> CandidateSignal:
        told.append(to_signal(*arguments, **options))
        return told[-1]

    monkeypatch.setattr(announcer, "to_signal", note)
    machine.has("127.0.0.2")
    async with (
        crowline.host(server.url, relay_only=True) as room,
        crowline.join(room.code, server.url, relay_only=True) as there,
    ):
        here = await room.peer()
        await until(lambda: here.path is not None and here.path.kind == "relay")
        before = len(told)
        machine.has("127.0.0.4")
        change(room)
        await until(lambda: len(told) > before)
        await until(lambda: there.path is not None and there.path.kind == "relay")
    assert {each.kind for each in told} == {"relay"}
    assert not [each for each in told if each.related_host or each.related_port]


async def test_a_network_that_never_rests_may_not_flood_the_hub() -> None:
    """After a burst, one restart in ten seconds."""
    pace = RestartPace()
    for _ in range(BURST):
        assert pace.wait(1000.0) == 0.0
        pace.take(1000.0)
    assert pace.wait(1000.0) == INTERVAL
    assert pace.wait(1000.0 + INTERVAL) == 0.0
    pace.take(1000.0 + INTERVAL)
    assert pace.wait(1000.0 + INTERVAL) == INTERVAL
