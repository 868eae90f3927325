"""What a UDP socket tells of datagrams that its machine did not let out."""

from __future__ import annotations

import asyncio
import errno
import os
from typing import Any

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.net.segmentation import REFUSED_RUN
from crowline.net.udp import UdpSocket
from crowline.net.unsent import problem_of

FAR = Address("192.0.2.9", 9000)
OTHER = Address("192.0.2.10", 9000)


class Barred(UdpSocket):
    """A socket whose system refuses every datagram."""

    error = errno.EPERM

    def _call_once(self, *_: Any) -> None:
        raise OSError(self.error, os.strerror(self.error))


class Told:
    """What was told; `again` is set with each."""

    def __init__(self) -> None:
        self.problems: list[tuple[Address, SendProblem]] = []
        self.again = asyncio.Event()

    def __call__(self, destination: Address, problem: SendProblem) -> None:
        self.problems.append((destination, problem))
        self.again.set()


def barred(told: Told, error: int = errno.EPERM) -> Barred:
    kind = type("BarredBy", (Barred,), {"error": error, "__slots__": ()})
    return kind.bind(Address("127.0.0.1", 0), lambda *_: None, on_unsent=told)  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("error", "problem"),
    [
        (errno.EPERM, SendProblem.FORBIDDEN), (errno.EACCES, SendProblem.FORBIDDEN),
        (errno.ENETUNREACH, SendProblem.NO_ROUTE), (errno.EHOSTUNREACH, SendProblem.NO_ROUTE),
        (errno.ENETDOWN, SendProblem.NO_ROUTE), (errno.EINVAL, SendProblem.NO_ROUTE),
        (errno.ENOBUFS, SendProblem.NO_ROOM), (errno.ENOMEM, SendProblem.NO_ROOM),
        (errno.EMSGSIZE, None), (0, None),
    ],
)  # fmt: skip
def test_error_numbers_in_words(error: int, problem: SendProblem | None) -> None:
    """A firewall, a missing route and a full queue are different things; a datagram's size is its own."""
    assert problem_of(error) is problem


@pytest.mark.parametrize("error", [errno.EPERM, errno.ENETUNREACH, errno.ENOBUFS])
async def test_a_refused_datagram_is_told_after_the_call_that_sent_it(error: int) -> None:
    """Whoever sends is never called back from within."""
    told = Told()
    socket = barred(told, error)
    socket.send(Transmit(b"check", FAR))
    assert told.problems == []
    await asyncio.sleep(0)
    assert told.problems == [(FAR, problem_of(error))]
    assert socket.lost == 1
    socket.close()


async def test_a_burst_is_told_once_for_each_destination() -> None:
    """A bulk sender that meets a firewall does not cost a call a datagram; the next turn tells again."""
    told = Told()
    socket = barred(told)
    for _ in range(100):
        socket.send(Transmit(b"data", FAR))
    socket.send(Transmit(b"data", OTHER))
    await asyncio.sleep(0)
    assert told.problems == [(FAR, SendProblem.FORBIDDEN), (OTHER, SendProblem.FORBIDDEN)]
    socket.send(Transmit(b"data", FAR))
    await asyncio.sleep(0)
    assert len(told.problems) == 3
    socket.close()


@pytest.mark.parametrize("segmented", [True, False])
async def test_a_refused_run_is_told_like_a_datagram(segmented: bool) -> None:
    """Whether the kernel cuts the run or we do."""
    told = Told()
    socket = barred(told)
    assert errno.EPERM not in REFUSED_RUN
    socket.can_segment = segmented
    socket.send(Transmit(bytes(3000), FAR, segment_size=1000))
    await asyncio.sleep(0)
    assert told.problems == [(FAR, SendProblem.FORBIDDEN)]
    socket.close()


async def test_a_closed_socket_tells_nothing_more() -> None:
    """Its owner has gone."""
    told = Told()
    socket = barred(told)
    socket.send(Transmit(b"check", FAR))
    socket.close()
    await asyncio.sleep(0)
    assert told.problems == []


async def test_what_a_real_system_refuses_is_told() -> None:
    """No socket of ours may broadcast: the kernel itself refuses that, sent at once or in a batch."""
    told = Told()
    answers: list[bytes] = []
    broadcast = Transmit(b"to all", Address("255.255.255.255", 9000))

    def received(data: memoryview, source: Address, size: int) -> None:
        answers.append(bytes(data))
        socket.send(broadcast)

    socket = UdpSocket.bind(Address("127.0.0.1", 0), received, on_unsent=told)
    sender = UdpSocket.bind(Address("127.0.0.1", 0), lambda *_: None)
    socket.send(broadcast)
    await asyncio.sleep(0)
    assert len(told.problems) == 1
    told.again.clear()
    sender.send(Transmit(b"question", socket.local))
    async with asyncio.timeout(30):
        await told.again.wait()
    assert len(told.problems) == 2
    assert answers == [b"question"]
    assert {destination for destination, _ in told.problems} == {broadcast.destination}
    for each in (socket, sender):
        each.close()


async def test_icmp_errors_are_nobodys_word_for_a_refusal() -> None:
    """Datagrams to a closed port leave this machine; what comes back for them may be forged."""
    told = Told()
    gone = UdpSocket.bind(Address("127.0.0.1", 0), lambda *_: None)
    closed = gone.local
    gone.close()
    socket = UdpSocket.bind(Address("127.0.0.1", 0), lambda *_: None, on_unsent=told)
    for _ in range(5):
        socket.send(Transmit(b"anybody?", closed))
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert told.problems == []
    assert socket.lost == 0
    socket.close()


async def test_whoever_a_socket_was_handed_to_is_told_and_nobody_else() -> None:
    """Of what arrives, of the end of a burst, and of what did not leave."""
    before, after = Told(), Told()
    arrived: list[bytes] = []
    drained = asyncio.Event()
    sender = UdpSocket.bind(Address("127.0.0.1", 0), lambda *_: None)
    socket = barred(before)
    socket.send(Transmit(b"lost", FAR))
    socket.hand_over(lambda data, *_: arrived.append(bytes(data)), drained.set, after)
    socket.send(Transmit(b"lost too", OTHER))
    sender.send(Transmit(b"news", socket.local))
    async with asyncio.timeout(30):
        await drained.wait()
        await after.again.wait()
    assert (before.problems, after.problems, arrived) == ([], [(OTHER, SendProblem.FORBIDDEN)], [b"news"])
    socket.close()
    sender.close()
