"""The UDP socket: runs in one call where the kernel can, one datagram a call elsewhere, the same outside."""

from __future__ import annotations

import asyncio
import os

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net.udp import UdpSocket

LOOPBACK = Address("127.0.0.1", 0)


class Inbox:
    """Every datagram, taken out of its run."""

    def __init__(self) -> None:
        self.datagrams: list[bytes] = []
        self.runs: list[int] = []
        self.sources: set[Address] = set()
        self.arrived = asyncio.Event()

    def take(self, data: memoryview, source: Address, segment_size: int) -> None:
        self.sources.add(source)
        self.runs.append(len(data))
        for start in range(0, len(data), segment_size):
            self.datagrams.append(bytes(data[start : start + segment_size]))
        self.arrived.set()

    async def wait(self, count: int) -> None:
        async with asyncio.timeout(5):
            while len(self.datagrams) < count:
                self.arrived.clear()
                await self.arrived.wait()


@pytest.mark.parametrize("segments", [True, False], ids=["segmented", "one_by_one"])
async def test_a_run_arrives_as_the_datagrams_it_is_made_of(segments: bool) -> None:
    """130 datagrams of 1,200 bytes and a shorter last one, with and without the kernel's help."""
    inbox = Inbox()
    receiver = UdpSocket.bind(LOOPBACK, inbox.take)
    sender = UdpSocket.bind(LOOPBACK, lambda *_: None)
    sender._segments = sender._segments and segments
    data = os.urandom(130 * 1200 + 77)
    sender.send(Transmit(data, receiver.local, segment_size=1200))
    await inbox.wait(131)
    assert b"".join(inbox.datagrams) == data
    assert [len(d) for d in inbox.datagrams] == [1200] * 130 + [77]
    assert inbox.sources == {sender.local}
    for sock in (receiver, sender):
        sock.close()


async def test_single_datagrams_and_empty_runs() -> None:
    """One datagram needs no segment size; one that is larger than the data changes nothing."""
    inbox = Inbox()
    receiver = UdpSocket.bind(LOOPBACK, inbox.take)
    sender = UdpSocket.bind(LOOPBACK, lambda *_: None)
    sender.send(Transmit(b"one", receiver.local))
    sender.send(Transmit(b"two", receiver.local, segment_size=1200))
    await inbox.wait(2)
    assert inbox.datagrams == [b"one", b"two"]
    for sock in (receiver, sender):
        sock.close()


async def test_ipv6() -> None:
    """The same over ::1."""
    inbox = Inbox()
    try:
        receiver = UdpSocket.bind(Address("::1", 0), inbox.take)
    except LocalProblem:
        pytest.skip("this machine has no IPv6 loopback")
    sender = UdpSocket.bind(Address("::1", 0), lambda *_: None)
    sender.send(Transmit(bytes(5000), receiver.local, segment_size=1000))
    await inbox.wait(5)
    assert inbox.sources == {sender.local} and sender.local.is_ipv6
    for sock in (receiver, sender):
        sock.close()


async def test_a_taken_port_is_one_sentence() -> None:
    """Not a traceback."""
    first = UdpSocket.bind(LOOPBACK, lambda *_: None)
    with pytest.raises(LocalProblem, match="cannot be used"):
        UdpSocket.bind(first.local, lambda *_: None)
    first.close()


async def test_what_cannot_be_delivered_is_lost_and_the_socket_lives() -> None:
    """A closed port, an oversized datagram and port 0 cost that datagram only."""
    inbox = Inbox()
    receiver = UdpSocket.bind(LOOPBACK, inbox.take)
    gone = UdpSocket.bind(LOOPBACK, lambda *_: None)
    closed = gone.local
    gone.close()
    sender = UdpSocket.bind(LOOPBACK, inbox.take)
    for _ in range(3):
        sender.send(Transmit(b"nobody", closed))
        await asyncio.sleep(0)
    sender.send(Transmit(bytes(70_000), receiver.local))
    sender.send(Transmit(b"port zero", Address("127.0.0.1", 0)))
    sender.send(Transmit(b"alive", receiver.local))
    await inbox.wait(1)
    assert inbox.datagrams[-1] == b"alive"
    assert sender.lost >= 2
    for sock in (receiver, sender):
        sock.close()


async def test_a_closed_socket_is_silent() -> None:
    """Sending after close does nothing, closing twice neither."""
    sock = UdpSocket.bind(LOOPBACK, lambda *_: None)
    sock.close()
    sock.close()
    sock.send(Transmit(b"late", sock.local))
    assert not sock.congested
