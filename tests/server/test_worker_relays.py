"""What RFC 8656 says of relayed addresses, in a front with worker processes: both families, pairs, ICMP."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.net.pump import Pump
from crowline.server.front import StunTurnFront
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.client import TurnClient
from crowline.turn.events import Allocated, AllocationFailed, TurnEvent
from crowline.turn.quota import Limits
from crowline.turn.requests import Request
from turn_front import HOME, credentials
from turn_socket import PATIENCE, SocketClient, plain_socket
from waiting import until
from worker_front import (
    PEER_HOST,
    client_in_each,
    front,
    home_of,
    relayed_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares UDP ports out")

HOME6 = Address("::1", 0)
UDP = 17
PORT_UNREACHABLE = (3, 3)
LIMITS = Limits(allocations_per_user=200, allocations_per_source=200)


class AskingClient(TurnClient):
    """Asks for an allocation with attributes of its own."""

    wanted: tuple[a.AnyAttribute, ...] = ()

    def _request_allocation(self, now: float) -> None:
        self._ask(Request(Method.ALLOCATE, (a.RequestedTransport(UDP), *self.wanted)), now)

    def give_back(self, family: int, now: float) -> None:
        self._ask(Request(Method.REFRESH, (a.Lifetime(0), a.RequestedAddressFamily(family))), now)


class RawClient(SocketClient):
    """A client that keeps all messages of the server besides."""

    def __init__(self, server: Address, *wanted: a.AnyAttribute, user: str = "mailbox") -> None:
        username, password = credentials(user)
        super().__init__(server, username, password)
        self.pump.close()
        self.client: AskingClient
        self.client = AskingClient(server, username, Secret(password.encode()), entropy=os.urandom)
        self.client.wanted = wanted
        self.pump = Pump[Transmit, TurnEvent](self.client, self.socket.send, self._on_event)
        self.messages: list[Message] = []

    async def refusal(self) -> int:
        """The code with which an allocation is refused."""
        self.client.allocate(self.pump.now)
        self.pump.flush()
        return (await self.event(AllocationFailed)).code

    def give_back(self, family: int) -> None:
        """End the relayed address of one family."""
        self.client.give_back(family, self.pump.now)
        self.pump.flush()

    def _received(self, data: memoryview, source: Address, size: int) -> None:
        for start in range(0, len(data), size):
            if data[start] < 4:
                self.messages.append(parse(bytes(data[start : start + size])).message)
        super()._received(data, source, size)

    def found(self, kind: type[a.AnyAttribute]) -> list[Message]:
        return [message for message in self.messages if message.get(kind) is not None]


@asynccontextmanager
async def raw_client(
    running: StunTurnFront, *wanted: a.AnyAttribute, server: Address | None = None
) -> AsyncIterator[RawClient]:
    client = RawClient(server or running.address, *wanted)
    try:
        yield client
    finally:
        client.abandon()


async def token_of(client: RawClient) -> a.ReservationToken:
    [granted] = client.found(a.ReservationToken)
    token = granted.get(a.ReservationToken)
    assert token is not None
    return token


# --- ICMP -----------------------------------------------------------------------------------------------


async def test_icmp_errors_reach_the_clients_of_every_worker() -> None:
    """RFC 8656 §11.5: whoever sends to a port where nobody listens is told by an indication with ICMP."""
    async with front(limits=LIMITS) as running, AsyncExitStack() as stack:
        homes: set[int] = set()
        with plain_socket(PEER_HOST) as probe:
            nobody = probe.local
        while homes != {0, 1}:
            client = await stack.enter_async_context(raw_client(running))
            homes.add(home_of(running, (await client.allocate()).relayed))
            await client.bind(nobody)
            # A kernel may hold an error back, but not all of many.
            async with asyncio.timeout(PATIENCE):
                while not client.found(a.Icmp):
                    client.send(b"anybody?", nobody)
                    await asyncio.sleep(0.05)
            told = client.found(a.Icmp)[0]
            icmp = told.get(a.Icmp)
            assert (told.message_class, told.method) == (MessageClass.INDICATION, Method.DATA)
            assert told.get(a.XorPeerAddress) == a.XorPeerAddress(nobody)
            assert icmp is not None
            assert (icmp.icmp_type, icmp.icmp_code) == PORT_UNREACHABLE


# --- families -------------------------------------------------------------------------------------------


async def test_workers_relay_ipv6() -> None:
    """Clients over IPv6 in both workers have IPv6 relays, and reach each other by them."""
    async with front(HOME6, limits=LIMITS) as running, client_in_each(running) as (first, second):
        here, there = relayed_of(first), relayed_of(second)
        assert (here.host, there.host) == ("::1", "::1")
        await first.bind(there)
        await second.bind(here)
        first.send(b"hello", there)
        await second.until(lambda: second.payloads == [(b"hello", here)])
        second.send(b"yourself", here)
        await first.until(lambda: first.payloads == [(b"yourself", there)])


async def test_two_families_of_one_allocation_live_in_one_worker() -> None:
    """ADDITIONAL-ADDRESS-FAMILY: one client has an IPv4 and an IPv6 relay, and data goes by both."""
    async with (
        front(HOME, HOME6, limits=LIMITS) as running,
        client_in_each(running) as others,
        AsyncExitStack() as stack,
    ):
        ipv6_server = next(each for each in running.udp_addresses if each.is_ipv6)
        other6 = await stack.enter_async_context(raw_client(running, server=ipv6_server))
        other6.client.wanted = (a.RequestedAddressFamily(2),)
        theirs6 = (await other6.allocate()).relayed
        homes: set[int] = set()
        while homes != {0, 1}:
            client = await stack.enter_async_context(raw_client(running, a.AdditionalAddressFamily(2)))
            ipv4, ipv6 = (await client.allocate()).relayed, (await client.event(Allocated)).relayed
            assert (ipv4.is_ipv6, ipv6.is_ipv6) == (False, True)
            assert home_of(running, ipv4) == home_of(running, ipv6)
            homes.add(home_of(running, ipv4))
            with plain_socket(PEER_HOST) as peer:
                await client.bind(peer.local)
                client.send(b"by IPv4", peer.local)
                assert await peer.receive() == (b"by IPv4", ipv4)
                peer.send(b"back", ipv4)
                await client.until(lambda client=client: client.payloads)
                assert client.payloads.pop() == (b"back", peer.local)
            await other6.bind(ipv6)
            await client.bind(theirs6)
            client.send(b"by IPv6", theirs6)
            await other6.until(lambda: other6.payloads)
            assert other6.payloads.pop() == (b"by IPv6", ipv6)
            other6.send(b"back", ipv6)
            await client.until(lambda client=client: client.payloads)
            assert client.payloads.pop() == (b"back", theirs6)
            for other in others:
                theirs = relayed_of(other)
                await other.bind(ipv4)
                await client.bind(theirs)
                client.send(b"across", theirs)
                await other.until(lambda other=other: other.payloads)
                assert other.payloads.pop() == (b"across", ipv4)
        assert "handler_error" not in running.counters


async def test_one_of_two_families_may_go_before_the_other() -> None:
    """A Refresh of one family to 0 closes that relay in its worker; the other goes on."""
    async with (
        front(HOME, HOME6, limits=LIMITS) as running,
        raw_client(running, a.AdditionalAddressFamily(2)) as client,
    ):
        ipv4, ipv6 = (await client.allocate()).relayed, (await client.event(Allocated)).relayed
        client.give_back(2)
        await until(lambda: not is_relayed(running, ipv6))
        assert is_relayed(running, ipv4)
        with plain_socket(PEER_HOST) as peer:
            await client.bind(peer.local)
            client.send(b"still here", peer.local)
            assert await peer.receive() == (b"still here", ipv4)


def is_relayed(running: StunTurnFront, relayed: Address) -> bool:
    placements = vars(vars(running)["_pool"])["_placements"].values()
    return any(relayed in each.relays for each in placements)


# --- pairs of ports -------------------------------------------------------------------------------------


async def test_a_reserved_port_is_claimed_in_another_worker() -> None:
    """EVEN-PORT with R: the next port waits in the owner, and its token finds it from whichever worker."""
    async with front(limits=LIMITS) as running, AsyncExitStack() as stack:
        first = await stack.enter_async_context(raw_client(running, a.EvenPort(True)))
        even = (await first.allocate()).relayed
        assert even.port % 2 == 0
        home = home_of(running, even)
        for _ in range(100):
            token = await token_of(first)
            second = await stack.enter_async_context(raw_client(running, token))
            odd = (await second.allocate()).relayed
            assert odd == Address(even.host, even.port + 1)
            if home_of(running, odd) != home:
                break
            first = await stack.enter_async_context(raw_client(running, a.EvenPort(True)))
            even = (await first.allocate()).relayed
            home = home_of(running, even)
        assert home_of(running, odd) != home
        with plain_socket(PEER_HOST) as peer:
            for client, relayed in ((first, even), (second, odd)):
                await client.bind(peer.local)
                client.send(b"out", peer.local)
                assert await peer.receive() == (b"out", relayed)
                peer.send(b"in", relayed)
                await client.until(lambda client=client: client.payloads)
                assert client.payloads == [(b"in", peer.local)]
        late = await stack.enter_async_context(raw_client(running, token))
        assert await late.refusal() == 508
