"""TCP connections with peers on real sockets: relayed ports, both directions, back-pressure, endings."""

from __future__ import annotations

import asyncio
import os
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.server.front import StunTurnFront
from crowline.turn import tcp_relay
from crowline.turn.events import ConnectFailed, PeerConnection
from crowline.turn.framing import StreamFramer
from crowline.turn.quota import Limits
from crowline.turn.tcp_client import BindFailed, Bound, PeerBytes, TcpTurnClient
from turn_front import front
from turn_socket import PATIENCE
from waiting import until

PEER_HOST = "127.0.0.2"


class Caller:
    """A client with a TCP allocation."""

    def __init__(self, server: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.client = TcpTurnClient(server, "user", Secret(b"password"), entropy=os.urandom)
        self.server = server
        self.reader, self.writer = reader, writer
        self._framer = StreamFramer()

    async def event(self, kind: type) -> object:
        """The next event of that kind."""
        async with asyncio.timeout(PATIENCE + tcp_relay.DIAL_TIMEOUT):
            while True:
                self._flush()
                while (event := self.client.next_event()) is not None:
                    if isinstance(event, kind):
                        return event
                data = await self.reader.read(65536)
                assert data, "the server closed the control connection"
                self._framer.feed(data)
                while (message := self._framer.next_message()) is not None:
                    self.client.receive(message, self.server, time.monotonic())

    async def allocate(self) -> Address:
        self.client.allocate(time.monotonic())
        while self.client.relayed is None:
            self._flush()
            self._framer.feed(await self.reader.read(65536))
            while (message := self._framer.next_message()) is not None:
                self.client.receive(message, self.server, time.monotonic())
        return self.client.relayed

    async def permit(self, peer: Address) -> None:
        self.client.create_permission([peer], time.monotonic())
        while self.client.is_busy:
            self._flush()
            self._framer.feed(await self.reader.read(65536))
            while (message := self._framer.next_message()) is not None:
                self.client.receive(message, self.server, time.monotonic())

    async def connect(self, peer: Address) -> PeerConnection:
        self.client.connect(peer, time.monotonic())
        found = await self.event(PeerConnection)
        assert isinstance(found, PeerConnection)
        return found

    async def take_up(self, connection: int) -> tuple[bytes, asyncio.StreamReader, asyncio.StreamWriter]:
        """A data connection; the first bytes of the peer may have come with the answer."""
        data = self.client.data_connection(connection)
        reader, writer = await asyncio.open_connection(self.server.host, self.server.port, limit=65536)
        data.bind(time.monotonic())
        early, is_bound = b"", False
        async with asyncio.timeout(PATIENCE):
            while not is_bound:
                while (transmit := data.next_transmit()) is not None:
                    writer.write(bytes(transmit.data))
                data.receive(await reader.read(65536), self.server, time.monotonic())
                while (event := data.next_event()) is not None:
                    assert not isinstance(event, BindFailed), event
                    is_bound = is_bound or isinstance(event, Bound)
                    early += event.data if isinstance(event, PeerBytes) else b""
        return early, reader, writer

    def _flush(self) -> None:
        while (transmit := self.client.next_transmit()) is not None:
            self.writer.write(bytes(transmit.data))


@asynccontextmanager
async def caller_of(running: StunTurnFront) -> AsyncIterator[Caller]:
    server = running.tcp_addresses[0]
    reader, writer = await asyncio.open_connection(server.host, server.port)
    try:
        yield Caller(server, reader, writer)
    finally:
        writer.close()


class Peer:
    """A listening peer; `accepted` gets its connections."""

    def __init__(self) -> None:
        self.accepted: asyncio.Queue[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = asyncio.Queue()
        self.writers: list[asyncio.StreamWriter] = []
        self.address = Address(PEER_HOST, 0)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.accepted.put_nowait((reader, writer))


@asynccontextmanager
async def listening() -> AsyncIterator[Peer]:
    peer = Peer()
    server = await asyncio.start_server(peer.take, PEER_HOST, 0, limit=65536)
    peer.address = Address(PEER_HOST, server.sockets[0].getsockname()[1])
    try:
        yield peer
    finally:
        server.close()
        for writer in peer.writers:
            writer.close()


def name_of(writer: asyncio.StreamWriter, which: str = "peername") -> Address:
    name = writer.get_extra_info(which)
    return Address(name[0], name[1])


async def test_a_dial_leaves_from_the_relayed_address() -> None:
    """The peer sees the relayed address, its first words wait for the client, and both ends may end."""
    async with front() as running, listening() as peer, caller_of(running) as caller:
        relayed = await caller.allocate()
        found = await caller.connect(peer.address)
        reader, writer = await peer.accepted.get()
        assert name_of(writer) == relayed
        writer.write(b"first words")
        early, data_reader, data_writer = await caller.take_up(found.connection)
        while len(early) < len(b"first words"):
            early += await data_reader.read(100)
        assert early == b"first words"
        data_writer.write(b"question")
        data_writer.write_eof()
        assert await reader.read() == b"question"
        writer.write(b"answer")
        writer.close()
        assert await data_reader.read() == b"answer"
        data_writer.close()
        assert "handler_error" not in running.counters


async def test_two_dials_share_the_relayed_port() -> None:
    """One allocation talks with two peers at once, from one port."""
    async with (
        front() as running, listening() as one, listening() as other, caller_of(running) as caller,
    ):  # fmt: skip
        relayed = await caller.allocate()
        for peer in (one, other):
            found = await caller.connect(peer.address)
            _, writer = await peer.accepted.get()
            assert name_of(writer) == relayed
            _, reader, own = await caller.take_up(found.connection)
            writer.write(b"hello")
            assert await reader.readexactly(5) == b"hello"
            own.close()


async def test_a_peer_that_dials_is_announced() -> None:
    """With permission it becomes a connection of the client; without, it is reset."""
    async with front() as running, caller_of(running) as caller:
        relayed = await caller.allocate()
        with suppress(ConnectionResetError):
            reader, writer = await asyncio.open_connection(
                relayed.host, relayed.port, local_addr=("127.0.0.9", 0)
            )
            assert await asyncio.wait_for(reader.read(), PATIENCE) == b""
            writer.close()
        await caller.permit(Address(PEER_HOST, 1))
        reader, writer = await asyncio.open_connection(relayed.host, relayed.port, local_addr=(PEER_HOST, 0))
        writer.write(b"I called")
        found = await caller.event(PeerConnection)
        assert isinstance(found, PeerConnection)
        assert found.peer == name_of(writer, "sockname")
        early, data_reader, data_writer = await caller.take_up(found.connection)
        assert early + await data_reader.readexactly(8 - len(early)) == b"I called"
        data_writer.write(b"welcome")
        assert await reader.readexactly(7) == b"welcome"
        for each in (writer, data_writer):
            each.close()


async def test_p11_a_closed_port_and_a_silent_one_look_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """447 for both; the silent one within the limit for dialling."""
    monkeypatch.setattr(tcp_relay, "DIAL_TIMEOUT", 0.3)
    async with front() as running, caller_of(running) as caller:
        await caller.allocate()
        with socket.socket() as full, socket.socket() as first, socket.socket() as second:
            full.bind((PEER_HOST, 0))
            full.listen(0)
            for waiting in (first, second):
                waiting.setblocking(False)
                waiting.connect_ex(full.getsockname())
            silent = Address(PEER_HOST, full.getsockname()[1])
            for peer in (Address(PEER_HOST, 1), silent):
                caller.client.connect(peer, time.monotonic())
                failed = await caller.event(ConnectFailed)
                assert isinstance(failed, ConnectFailed)
                assert failed.code == 447
        await until(lambda: len(vars(vars(running)["_driver"])["_tcp"]) == 0)


@pytest.mark.parametrize("to_peer", [False, True])
async def test_a_reader_that_pauses_holds_the_writer_back(to_peer: bool) -> None:
    """Megabytes for somebody who does not read wait at their sender; in the end every byte arrives."""
    total = 16 << 20
    async with (
        front(limits=Limits(bytes_per_second=1e9)) as running,
        listening() as peer,
        caller_of(running) as caller,
    ):
        await caller.allocate()
        found = await caller.connect(peer.address)
        peer_end = await peer.accepted.get()
        _, *own_end = await caller.take_up(found.connection)
        (_, writer), (reader, _) = (own_end, peer_end) if to_peer else (peer_end, own_end)
        writer.transport.set_write_buffer_limits(0)
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while sent < total:
                writer.write(bytes(65536))
                await writer.drain()
                sent += 65536
            writer.write_eof()

        task = asyncio.create_task(pour())
        before = -1
        while before != sent:
            before = sent
            await asyncio.sleep(0.3)
        assert sent < total
        got = 0
        async with asyncio.timeout(3 * PATIENCE):
            while data := await reader.read(65536):
                got += len(data)
        await task
        assert got == total
        for each in (own_end[1], peer_end[1]):
            each.close()


async def test_q7_the_rate_of_the_user_holds_for_connections_too() -> None:
    """Bytes beyond the burst take the time that they are worth; nothing is lost."""
    rate = 1_000_000.0
    async with (
        front(limits=Limits(bytes_per_second=rate)) as running,
        listening() as peer,
        caller_of(running) as caller,
    ):
        await caller.allocate()
        found = await caller.connect(peer.address)
        _, writer = await peer.accepted.get()
        _, reader, own = await caller.take_up(found.connection)
        started = time.monotonic()
        size = 1_000_000
        writer.write(bytes(size))
        await asyncio.wait_for(reader.readexactly(size), PATIENCE)
        least = (size - Limits(bytes_per_second=rate).burst - 2 * 262_144) / rate
        assert time.monotonic() - started >= least > 0.1
        own.close()


async def test_the_end_of_the_allocation_ends_its_connections() -> None:
    """When the control connection goes, peers hear of it, and nothing stays open."""
    async with front() as running, listening() as peer:
        async with caller_of(running) as caller:
            relayed = await caller.allocate()
            found = await caller.connect(peer.address)
            reader, _ = await peer.accepted.get()
            _, data_reader, data_writer = await caller.take_up(found.connection)
        for each in (reader, data_reader):
            with suppress(ConnectionResetError):
                assert await asyncio.wait_for(each.read(), PATIENCE) == b""
        data_writer.close()
        await until(lambda: len(vars(vars(running)["_driver"])["_tcp"]) == 0)
        await until(lambda: running.counters["allocations"] == 0)
        with pytest.raises(OSError):
            await asyncio.open_connection(relayed.host, relayed.port)
