"""What `relay_only`, `direct_only` and a flood of candidates make a side send, seen at its sockets."""

from __future__ import annotations

import asyncio

import pytest

import crowline
from crowline.api.traversal.gatherer import MAX_PEERS
from crowline.api.traversal.other_side import OtherSide
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net.udp import UdpSocket
from crowline.rendezvous.signals import CandidateSignal, Description
from serving import serving
from waiting import until


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> dict[Address, set[Address]]:
    """Where each socket's datagrams went."""
    seen: dict[Address, set[Address]] = {}
    send = UdpSocket.send

    def note(self: UdpSocket, transmit: Transmit) -> None:
        seen.setdefault(self.local, set()).add(transmit.destination)
        send(self, transmit)

    monkeypatch.setattr(UdpSocket, "send", note)
    return seen


def sockets(connection: object) -> set[Address]:
    return set(connection._traversal._gatherer._sockets)  # type: ignore[attr-defined]


@pytest.mark.parametrize("both", [True, False])
async def test_relay_only_sends_no_datagram_but_to_the_server(
    sent: dict[Address, set[Address]], both: bool
) -> None:
    """Whatever the other side does: no check, no answer and no link leaves towards it."""
    async with (
        serving() as server,
        crowline.host(server.url, relay_only=True) as room,
        crowline.join(room.code, server.url, relay_only=both) as there,
    ):
        peer = await room.peer()
        await until(lambda: peer.path is not None and peer.path.kind == "relay")
        await asyncio.sleep(0.2)
        ours, theirs = sockets(room._connection), sockets(there._connection)
        assert ours and theirs
        reached = set().union(*(sent.get(local, set()) for local in ours))
        assert reached and len({address.port for address in reached}) == 1
        assert not reached & theirs


@pytest.mark.parametrize("hidden", [True, False])
async def test_relay_only_has_no_address_confirmed_by_the_server(
    monkeypatch: pytest.MonkeyPatch, hidden: bool
) -> None:
    """Whoever suspects where the other side is hears nothing; of one that shows its addresses it does."""
    heard: list[str] = []
    monkeypatch.setattr(Traversal, "vouched", lambda _, host: heard.append(host))
    async with (
        serving() as server,
        crowline.host(server.url, relay_only=hidden) as room,
        crowline.join(room.code, server.url) as there,
    ):
        await room.peer()
        there._connection.vouch("127.0.0.1")
        room._connection.vouch("127.0.0.1")
        await until(lambda: len(heard) == (1 if hidden else 2))
        await asyncio.sleep(0.1)
    assert len(heard) == (1 if hidden else 2)


async def test_direct_only_sends_nothing_to_a_relayed_address(
    sent: dict[Address, set[Address]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even a check, where the other side has one."""
    relayed: set[Address] = set()
    add = OtherSide.add

    def note(self: OtherSide, signal: CandidateSignal) -> None:
        if signal.kind == "relay":
            relayed.add(Address.parse(signal.host, signal.port))
        add(self, signal)

    monkeypatch.setattr(OtherSide, "add", note)
    async with (
        serving() as server,
        crowline.host(server.url, direct_only=True) as room,
        crowline.join(room.code, server.url) as there,
    ):
        peer = await room.peer()
        await until(lambda: bool(relayed))
        await asyncio.sleep(0.5)
        assert peer.path is not None and peer.path.is_direct
        ours = sockets(room._connection)
        assert not set().union(*(sent.get(local, set()) for local in ours)) & relayed
        assert not [path for path in peer.paths() if path.kind == "relay"]
        assert there.path is not None


async def test_a_flood_of_candidates_asks_the_server_for_a_bounded_number_of_permissions() -> None:
    """As many as candidates may be kept, and no more."""
    async with serving() as server, crowline.host(server.url) as room:
        traversal = room._connection._traversal
        assert traversal is not None
        for number in range(1000):
            host = f"44.{number // 200}.1.{number % 200 + 1}"
            traversal.hear(CandidateSignal("f", 1, "udp", 100, host, 5000, "host"))
        assert len(traversal._gatherer._peers) <= MAX_PEERS


async def test_a_side_whose_network_changes_often_is_let_in_from_each_new_address() -> None:
    """What those before a restart could lapses, so that there is room for those after it."""
    async with serving() as server, crowline.host(server.url) as room:
        traversal = room._connection._traversal
        assert traversal is not None
        for number in range(3):
            description = Description(f"ufrag{number}", f"password{number}".ljust(22, "x"), "00" * 32)
            assert traversal.set_remote(description)
            hosts = [f"44.1.{number}.{last}" for last in range(1, 101)]
            for host in hosts:
                traversal.hear(CandidateSignal("f", 1, "udp", 100, host, 5000, "host"))
            assert [each.host for each in traversal._gatherer._peers] == hosts[:MAX_PEERS]
