"""Batches: what is sent while datagrams are received leaves when they all are, and nothing waits longer."""

from __future__ import annotations

import asyncio
import errno

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net import exchange as exchange_module
from crowline.net import mmsg
from crowline.net.arrival import learn, leave_by, pack_control, parse_control
from crowline.net.exchange import Exchange, PlainExchange, exchange_of
from crowline.net.udp import UdpSocket
from needs import missing
from turn_socket import plain_socket

LOOPBACK = Address("127.0.0.1", 0)


@pytest.fixture
async def batches() -> Exchange:
    found = exchange_of(asyncio.get_running_loop())
    if not isinstance(found, Exchange):
        missing("this system has no recvmmsg")
    assert isinstance(found, Exchange)
    return found


class Echo:
    """Answers each datagram, and counts the system calls that took."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, batches: Exchange) -> None:
        self.socket = UdpSocket.bind(LOOPBACK, self._answer)
        self.calls: list[int] = []
        self.refusals: list[int] = []
        honest, honest_alone = batches._sendmmsg, batches._sendto

        def counted(fd: int, headers: mmsg.Pointer, count: int, flags: int) -> int:
            self.calls.append(count)
            if self.refusals:
                error = self.refusals.pop(0)
                monkeypatch.setattr(mmsg, "last_error", lambda: error)
                return -1
            return honest(fd, headers, count, flags)

        def alone(
            fd: int, data: mmsg.Pointer, size: int, flags: int, name: mmsg.Pointer, name_length: int
        ) -> int:
            if self.refusals:
                return -1
            self.calls.append(1)
            return honest_alone(fd, data, size, flags, name, name_length)

        monkeypatch.setattr(batches, "_sendmmsg", counted)
        monkeypatch.setattr(batches, "_sendto", alone)

    def _answer(self, data: memoryview, source: Address, size: int) -> None:
        self.socket.send(Transmit(bytes(data), source))


async def test_answers_to_a_burst_leave_together(monkeypatch: pytest.MonkeyPatch, batches: Exchange) -> None:
    """Forty questions of two askers, one call; those of one size to one asker are one run in it."""
    echo = Echo(monkeypatch, batches)
    with plain_socket() as one, plain_socket() as other:
        texts = [b"%02d" % number for number in range(20)]
        for asker in (one, other):
            for text in texts:
                asker.send(text, echo.socket.local)
        for asker in (one, other):
            assert [(await asker.receive())[0] for _ in texts] == texts
    assert echo.calls == [2]
    echo.socket.close()


async def test_a_lonely_datagram_is_not_delayed(monkeypatch: pytest.MonkeyPatch, batches: Exchange) -> None:
    """Outside of a batch it is sent at once, and none is kept back."""
    echo = Echo(monkeypatch, batches)
    with plain_socket() as asker:
        echo.socket.send(Transmit(b"unasked", asker.local))
        assert asker.socket.recv(100) == b"unasked"
        assert not echo.socket.pending
    echo.socket.close()


async def test_a_full_buffer_makes_a_queue(monkeypatch: pytest.MonkeyPatch, batches: Exchange) -> None:
    """What the kernel had no room for leaves later, in order, with everything that was known of it."""
    echo = Echo(monkeypatch, batches)
    echo.refusals = [errno.EAGAIN]
    with plain_socket() as asker:
        for text in (b"one", b"three", b"four"):
            asker.send(text, echo.socket.local)
        assert {(await asker.receive())[0] for _ in range(3)} == {b"one", b"three", b"four"}
    assert echo.socket.lost == 0
    echo.socket.close()


@pytest.mark.parametrize(("error", "still"), [(errno.EINVAL, True), (errno.EIO, False)])
async def test_a_refused_run_leaves_one_by_one(
    error: int, still: bool, monkeypatch: pytest.MonkeyPatch, batches: Exchange
) -> None:
    """Nothing is lost; a kernel that cannot segment at all is not asked again."""
    echo = Echo(monkeypatch, batches)
    echo.refusals = [error]
    with plain_socket() as asker:
        for number in range(5):
            asker.send(b"%d" % number, echo.socket.local)
        assert [(await asker.receive())[0] for _ in range(5)] == [b"%d" % number for number in range(5)]
    assert echo.socket.can_segment is still
    assert echo.calls == [1, 5]
    echo.socket.close()


async def test_more_addresses_than_are_kept(monkeypatch: pytest.MonkeyPatch, batches: Exchange) -> None:
    """Their places are used again, after what waits there has left."""
    monkeypatch.setattr(exchange_module, "_PLACES", 3)
    echo = Echo(monkeypatch, batches)
    askers = [plain_socket() for _ in range(10)]
    opened = [asker.__enter__() for asker in askers]
    for number, asker in enumerate(opened):
        asker.send(b"%d" % number, echo.socket.local)
    for number, asker in enumerate(opened):
        assert await asker.receive() == (b"%d" % number, echo.socket.local)
    assert batches.epoch > 0
    for context in askers:
        context.__exit__(None, None, None)
    echo.socket.close()


async def test_a_fault_costs_one_datagram(batches: Exchange) -> None:
    """The others of its batch are delivered, and the loop hears of it."""
    said: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: said.append(context["exception"]))
    taken: list[bytes] = []
    arrived = asyncio.Event()

    def take(data: memoryview, source: Address, size: int) -> None:
        if data == b"bad":
            raise RuntimeError("a fault")
        taken.append(bytes(data))
        if len(taken) == 2:
            arrived.set()

    receiver = UdpSocket.bind(LOOPBACK, take)
    with plain_socket() as sender:
        for text in (b"good", b"bad", b"better"):
            sender.send(text, receiver.local)
        async with asyncio.timeout(30):
            await arrived.wait()
    assert taken == [b"good", b"better"] and len(said) == 1
    receiver.close()


async def test_without_the_calls_there_is_the_plain_exchange(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on macOS and Windows, and where the self-test fails."""
    monkeypatch.setattr(mmsg, "find", lambda: None)
    assert isinstance(exchange_of(asyncio.get_running_loop()), PlainExchange)


def test_calls_that_lie_are_not_used(batches: Exchange) -> None:
    """The self-test compares what comes back, byte by byte."""
    honest = mmsg.find()
    assert honest is not None and mmsg._works(honest)
    received, sent, sent_alone = (lambda *_: 3), (lambda *_: 2), (lambda *_: 19)
    assert not mmsg._works(mmsg.Calls(received, sent, sent_alone))
    for lie in ({"recvmmsg": received}, {"sendmmsg": sent}, {"sendto": sent_alone}, {"sendto": sent}):
        assert not mmsg._works(honest._replace(**lie))


@pytest.mark.parametrize("host", ["192.0.2.7", "2001:db8::7"])
def test_control_data_says_the_address_that_was_asked(host: str) -> None:
    """As it is written for an answer it is read from a datagram, but for the interface's number."""
    level, kind, value = leave_by(Address(host, 0))
    local = value if ":" in host else value[:4] + value[4:8] * 2
    data = pack_control((level, kind, local)) + bytes(24)
    arrival = learn("198.51.100.1", 5, list(parse_control(data)), 3478)
    assert (arrival.source, arrival.local) == (Address("198.51.100.1", 5), Address(host, 3478))
