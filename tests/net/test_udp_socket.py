"""The UDP socket: runs in one call where the kernel can, one datagram a call elsewhere, the same outside."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys
from collections.abc import AsyncIterator
from typing import Any

import pytest

from batches import use_batches
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net import udp_options
from crowline.net.udp import UdpSocket

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture(params=["batches", "one_a_call"], autouse=True)
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds with `recvmmsg` and without."""
    use_batches(monkeypatch, request.param == "batches")
    kind: str = request.param
    return kind


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
        async with asyncio.timeout(30):
            while len(self.datagrams) < count:
                self.arrived.clear()
                await self.arrived.wait()


@pytest.mark.parametrize("segments", [True, False], ids=["segmented", "one_by_one"])
async def test_a_run_arrives_as_the_datagrams_it_is_made_of(segments: bool) -> None:
    """130 datagrams of 1,200 bytes and a shorter last one, with and without the kernel's help."""
    inbox = Inbox()
    receiver = UdpSocket.bind(LOOPBACK, inbox.take)
    sender = UdpSocket.bind(LOOPBACK, lambda *_: None)
    sender.can_segment = sender.can_segment and segments
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


class Stubborn(socket.socket):
    """A socket whose kernel cannot segment, has room for `room` datagrams, and meets `trouble`."""

    room = 10
    trouble: OSError | None = None
    taken: list[bytes]

    def sendmsg(self, *_: Any) -> int:
        raise OSError(errno.EIO, "no checksum offload")

    def sendto(self, data: Any, *_: Any) -> int:
        if self.trouble is not None:
            raise self.trouble
        if self.room == 0:
            raise BlockingIOError
        self.room -= 1
        self.taken.append(bytes(data))
        return len(data)


@pytest.fixture
async def stubborn() -> AsyncIterator[tuple[Stubborn, UdpSocket]]:
    kernel = Stubborn(socket.AF_INET, socket.SOCK_DGRAM)
    kernel.taken = []
    kernel.bind(("127.0.0.1", 0))
    kernel.setblocking(False)
    sock = UdpSocket(kernel, lambda *_: None)
    yield kernel, sock
    sock.close()


async def test_a_full_buffer_in_the_middle_of_a_run_repeats_and_loses_nothing(
    stubborn: tuple[Stubborn, UdpSocket],
) -> None:
    """Where the kernel cannot segment, the rest of the run goes on where it stopped."""
    kernel, sock = stubborn
    data = os.urandom(60 * 1000)
    sock.send(Transmit(data, LOOPBACK, segment_size=1000))
    assert len(kernel.taken) == 10 and sock.congested
    for _ in range(3):
        kernel.room = 25
        sock._writable()
    assert b"".join(kernel.taken) == data
    assert not sock.congested


@pytest.mark.parametrize("code", [errno.ENODEV, errno.EPIPE, errno.ENOMEM, errno.EAFNOSUPPORT, errno.EIO])
async def test_no_trouble_of_the_network_is_raised_at_the_sender(
    stubborn: tuple[Stubborn, UdpSocket], code: int
) -> None:
    """A protocol in the middle of its turn cannot do anything about it: the datagram is lost."""
    kernel, sock = stubborn
    kernel.trouble = OSError(code, "trouble")
    sock.send(Transmit(b"x", LOOPBACK))
    sock.send(Transmit(bytes(3000), LOOPBACK, segment_size=1000))
    assert sock.lost == 4


async def test_a_system_with_smaller_buffers_gives_what_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    """macOS refuses sizes beyond its limit, where Linux takes the limit."""
    monkeypatch.setattr(sys, "platform", "darwin")
    asked: list[int] = []

    class Small:
        family = socket.AF_INET

        def setsockopt(self, level: int, option: int, size: int) -> None:
            if option not in (socket.SO_RCVBUF, socket.SO_SNDBUF):
                return
            if size > 6 << 20:
                raise OSError(errno.ENOBUFS, "No buffer space available")
            asked.append(size)

    udp_options.prepare(Small())  # type: ignore[arg-type]
    assert len(asked) == 2 and min(asked) >= 3 << 20


async def test_datagrams_arrive_where_the_system_has_no_ancillary_data(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Windows reads one datagram a call and has no `recvmsg_into`."""
    inbox = Inbox()
    use_batches(monkeypatch, False)
    monkeypatch.setattr(UdpSocket, "_read_run", UdpSocket._read_plain)
    receiver = UdpSocket.bind(LOOPBACK, inbox.take)
    receiver._socket.setsockopt(socket.SOL_UDP, 104, 0)
    sender = UdpSocket.bind(LOOPBACK, lambda *_: None)
    sender.send(Transmit(bytes(2500), receiver.local, segment_size=1000))
    await inbox.wait(3)
    assert [len(d) for d in inbox.datagrams] == [1000, 1000, 500]
    for each in (receiver, sender):
        each.close()
