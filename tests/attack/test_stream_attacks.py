"""Attacks on the TCP and TLS front, by the identifiers of the threat list: T front, Q resources."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
import ssl
import time
import warnings
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.server import stream_client, stream_doors, stream_front
from crowline.server.certificate import Certificate
from crowline.server.config import ServerConfig, TlsConfig
from crowline.server.front import StunTurnFront
from crowline.server.server import Server
from crowline.stun.message import MessageClass, parse
from crowline.turn.client import TurnClient
from crowline.turn.framing import StreamFramer
from stream_attackers import binding, ended, front, places, streams, trusting
from turn_front import HOME
from turn_socket import PATIENCE, plain_socket
from waiting import until

PEER_HOST = "127.0.0.2"
USER, PASSWORD = "user", "password"


class Caller:
    """A TURN client on one stream."""

    def __init__(
        self, server: Address, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, kind: Transport
    ) -> None:
        self.client = TurnClient(server, USER, Secret(PASSWORD.encode()), entropy=os.urandom, transport=kind)
        self.server = server
        self.reader, self.writer = reader, writer
        self._framer = StreamFramer()

    async def allocate(self) -> Address:
        self.client.allocate(time.monotonic())
        await self.until_idle()
        assert self.client.relayed is not None
        return self.client.relayed

    async def permit(self, peer: Address) -> None:
        self.client.create_permission([peer], time.monotonic())
        await self.until_idle()

    async def until_idle(self) -> None:
        self._flush()
        async with asyncio.timeout(PATIENCE):
            while self.client.is_busy or self.client.relayed is None:
                data = await self.reader.read(65536)
                assert data, "the server closed the stream"
                self._framer.feed(data)
                while (message := self._framer.next_message()) is not None:
                    self.client.receive(message, self.server, time.monotonic())
                self._flush()

    def _flush(self) -> None:
        while (transmit := self.client.next_transmit()) is not None:
            self.writer.write(bytes(transmit.data))


async def call(running: StunTurnFront, kind: Transport = Transport.TCP, **options: Any) -> Caller:
    server = (running.tls_addresses if kind is Transport.TLS else running.tcp_addresses)[0]
    if kind is Transport.TLS:
        options["ssl"] = trusting()
    reader, writer = await asyncio.open_connection(server.host, server.port, **options)
    return Caller(server, reader, writer, kind)


# T: the front


@pytest.mark.parametrize("secure", [False, True])
async def test_t1_bytes_that_dribble_in_have_one_deadline(
    secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A byte now and then of a STUN header, or of a TLS hello, does not prolong anything."""
    monkeypatch.setattr(stream_client, "FIRST_MESSAGE_TIME", 0.2)
    monkeypatch.setattr(stream_doors, "HANDSHAKE_TIME", 0.2)
    async with front(tmp_path) as running:
        server = (running.tls_addresses if secure else running.tcp_addresses)[0]
        reader, writer = await asyncio.open_connection(server.host, server.port)

        async def dribble() -> None:
            for byte in b"\x16\x03\x01\x02\x00\x01" * 20 if secure else binding() * 9:
                writer.write(bytes([byte]))
                await asyncio.sleep(0.03)

        task = asyncio.create_task(dribble())
        assert await ended(reader) == b""
        assert not task.done()
        task.cancel()
        writer.close()
        await until(lambda: places(running) == 0)


async def test_t1_silence_inside_tls_ends_soon(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A finished handshake buys five seconds, not for ever."""
    monkeypatch.setattr(stream_doors, "FIRST_BYTE_TIME", 0.1)
    async with front(tmp_path) as running:
        caller = await call(running, Transport.TLS)
        assert await ended(caller.reader) == b""
        caller.writer.close()
        await until(lambda: places(running) == 0)


async def test_t1_one_source_has_only_so_many_connections(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Connections that are still in their handshake count, and another source is served meanwhile."""
    monkeypatch.setattr(stream_front, "MAX_CONNECTIONS_PER_SOURCE", 5)
    async with front(tmp_path) as running:
        server = running.tls_addresses[0]
        silent = [await asyncio.open_connection(server.host, server.port) for _ in range(5)]
        await until(lambda: places(running) == 5)
        reader, writer = await asyncio.open_connection(server.host, server.port)
        assert await ended(reader) == b""
        writer.close()
        assert running.counters["tcp_refused"] == 1
        other = await call(running, Transport.TLS, local_addr=("127.0.0.9", 0))
        other.writer.write(binding())
        assert len(await other.reader.readexactly(32)) == 32
        other.writer.close()
        for _, writer in silent:
            writer.close()
        await until(lambda: places(running) == 0)


@pytest.mark.parametrize(
    "hello",
    [
        b"\x16\x03\x01\xff\xff" + b"\x01\x00\xff\xfb" + bytes(65531),
        b"\x16\x03\x01\x00\x05\x01\x00\x00\x01\x00",
        b"\x80\x2e\x01\x00\x02" + bytes(43),
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x00\x01\x00\x00\x21\x12\xa4\x42" + bytes(12),
    ],
    ids=["64 KB", "short", "SSL 2", "HTTP", "STUN"],
)
async def test_t2_what_is_no_hello_ends_the_connection(hello: bytes, tmp_path: Path) -> None:
    """Oversized, broken and foreign beginnings of TLS are refused, and the next client is served."""
    async with front(tmp_path) as running:
        server = running.tls_addresses[0]
        reader, writer = await asyncio.open_connection(server.host, server.port)
        writer.write(hello)
        await ended(reader)
        writer.close()
        await until(lambda: places(running) == 0)
        assert running.counters["tls_failed"] == 1
        after = await call(running, Transport.TLS)
        after.writer.write(binding())
        assert len(await after.reader.readexactly(32)) == 32
        after.writer.close()


async def test_t2_old_versions_are_refused(tmp_path: Path) -> None:
    """A client that knows TLS 1.1 at most gets no connection; foreign names in ALPN and SNI do not matter."""
    async with front(tmp_path) as running:
        server = running.tls_addresses[0]
        old = trusting()
        old.set_ciphers("ALL:@SECLEVEL=0")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            old.minimum_version = ssl.TLSVersion.TLSv1
            old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await asyncio.open_connection(server.host, server.port, ssl=old)
        strange = trusting()
        strange.set_alpn_protocols(["nonsense/9"])
        reader, writer = await asyncio.open_connection(
            server.host, server.port, ssl=strange, server_hostname="somebody.else.example"
        )
        writer.write(binding())
        assert len(await reader.readexactly(32)) == 32
        writer.close()


async def test_t2_nobody_renegotiates(tmp_path: Path) -> None:
    """The context says so, and TLS 1.2 is the least."""
    files = self_signed(tmp_path)
    context = Certificate(files.certificate, files.key).context
    assert context.options & ssl.OP_NO_RENEGOTIATION
    assert context.minimum_version == ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize("path", ["/", "/healthz"])
async def test_t5_one_port_serves_pages_and_turn(path: str, tmp_path: Path) -> None:
    """After the handshake the first byte decides; a page of another site gets no WebSocket there either."""
    files = self_signed(tmp_path)
    config = ServerConfig(listen=HOME, stun_listen=HOME, tls=TlsConfig(HOME, files.certificate, files.key))
    async with Server(config) as server:
        address = server.tls_addresses[0]
        for request, status in (
            (f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", b"200"),
            (
                "GET /v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
                "Origin: https://evil.example\r\n\r\n",
                b"403",
            ),
        ):
            reader, writer = await asyncio.open_connection(address.host, address.port, ssl=trusting())
            writer.write(request.encode())
            head = await asyncio.wait_for(reader.readline(), PATIENCE)
            assert head.split()[1] == status
            writer.close()
        reader, writer = await asyncio.open_connection(address.host, address.port, ssl=trusting())
        writer.write(binding())
        assert parse(await reader.readexactly(32)).message.message_class is MessageClass.SUCCESS
        writer.close()


@pytest.mark.parametrize(
    "header", [b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n", b"\r\n\r\n\0\r\nQUIT\n" + bytes(200)]
)
async def test_t6_a_proxy_header_is_no_stun(header: bytes, tmp_path: Path) -> None:
    """Nobody says for whom he connects: the connection ends without a byte."""
    async with front(tmp_path) as running:
        caller = await call(running)
        caller.writer.write(header + binding())
        assert await ended(caller.reader) == b""
        caller.writer.close()


@pytest.mark.parametrize("kind", [Transport.TCP, Transport.TLS])
@pytest.mark.parametrize("step", ["connected", "half a message", "allocated", "permitted"])
async def test_t8_a_reset_at_every_step_leaves_nothing(kind: Transport, step: str, tmp_path: Path) -> None:
    """No stream, place, allocation or task stays behind."""
    async with front(tmp_path) as running:
        before = len(asyncio.all_tasks())
        caller = await call(running, kind)
        if step == "half a message":
            caller.writer.write(binding()[:10])
            await caller.writer.drain()
        elif step != "connected":
            await caller.allocate()
            if step == "permitted":
                await caller.permit(Address(PEER_HOST, 9))
            assert running.counters["allocations"] == 1
        caller.writer.transport.abort()
        await until(lambda: places(running) == 0 and streams(running) == 0)
        await until(lambda: running.counters["allocations"] == 0)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        assert "handler_error" not in running.counters


# Q: resources


async def test_q8_a_reader_that_stands_still_is_cut_off(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a peer floods, what waits for the client is bounded, old data is dropped, and then it ends."""
    monkeypatch.setattr(stream_client, "WRITE_TIME", 0.5)
    async with front(tmp_path) as running:
        caller = await call(running, limit=1024)
        relayed = await caller.allocate()
        most = 0
        with plain_socket(PEER_HOST) as peer:
            await caller.permit(peer.local)
            # Neither the application nor its reader takes anything from here on.
            assert isinstance(caller.writer.transport, asyncio.Transport)
            caller.writer.transport.pause_reading()
            [stream] = vars(vars(running)["_streams"])["_streams"].values()
            deadline = time.monotonic() + PATIENCE
            while streams(running) and time.monotonic() < deadline:
                for _ in range(64):
                    with suppress(BlockingIOError):
                        peer.send(bytes(1200), relayed)
                await asyncio.sleep(0.001)
                waiting = 0 if stream.is_over else stream.transport.get_write_buffer_size()
                most = max(most, waiting + vars(stream)["_queued"])
        assert streams(running) == 0
        assert running.counters["stream_stuck"] == 1
        assert running.counters["stream_dropped"] > 0
        assert most <= stream_client.MAX_QUEUE + 2 * stream_client.HIGH_WATER
        await until(lambda: running.counters["allocations"] == 0)
        caller.writer.close()


async def test_q8_a_reader_that_comes_back_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody who pauses for a moment gets whole messages after it, and answers to what he asks."""
    monkeypatch.setattr(stream_client, "WRITE_TIME", 2 * PATIENCE)
    async with front(tmp_path) as running:
        caller = await call(running, limit=1024)
        relayed = await caller.allocate()
        with plain_socket(PEER_HOST) as peer:
            await caller.permit(peer.local)
            assert isinstance(caller.writer.transport, asyncio.Transport)
            caller.writer.transport.pause_reading()
            for _ in range(6000):
                with suppress(BlockingIOError):
                    peer.send(bytes(1200), relayed)
                await asyncio.sleep(0)
            caller.writer.transport.resume_reading()
            await caller.permit(Address("127.0.0.3", 1))
        assert running.counters["allocations"] == 1
        caller.writer.close()


async def test_q10_without_descriptors_live_streams_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When no connection can be accepted, those that are there are served, and accepting begins again."""
    accept = socket.socket.accept
    exhausted = True

    def refuse(sock: socket.socket) -> Any:
        if exhausted:
            raise OSError(errno.EMFILE, "too many open files")
        return accept(sock)

    loop = asyncio.get_running_loop()
    told: list[Any] = []
    loop.set_exception_handler(lambda loop, context: told.append(context["message"]))
    async with front(tmp_path) as running:
        caller = await call(running)
        caller.writer.write(binding())
        await caller.reader.readexactly(32)
        monkeypatch.setattr(socket.socket, "accept", refuse)
        later = asyncio.create_task(call(running))
        await until(lambda: bool(told))
        caller.writer.write(binding())
        assert len(await caller.reader.readexactly(32)) == 32
        exhausted = False
        newcomer = await later
        newcomer.writer.write(binding())
        assert len(await asyncio.wait_for(newcomer.reader.readexactly(32), PATIENCE)) == 32
        assert set(told) == {"socket.accept() out of system resource"}
        for each in (caller, newcomer):
            each.writer.close()
