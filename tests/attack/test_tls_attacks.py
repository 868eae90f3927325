"""Attacks on streams that have proven little, most of them on TLS, by identifiers of the threat list: T."""

from __future__ import annotations

import asyncio
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from certificates import self_signed
from crowline.server import stream_client, stream_doors
from crowline.server.front import StunTurnFront
from crowline.server.lean_tls import READ_AHEAD
from crowline.stun.message import MessageClass
from stream_attackers import binding, front, places, trusting
from turn_socket import PATIENCE
from waiting import until

PER_SOURCE = 60
KIB = 1024
MAX_PRE_AUTH = 10 * KIB
"""What row T1 of the threat list allows a socket of which nothing is known."""


def hello() -> bytes:
    """What a client of TLS says first."""
    outgoing = ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        trusting().wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="turn.test").do_handshake()
    return outgoing.read()


async def connect(running: StunTurnFront, data: bytes = b"") -> socket.socket:
    sock = socket.socket()
    sock.setblocking(False)
    server = running.tls_addresses[0]
    loop = asyncio.get_running_loop()
    await loop.sock_connect(sock, (server.host, server.port))
    await loop.sock_sendall(sock, data)
    return sock


async def secured(running: StunTurnFront) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    server = running.tls_addresses[0]
    return await asyncio.open_connection(server.host, server.port, ssl=trusting())


async def is_served(running: StunTurnFront) -> bool:
    reader, writer = await secured(running)
    writer.write(binding())
    answer = await asyncio.wait_for(reader.readexactly(32), PATIENCE)
    writer.close()
    return len(answer) == 32


# T1: what a client may cost of which nothing is known


SERVER = """
import asyncio, gc, sys
from pathlib import Path
from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.server import stream_client, stream_doors
from crowline.server.certificate import Certificate
from crowline.server.front import StunTurnFront

stream_doors.HANDSHAKE_TIME = stream_client.FIRST_MESSAGE_TIME = 600.0

async def main():
    home = Address("127.0.0.1", 0)
    front = StunTurnFront(home, secret=Secret(b"secret"), permits=lambda user, peer: False, tls_listen=[home],
                          tls=Certificate(Path(sys.argv[1]), Path(sys.argv[2])))
    await front.start()
    print(front.tcp_addresses[0].port, front.tls_addresses[0].port, flush=True)
    loop = asyncio.get_running_loop()
    while await loop.run_in_executor(None, sys.stdin.readline):
        gc.collect()
        resident = int(Path("/proc/self/statm").read_text().split()[1]) * 4096
        print(len(vars(vars(front)["_streams"])["_gate"]), resident, flush=True)
    await front.close()

asyncio.run(main())
"""


class Measured:
    """A server in a process of its own that tells its size."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None and process.stdout is not None
        self._stdin, self._stdout = process.stdin, process.stdout
        self.tcp_port, self.tls_port = self._numbers()

    def resident(self, connections: int) -> int:
        """Bytes of memory once it has that many connections."""
        while True:
            self._stdin.write("\n")
            self._stdin.flush()
            places, resident = self._numbers()
            if places == connections:
                return resident

    def _numbers(self) -> tuple[int, int]:
        line = self._stdout.readline()
        assert line, "the server has ended"
        first, second = line.split()
        return int(first), int(second)


@contextmanager
def measured(folder: Path) -> Iterator[Measured]:
    files = self_signed(folder)
    command = [sys.executable, "-c", SERVER, str(files.certificate), str(files.key)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Measured(process)
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(PATIENCE) == 0
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="reads the size of a process from /proc")
@pytest.mark.timeout(120)
@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
@pytest.mark.parametrize("says", ["nothing", "half a beginning"])
def test_t1_a_client_that_has_proven_nothing_is_cheap(secure: bool, says: str, tmp_path: Path) -> None:
    """Sockets that say nothing, or half of a STUN header or TLS hello, cost less than 10 KiB each."""
    beginning = b"" if says == "nothing" else hello()[:200] if secure else binding()[:10]
    sockets: list[socket.socket] = []
    with measured(tmp_path) as server:
        port = server.tls_port if secure else server.tcp_port

        def connect_more(count: int) -> int:
            for number in range(len(sockets), len(sockets) + count):
                sockets.append(sock := socket.socket())
                sock.bind((f"127.0.0.{10 + number // PER_SOURCE}", 0))
                sock.settimeout(PATIENCE)
                sock.connect(("127.0.0.1", port))
                sock.sendall(beginning)
            return server.resident(len(sockets))

        try:
            before = connect_more(PER_SOURCE)
            after = connect_more(5 * PER_SOURCE)
        finally:
            for sock in sockets:
                sock.close()
    assert (after - before) / (5 * PER_SOURCE) < MAX_PRE_AUTH


@pytest.mark.parametrize("stage", ["hello", "handshake"])
async def test_t1_handshakes_and_silence_after_them_are_bounded(
    stage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What costs more than a socket is there only so many times: the oldest make place for the newest."""
    monkeypatch.setattr(stream_doors, "MAX_UNPROVEN", 3)
    async with front(tmp_path) as running:
        silent: list[Any] = []
        for count in range(1, 6):
            if stage == "hello":
                silent.append(await connect(running, hello()))
            else:
                silent.append(await secured(running))
            await until(lambda count=count: places(running) == min(count, 3))
        assert running.counters["tls_crowded_out"] == 2
        assert await is_served(running)
        for each in silent:
            (each if stage == "hello" else each[1]).close()
        await until(lambda: places(running) == 0)


async def test_t1_those_who_have_spoken_are_not_crowded_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stream client that has said something stays, however many handshakes come after it."""
    monkeypatch.setattr(stream_doors, "MAX_UNPROVEN", 2)
    async with front(tmp_path) as running:
        reader, writer = await secured(running)
        writer.write(binding())
        await reader.readexactly(32)
        crowd = [await connect(running, hello()) for _ in range(6)]
        await until(lambda: running.counters.get("tls_crowded_out") == 4)
        writer.write(binding())
        assert len(await asyncio.wait_for(reader.readexactly(32), PATIENCE)) == 32
        writer.close()
        for sock in crowd:
            sock.close()


async def test_t2_a_hello_in_any_pieces_is_understood(tmp_path: Path) -> None:
    """The first record may come byte by byte, and the rest of a handshake with it."""
    async with front(tmp_path) as running:
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        client = trusting().wrap_bio(incoming, outgoing, server_hostname="turn.test")
        sock = await connect(running)
        loop = asyncio.get_running_loop()
        while True:
            try:
                client.do_handshake()
                break
            except ssl.SSLWantReadError:
                for byte in outgoing.read():
                    await loop.sock_sendall(sock, bytes([byte]))
                incoming.write(await asyncio.wait_for(loop.sock_recv(sock, 65536), PATIENCE))
        client.write(binding())
        await loop.sock_sendall(sock, outgoing.read())
        answer = b""
        while not answer:
            incoming.write(await asyncio.wait_for(loop.sock_recv(sock, 65536), PATIENCE))
            try:
                answer = client.read(100)
            except ssl.SSLWantReadError:
                continue
        assert len(answer) == 32
        sock.close()


async def test_t2_a_client_that_is_not_written_to_is_not_read_ahead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who asks and takes no answers fills no buffers of TLS with what it asks next, and is cut off."""
    monkeypatch.setattr(stream_client, "WRITE_TIME", 1.0)
    async with front(tmp_path) as running:
        server = running.tls_addresses[0]
        reader, writer = await asyncio.open_connection(server.host, server.port, ssl=trusting(), limit=1024)
        writer.write(binding())
        await reader.readexactly(32)
        assert isinstance(writer.transport, asyncio.Transport)
        writer.transport.pause_reading()
        [stream] = vars(vars(running)["_streams"])["_streams"].values()
        most = 0

        async def ask() -> None:
            while True:
                writer.write(binding() * 1000)
                await writer.drain()

        asking = asyncio.create_task(ask())

        def is_over() -> bool:
            nonlocal most
            most = max(most, 0 if stream.is_over else stream.transport.get_read_buffer_size())
            return bool(stream.is_over)

        await until(is_over)
        asking.cancel()
        await asyncio.gather(asking, return_exceptions=True)
        # One read of the kernel's buffer may pass the limit.
        assert most <= 4 * READ_AHEAD
        assert running.counters["stream_stuck"] == 1
        writer.transport.abort()


# T8: ends at every step


@pytest.mark.parametrize("stage", ["silent", "hello", "handshake", "spoken"])
async def test_t8_the_end_of_the_server_ends_connections_of_every_stage(stage: str, tmp_path: Path) -> None:
    """Nothing that was accepted outlives the listener, whatever it has done so far."""
    async with front(tmp_path) as running:
        reader: asyncio.StreamReader
        if stage in ("silent", "hello"):
            sock = await connect(running, hello() if stage == "hello" else b"")
            reader, writer = await asyncio.open_connection(sock=sock)
        else:
            reader, writer = await secured(running)
            if stage == "spoken":
                writer.write(binding())
                await reader.readexactly(32)
        await until(lambda: places(running) == 1)
        await running.close()
        assert places(running) == 0
        async with asyncio.timeout(PATIENCE):
            try:
                while await reader.read(65536):
                    pass
            except ConnectionError:
                pass
        writer.close()


@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
async def test_t8_a_client_that_ends_and_takes_nothing_is_gone_soon(
    secure: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that asks, ends its half and takes no answers is kept no longer than a write may take."""
    monkeypatch.setattr(stream_client, "WRITE_TIME", 0.3)
    monkeypatch.setattr(stream_client, "IDLE_TIME", 600.0)
    async with front(tmp_path) as running:
        server = running.tls_addresses[0] if secure else running.tcp_addresses[0]
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(sock, (server.host, server.port))
        options: dict[str, Any] = {"ssl": trusting(), "server_hostname": "turn.test"} if secure else {}
        reader, writer = await asyncio.open_connection(sock=sock, limit=1024, **options)
        writer.write(binding())
        await reader.readexactly(32)
        assert isinstance(writer.transport, asyncio.Transport)
        # TLS of the client would read ahead.
        below = vars(vars(writer.transport)["_ssl_protocol"])["_transport"] if secure else writer.transport
        below.pause_reading()
        [stream] = vars(vars(running)["_streams"])["_streams"].values()
        stream.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        # More answers than both kernels hold, and fewer than make the server stop reading.
        for _ in range(15):
            writer.write(binding() * 100)
            await asyncio.sleep(0)
        await until(lambda: running.counters["tcp_answered"] == 1501)
        unsent = stream.transport.get_extra_info(stream_client.RAW_TRANSPORT) or stream.transport
        assert unsent.get_write_buffer_size() > 0
        writer.get_extra_info("socket").shutdown(socket.SHUT_WR)
        await until(lambda: places(running) == 0)
        writer.transport.abort()


# What a stream client may say


@pytest.mark.parametrize("secure", [False, True], ids=["TCP", "TLS"])
async def test_a_binding_indication_keeps_a_stream_alive(secure: bool, tmp_path: Path) -> None:
    """RFC 8489 §3: an indication has no answer; a client that keeps its NAT open by it stays connected."""
    async with front(tmp_path) as running:
        server = running.tls_addresses[0] if secure else running.tcp_addresses[0]
        reader, writer = await asyncio.open_connection(
            server.host, server.port, ssl=trusting() if secure else None
        )
        writer.write(binding(MessageClass.INDICATION) + binding())
        assert len(await asyncio.wait_for(reader.readexactly(32), PATIENCE)) == 32
        writer.close()
