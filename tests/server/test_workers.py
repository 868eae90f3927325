"""The front with worker processes, on real sockets of the loopback interface."""

from __future__ import annotations

import asyncio
import os
import socket
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress

import pytest

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.stun import attributes as a
from crowline.stun.budget import Allowance
from crowline.stun.message import Message, MessageClass, Method, parse
from crowline.turn.client import TurnClient
from crowline.turn.events import AllocationFailed, Moved, TurnEvent
from crowline.turn.framing import StreamFramer
from crowline.turn.quota import Limits
from needs import needs_program
from peer_programs import background, run
from turn_front import HOME, client_of, credentials
from turn_socket import SocketClient, free_port, plain_socket
from waiting import until
from worker_front import (
    LOGIN,
    PEER_HOST,
    binding,
    client_in_each,
    front,
    home_of,
    relayed_of,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="only Linux shares UDP ports out")

# --- spreading ------------------------------------------------------------------------------------------


async def test_clients_spread_over_workers_and_data_flows_both_ways() -> None:
    """Many ports reach both workers, and each client's data goes to its peer and back."""
    async with front(challenge=Allowance(1e4, 1e4)) as running, AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(client_of(running, f"user{n}")) for n in range(16)]
        homes = Counter[int]()
        with plain_socket(PEER_HOST) as peer:
            for client in clients:
                relayed = (await client.allocate()).relayed
                homes[home_of(running, relayed)] += 1
                await client.bind(peer.local)
                client.send(b"out", peer.local)
                assert await peer.receive() == (b"out", relayed)
                peer.send(b"in", relayed)
                await client.until(lambda client=client: client.payloads)
                assert client.payloads == [(b"in", peer.local)]
        assert set(homes) == {0, 1}
        assert running.counters["allocations"] == 16


async def test_runs_of_datagrams_pass_a_worker() -> None:
    """Bulk data goes both ways whole and in order."""
    async with front() as running, client_of(running) as client:
        relayed = (await client.allocate()).relayed
        with plain_socket(PEER_HOST) as peer:
            await client.bind(peer.local)
            sent = [bytes([n]) * 1000 for n in range(40)]
            client.send(b"".join(sent), peer.local, 1000)
            assert [(await peer.receive())[0] for _ in sent] == sent
            for piece in sent:
                peer.send(piece, relayed)
            await client.until(lambda: len(client.payloads) == 40)
            assert [data for data, _ in client.payloads] == sent


async def test_every_worker_answers_binding() -> None:
    """Binding needs no owner: it is answered by the socket that was asked, whichever worker reads it."""
    async with front(Address("0.0.0.0", 0), binding=Allowance(10_000.0, 10_000.0)) as running:
        for _ in range(16):
            with plain_socket() as probe:
                probe.send(binding(), Address("127.0.0.7", running.address.port))
                data, source = await probe.receive()
                assert source == Address("127.0.0.7", running.address.port)
                assert parse(data).message.get(a.XorMappedAddress) == a.XorMappedAddress(probe.local)
        await until(lambda: running.counters.get("stun_answered") == 16)


async def test_workers_answer_from_the_alternate_address() -> None:
    """RFC 5780: any worker answers from the other address and the other port."""
    async with front(alternate_address="127.0.0.3", binding=Allowance(1e4, 1e4)) as running:
        for _ in range(8):
            with plain_socket() as probe:
                change = a.ChangeRequest(change_ip=True, change_port=True)
                data = Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), (change,)).encode()
                probe.send(data, running.address)
                _, source = await probe.receive()
                assert source.host == "127.0.0.3"
                assert source.port != running.address.port


async def test_the_budget_of_a_source_is_shared_by_the_workers() -> None:
    """However many workers answer, one source gets about as much as from one process."""
    async with front(binding=Allowance(0.0, 20.0)) as running, AsyncExitStack() as stack:
        for _ in range(20):
            probe = stack.enter_context(plain_socket())
            for _ in range(5):
                probe.send(binding(), running.address)

        def judged() -> int:
            return sum(running.counters.get(name, 0) for name in ("stun_answered", "over_budget"))

        await until(lambda: judged() == 100)
        assert 10 <= running.counters["stun_answered"] <= 20


# --- between workers ------------------------------------------------------------------------------------


async def test_allocations_of_two_workers_reach_each_other() -> None:
    """Relay to relay across workers: the permission is for the relayed host, and only relays are reached."""
    async with front() as running, client_in_each(running) as (first, second):
        one, other = relayed_of(first), relayed_of(second)
        await first.bind(other)
        await second.bind(one)
        first.send(b"across", other)
        await second.until(lambda: second.payloads)
        second.send(b"back", one)
        await first.until(lambda: first.payloads)
        assert (second.payloads, first.payloads) == ([(b"across", one)], [(b"back", other)])


async def test_no_other_socket_of_this_machine_is_reached() -> None:
    """A permission for the relayed host lets a client neither reach a plain socket there nor hear it."""
    async with front() as running, client_of(running) as client:
        relayed = (await client.allocate()).relayed
        with plain_socket(relayed.host) as service:
            await client.permit(Address(relayed.host, 1))
            client.send(b"hello", service.local)
            service.send(b"hello", relayed)
            assert await service.hears_nothing()
            assert client.payloads == []


class StreamTurnClient(SocketClient):
    """A client that speaks TCP with the server."""

    def __init__(self, server: Address, username: str, password: str) -> None:
        super().__init__(server, username, password)
        self.pump.close()
        self.client = TurnClient(
            server, username, Secret(password.encode()), entropy=os.urandom, transport=Transport.TCP
        )
        self.pump = Pump[Transmit, TurnEvent](self.client, self._write, self._on_event)

    async def connect(self) -> None:
        host, port = self.client.server.host, self.client.server.port
        self._reader, self._writer = await asyncio.open_connection(host, port)
        self._reading = asyncio.create_task(self._read())

    def send(self, data: bytes, peer: Address, segment_size: int | None = None) -> None:
        for transmit in self.client.wrap_run(data, segment_size, peer):
            self._write(transmit)

    async def disconnect(self) -> None:
        self.abandon()
        self._reading.cancel()
        self._writer.close()
        with suppress(OSError):
            await self._writer.wait_closed()

    def _write(self, transmit: Transmit) -> None:
        self._writer.write(transmit.data)

    async def _read(self) -> None:
        framer = StreamFramer()
        while data := await self._reader.read(65536):
            framer.feed(data)
            while (message := framer.next_message()) is not None:
                self._received(memoryview(message), self.client.server, len(message))


async def test_a_stream_client_and_udp_clients_of_all_workers_reach_each_other() -> None:
    """The allocation of a TCP client lives in the owner; those of workers speak with it, both ways."""
    async with front() as running, client_in_each(running) as clients:
        stream = StreamTurnClient(running.tcp_addresses[0], *credentials())
        await stream.connect()
        try:
            ours = (await stream.allocate()).relayed
            assert home_of(running, ours) not in (0, 1)
            for client in clients:
                theirs = relayed_of(client)
                await stream.bind(theirs)
                await client.bind(ours)
                stream.send(b"from the stream", theirs)
                await client.until(lambda client=client: client.payloads)
                assert client.payloads == [(b"from the stream", ours)]
                client.send(b"to the stream", ours)
                await stream.until(lambda: stream.payloads)
                assert stream.payloads.pop() == (b"to the stream", theirs)
        finally:
            await stream.disconnect()


@pytest.mark.peer
@pytest.mark.parametrize(("way", "clients"), [((), "20"), (("-t",), "2")], ids=["UDP", "TCP"])
async def test_coturn_clients_relay_to_an_echoing_peer(way: tuple[str, ...], clients: str) -> None:
    """Workers have the allocations of UDP clients, the owner those of stream clients; both carry data."""
    program, echo = needs_program("turnutils_uclient"), needs_program("turnutils_peer")
    port = free_port(PEER_HOST)
    options = {"users": {"user": Secret(b"password")}, "limits": Limits(allocations_per_user=100)}
    async with front(**options) as running, background(echo, "-L", PEER_HOST, "-p", str(port)):
        output = await run(
            program, *way, "-s", "-c", "-n", "10", "-m", clients, "-l", "200", *LOGIN,
            "-e", PEER_HOST, "-r", str(port), "-p", str(running.address.port), "127.0.0.1",
        )  # fmt: skip
    assert "Total lost packets 0" in output


@pytest.mark.peer
async def test_tcp_allocations_find_their_connections() -> None:
    """RFC 6062 with workers: ConnectionBind comes on a stream of its own and finds the allocation."""
    program = needs_program("turnutils_uclient")
    async with front(users={"user": Secret(b"password")}) as running:
        output = await run(
            program, "-T", "-c", "-n", "10", "-m", "2", "-l", "200", *LOGIN,
            "-p", str(running.address.port), "127.0.0.1",
        )  # fmt: skip
        assert "handler_error" not in running.counters
    assert "Total lost packets 0" in output


@pytest.mark.peer
async def test_coturn_clients_relay_to_each_other() -> None:
    """Twenty of coturn's clients, spread over two workers, lose nothing.

    They speak by indications: their channels have numbers that RFC 8656 §12 reserves.
    """
    program = needs_program("turnutils_uclient")
    limits = Limits(allocations_per_user=100)
    async with front(users={"user": Secret(b"password")}, limits=limits) as running:
        output = await run(
            program, "-y", "-s", "-m", "20", "-n", "10", "-l", "170", *LOGIN, "-c",
            "-p", str(running.address.port), "127.0.0.1",
        )  # fmt: skip
        assert "handler_error" not in running.counters
    assert "Total lost packets 0" in output


# --- what holds for a user ------------------------------------------------------------------------------


async def test_the_quota_of_a_user_holds_across_workers() -> None:
    """Allocations are counted once, wherever they live."""
    limits = Limits(allocations_per_user=4)
    async with front(limits=limits) as running, AsyncExitStack() as stack:
        homes = set()
        for _ in range(4):
            client = await stack.enter_async_context(client_of(running))
            homes.add(home_of(running, (await client.allocate()).relayed))
        fifth = await stack.enter_async_context(client_of(running))
        fifth.client.allocate(fifth.pump.now)
        fifth.pump.flush()
        assert (await fifth.event(AllocationFailed)).code == 486


async def test_the_rate_of_a_user_is_divided_between_workers() -> None:
    """A user in two workers gets no more than its burst and rate through both together."""
    limits = Limits(bytes_per_second=1000.0)
    async with front(limits=limits) as running, client_in_each(running) as clients:
        with plain_socket(PEER_HOST) as peer:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
            for client in clients:
                await client.bind(peer.local)
            for _ in range(300):
                for client in clients:
                    client.send(bytes(1000), peer.local)
            received = len((await peer.receive())[0])
            with suppress(TimeoutError):
                while True:
                    received += len((await peer.receive(0.3))[0])
            assert received <= limits.burst + 5000


# --- moving ---------------------------------------------------------------------------------------------


class MovingClient(SocketClient):
    """A client with a ticket, that can go to another socket."""

    def __init__(self, server: Address, username: str, password: str) -> None:
        super().__init__(server, username, password)
        self.pump.close()
        self.client = TurnClient(
            server, username, Secret(password.encode()), entropy=os.urandom, mobility=True
        )
        self.pump = Pump[Transmit, TurnEvent](self.client, lambda t: self.socket.send(t), self._on_event)
        self.old: list[UdpSocket] = []

    async def move(self) -> None:
        self.old.append(self.socket)
        self.socket = UdpSocket.bind(HOME, self._received)
        self.client.move(self.pump.now)
        self.pump.flush()
        await self.event(Moved)

    def abandon(self) -> None:
        super().abandon()
        for old in self.old:
            old.close()


async def test_a_client_moves_to_another_worker() -> None:
    """The allocation follows its client's new 5-tuple; until data comes from there the old one is served."""
    async with front() as running:
        client = MovingClient(running.address, *credentials())
        try:
            relayed = (await client.allocate()).relayed
            home = home_of(running, relayed)
            with plain_socket(PEER_HOST) as peer:
                await client.bind(peer.local)
                for step in range(30):
                    await client.move()
                    peer.send(b"to the old place %d" % step, relayed)
                    await client.until(lambda step=step: len(client.payloads) == 2 * step + 1)
                    client.send(b"from the new place", peer.local)
                    assert await peer.receive() == (b"from the new place", relayed)
                    peer.send(b"to the new place", relayed)
                    await client.until(lambda step=step: len(client.payloads) == 2 * step + 2)
                    if home_of(running, relayed) != home:
                        break
                assert home_of(running, relayed) != home
                client.send(b"by the new worker", peer.local)
                assert await peer.receive() == (b"by the new worker", relayed)
        finally:
            client.abandon()
