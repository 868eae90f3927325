"""What the network says about datagrams that did not arrive, and datagrams that must not be cut."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import sys

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net import mmsg
from crowline.net.exchange import Exchange
from crowline.net.udp import CAN_SET_DONT_FRAGMENT, UdpSocket
from crowline.net.udp_options import asked_by
from needs import missing


@pytest.fixture(params=["batches", "one_a_call"], autouse=True)
def exchange(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Everything holds with `recvmmsg` and without; only Linux has a queue of errors."""
    if not sys.platform.startswith("linux"):
        missing("only Linux says ICMP errors to sockets that are not connected")
    if request.param == "one_a_call":
        monkeypatch.setattr(mmsg, "find", lambda: None)
    kind: str = request.param
    return kind


class Errors:
    """ICMP errors that were said."""

    def __init__(self) -> None:
        self.seen: list[tuple[Address, int, int, int]] = []
        self.arrived = asyncio.Event()

    def take(self, peer: Address, icmp_type: int, icmp_code: int, data: int) -> None:
        self.seen.append((peer, icmp_type, icmp_code, data))
        self.arrived.set()


def bind(host: str, errors: Errors | None = None) -> UdpSocket:
    try:
        on_icmp = errors.take if errors is not None else None
        return UdpSocket.bind(Address(host, 0), lambda *_: None, on_icmp=on_icmp)
    except LocalProblem:
        missing(f"this machine has no {host}")
        raise


@pytest.mark.parametrize(("host", "said"), [("127.0.0.1", (3, 3)), ("::1", (1, 4))])
async def test_a_closed_port_is_said_with_the_peer_it_is_about(host: str, said: tuple[int, int]) -> None:
    """Port unreachable, RFC 792 and RFC 4443, and the socket goes on."""
    errors = Errors()
    gone, sender = bind(host), bind(host, errors)
    closed = gone.local
    gone.close()
    sender.send(Transmit(b"nobody", closed))
    async with asyncio.timeout(30):
        await errors.arrived.wait()
    assert errors.seen == [(closed, *said, 0)]
    sender.close()


async def test_an_error_costs_no_datagram_to_somebody_else() -> None:
    """The kernel says an error in the place of the next call's outcome; that call is made again."""
    errors = Errors()
    gone, sender = bind("127.0.0.1"), bind("127.0.0.1", errors)
    closed = gone.local
    gone.close()
    arrived: list[bytes] = []
    done = asyncio.Event()

    def take(data: memoryview, source: Address, size: int) -> None:
        arrived.append(bytes(data))
        if len(arrived) == 20:
            done.set()

    receiver = UdpSocket.bind(Address("127.0.0.1", 0), take)
    for number in range(20):
        sender.send(Transmit(b"nobody", closed))
        sender.send(Transmit(b"%d" % number, receiver.local))
    async with asyncio.timeout(30):
        await done.wait()
    assert arrived == [b"%d" % number for number in range(20)]
    assert sender.lost == 0
    for each in (sender, receiver):
        each.close()


async def test_a_socket_that_asks_for_no_errors_hears_none() -> None:
    """Its owner has nothing to do with them."""
    gone, sender = bind("127.0.0.1"), bind("127.0.0.1")
    closed = gone.local
    gone.close()
    for _ in range(3):
        sender.send(Transmit(b"nobody", closed))
        await asyncio.sleep(0)
    assert sender.lost == 0
    sender.close()


@pytest.mark.parametrize(
    ("host", "level", "option"),
    [("127.0.0.1", socket.IPPROTO_IP, 10), ("::1", socket.IPPROTO_IPV6, 23)],
    ids=["IP_MTU_DISCOVER", "IPV6_MTU_DISCOVER"],
)
async def test_dont_fragment_is_for_one_datagram(
    host: str, level: int, option: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is set while that one is sent, and what was before comes back."""
    assert CAN_SET_DONT_FRAGMENT
    sender, receiver = bind(host), bind(host)
    before = sender._socket.getsockopt(level, option)
    during: list[int] = []

    class Watched(UdpSocket):
        def _call_once(self, *arguments: object) -> None:
            during.append(self._socket.getsockopt(level, option))
            super()._call_once(*arguments)  # type: ignore[arg-type]

    watched = Watched.bind(Address(host, 0), lambda *_: None)
    watched.send(Transmit(b"whole", receiver.local, dont_fragment=True))
    watched.send(Transmit(b"as it comes", receiver.local))
    assert during == [2, before]
    assert watched._socket.getsockopt(level, option) == before
    for each in (sender, receiver, watched):
        each.close()


@pytest.mark.parametrize(
    ("host", "level", "option"),
    [
        ("127.0.0.1", socket.IPPROTO_IP, socket.IP_TTL),
        ("::1", socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS),
    ],
    ids=["IP_TTL", "IPV6_UNICAST_HOPS"],
)
async def test_a_hop_limit_is_for_one_datagram(host: str, level: int, option: int) -> None:
    """Also while others are gathered to be sent together: it leaves by itself, and the next as always."""
    receiver = bind(host)
    during: list[int] = []

    class Watched(UdpSocket):
        def _call_once(self, *arguments: object) -> None:
            during.append(self._socket.getsockopt(level, option))
            super()._call_once(*arguments)  # type: ignore[arg-type]

    watched = Watched.bind(Address(host, 0), lambda *_: None)
    before = watched._socket.getsockopt(level, option)
    watched.send(Transmit(b"near", receiver.local, hop_limit=3))
    watched.send(Transmit(b"far", receiver.local))
    if isinstance(watched.exchange, Exchange):
        watched.exchange.is_collecting = True
        watched.send(Transmit(b"near", receiver.local, hop_limit=4))
        watched.exchange.is_collecting = False
        assert during == [3, before, 4]
    assert during[:2] == [3, before]
    assert watched._socket.getsockopt(level, option) == before
    for each in (receiver, watched):
        each.close()


async def test_a_refused_option_sends_all_the_same() -> None:
    """A socket of a kind that has no such option is left as it is."""

    class Other:
        family = socket.AF_INET

        def getsockopt(self, *_: object) -> int:
            raise OSError(errno.ENOPROTOOPT, os.strerror(errno.ENOPROTOOPT))

    whole = Transmit(b"whole", Address("192.0.2.9", 9000), dont_fragment=True, hop_limit=4)
    with asked_by(whole, Other()):  # type: ignore[arg-type]
        pass
