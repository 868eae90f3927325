"""What a meeting makes of datagrams that its own machine does not let out."""

from __future__ import annotations

import asyncio
import errno
import os

import pytest

import crowline
from crowline.api.traversal.gatherer import Gatherer
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate
from crowline.net.udp import UdpSocket
from serving import serving

FAR = Address("192.0.2.9", 9000)


def refuse(monkeypatch: pytest.MonkeyPatch, error: int) -> None:
    """Every UDP socket of a meeting meets this error; a server's front has sockets of another kind."""

    def send(self: UdpSocket, transmit: Transmit) -> None:
        self._lose(transmit, OSError(error, os.strerror(error)))

    monkeypatch.setattr(UdpSocket, "send", send)


class Owner:
    """Of a gatherer; keeps what it is told of refusals."""

    def __init__(self) -> None:
        self.unsent: list[tuple[Address, Address, SendProblem]] = []

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_base_lost(self, base: Address) -> None: ...

    def on_gathered(self) -> None: ...

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None: ...

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None: ...

    def on_drained(self) -> None: ...

    def on_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None:
        self.unsent.append((base, destination, problem))


async def test_a_refusal_is_told_with_the_base_that_sent(monkeypatch: pytest.MonkeyPatch) -> None:
    """From the socket by way of the gatherer: which way, and why."""
    owner = Owner()
    gatherer = Gatherer(owner, ["127.0.0.1"])
    [local] = gatherer._sockets
    refuse(monkeypatch, errno.ENETUNREACH)
    gatherer.send(Transmit(b"check", FAR, local))
    await asyncio.sleep(0)
    gatherer.close()
    assert owner.unsent == [(local, FAR, SendProblem.NO_ROUTE)]


@pytest.mark.parametrize(("error", "told"), [(errno.EPERM, 1), (errno.ENETUNREACH, 0), (errno.ENOBUFS, 0)])
async def test_a_firewall_on_this_machine_is_told_once_and_the_hub_carries(
    monkeypatch: pytest.MonkeyPatch, error: int, told: int
) -> None:
    """No packet leaves by UDP: bytes go by the server all the same, and the person hears what is wrong.

    A way that does not exist, or queues that are full, are no fault that a person could mend.
    """
    refuse(monkeypatch, error)
    warnings: list[str] = []
    heard = asyncio.Event()
    send_failed = IceAgent.send_failed

    def note(self: IceAgent, base: Address, destination: Address, problem: SendProblem) -> None:
        send_failed(self, base, destination, problem)
        heard.set()

    monkeypatch.setattr(IceAgent, "send_failed", note)
    async with serving() as server, crowline.host(server.url) as room, asyncio.timeout(30):
        await heard.wait()
        room.on_warning(warnings.append)
        async with crowline.join(room.code, server.url) as there:
            here = await room.peer()
            stream = await here.open_stream()
            await stream.write(b"by the server\n")
            assert await (await there.accept_stream()).readline() == b"by the server\n"
            assert here.path is not None and here.path.kind == "hub"
    assert len(warnings) == told
    assert all("127.0.0.1 are not let out: a firewall or another rule" in each for each in warnings)
