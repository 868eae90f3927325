"""The extra sockets of plans for hard NATs, and how one of them becomes one of ICE's."""

from __future__ import annotations

import asyncio
import os
import sys

import pytest

from crowline.api.traversal.gatherer import MAX_ADOPTED, Gatherer
from crowline.api.traversal.punch_sockets import RESERVE, PunchSockets
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.ice.candidate import Candidate, CandidateType
from crowline.net.udp import UdpSocket

HOST = "127.0.0.1"


class Inbox:
    """What arrived at which socket; a socket of its own to send from."""

    def __init__(self) -> None:
        self.datagrams: list[tuple[int, bytes, Address]] = []
        self.arrived = asyncio.Event()
        self.socket = UdpSocket.bind(Address(HOST, 0), self._received)
        self.heard: dict[Address, bytes] = {}

    def take(self, number: int, data: memoryview, source: Address) -> None:
        self.datagrams.append((number, bytes(data), source))
        self.arrived.set()

    def _received(self, data: memoryview, source: Address, _: int) -> None:
        self.heard[source] = bytes(data)
        self.arrived.set()

    async def wait(self) -> None:
        async with asyncio.timeout(30):
            await self.arrived.wait()
        self.arrived.clear()


class Owner:
    """The owner of a gatherer."""

    def __init__(self) -> None:
        self.candidates: list[Candidate] = []
        self.packets: list[tuple[bytes, Address]] = []
        self.unsent: list[tuple[Address, SendProblem]] = []
        self.told = asyncio.Event()

    def on_candidate(self, candidate: Candidate) -> None:
        self.candidates.append(candidate)

    def on_base_lost(self, base: Address) -> None: ...

    def on_gathered(self) -> None: ...

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        self.packets.append((bytes(data), local))

    def on_drained(self) -> None:
        self.told.set()

    def on_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None:
        self.unsent.append((base, problem))


async def test_sockets_send_and_hear_by_their_numbers() -> None:
    """Each has a port of its own and is opened once; what is not there sends nothing."""
    inbox = Inbox()
    sockets = PunchSockets(inbox.take)
    locals_ = [sockets.open(number, HOST) for number in range(5)]
    assert len(sockets) == len(set(locals_)) == 5
    assert sockets.open(3, HOST) == locals_[3]
    sockets.send(3, b"probe", inbox.socket.local)
    sockets.send(7, b"from nowhere", inbox.socket.local)
    await inbox.wait()
    assert locals_[3] is not None
    inbox.socket.send(Transmit(b"answer", locals_[3]))
    await inbox.wait()
    assert inbox.heard == {locals_[3]: b"probe"}
    assert inbox.datagrams == [(3, b"answer", inbox.socket.local)]
    sockets.close()
    inbox.socket.close()


async def test_the_sockets_of_a_plan_that_is_over_are_closed() -> None:
    """Those of the next one, which count on, stay."""
    sockets = PunchSockets(lambda *_: None)
    before = [sockets.open(number, HOST) for number in range(4)]
    sockets.close(3)
    assert len(sockets) == 1
    assert sockets.open(3, HOST) == before[3]
    sockets.close()
    assert len(sockets) == 0


async def test_a_system_that_gives_no_more_gets_some_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """What else this process has to open still can be; with the next plan there is a new try."""
    bound = UdpSocket.bound
    left = 40

    def scarce(address: Address, *, joins: bool = False) -> object:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError("too many open files")
        return bound(address, joins=joins)

    monkeypatch.setattr(UdpSocket, "bound", scarce)
    sockets = PunchSockets(lambda *_: None)
    opened = [sockets.open(number, HOST) for number in range(41)]
    assert opened[-1] is None
    assert len(sockets) == 40 - RESERVE
    left = 40
    assert sockets.open(100, HOST) is None
    sockets.close()
    assert sockets.open(0, HOST) is not None
    sockets.close()


async def test_a_host_without_sockets_has_none() -> None:
    """An address that this machine lost meanwhile."""
    sockets = PunchSockets(lambda *_: None)
    assert sockets.open(0, "192.0.2.1") is None
    sockets.close()


@pytest.mark.skipif(sys.platform != "linux", reason="another system has other words")
async def test_a_firewall_on_this_machine_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever plans hears that nothing leaves."""
    forbidden = asyncio.Event()
    sockets = PunchSockets(lambda *_: None, forbidden.set)
    sockets.open(0, HOST)

    def refused(*_: object) -> None:
        raise PermissionError(1, os.strerror(1))

    monkeypatch.setattr(UdpSocket, "_call_once", refused)
    sockets.send(0, b"probe", Address("192.0.2.1", 9000))
    async with asyncio.timeout(30):
        await forbidden.wait()
    sockets.close()


async def test_an_adopted_socket_is_a_base_like_the_others() -> None:
    """It is offered, its datagrams are the gatherer's, and it is closed with the others."""
    owner, inbox = Owner(), Inbox()
    gatherer = Gatherer(owner, [HOST])
    sockets = PunchSockets(inbox.take)
    sockets.open(0, HOST)
    sockets.open(1, HOST)
    socket = sockets.give_away(1)
    assert socket is not None
    local = socket.local
    assert gatherer.adopt(socket)
    sockets.close()
    [candidate] = owner.candidates
    assert (candidate.type, candidate.sending_base) == (CandidateType.HOST, local)
    assert gatherer.adopted() == {local}
    gatherer.send(Transmit(b"\xc0out", inbox.socket.local, local))
    await inbox.wait()
    inbox.socket.send(Transmit(b"\xc0in", local))
    async with asyncio.timeout(30):
        await owner.told.wait()
    assert inbox.heard == {local: b"\xc0out"}
    assert owner.packets == [(b"\xc0in", local)]
    assert inbox.datagrams == []
    gatherer.close()
    assert socket.fd == -1
    inbox.socket.close()


async def test_only_so_many_sockets_are_adopted_until_some_are_retired() -> None:
    """Whoever gets False still owns the socket."""
    gatherer = Gatherer(Owner(), [HOST])
    extra = [UdpSocket.bind(Address(HOST, 0), lambda *_: None) for _ in range(MAX_ADOPTED + 1)]
    assert [gatherer.adopt(each) for each in extra] == [True] * MAX_ADOPTED + [False]
    gatherer.retire(extra[0].local)
    assert extra[0].fd == -1
    assert gatherer.adopt(extra[-1])
    gatherer.close()


async def test_a_server_is_known_by_its_host() -> None:
    """At whatever port: plans send nothing there but questions."""
    gatherer = Gatherer(Owner(), [HOST])
    assert not gatherer.is_server("192.0.2.1")
    gatherer.expect(Address("192.0.2.1", 3478))
    assert gatherer.is_server("192.0.2.1")
    assert not gatherer.is_server("192.0.2.2")
    gatherer.close()


async def test_a_socket_given_away_is_no_longer_there() -> None:
    """It is given once."""
    sockets = PunchSockets(lambda *_: None)
    sockets.open(0, HOST)
    socket = sockets.give_away(0)
    assert socket is not None
    assert sockets.give_away(0) is None
    sockets.close()
    assert socket.fd != -1
    socket.close()
