"""Attacks on the HTTP and WebSocket front, by the identifiers of the threat list: T front, C log."""

from __future__ import annotations

import asyncio
import base64
import gc
import ipaddress
import struct
from contextlib import suppress

import pytest

from crowline.rendezvous import wire
from crowline.rendezvous.limits import HubLimits
from crowline.server.gate import Gate
from crowline.server.guard import MAX_FRAGMENTS
from hub_server import HubServer, hear, hub_server
from waiting import until


async def test_t1_requests_in_drops_do_not_hold_sockets(monkeypatch: pytest.MonkeyPatch) -> None:
    """A head that comes byte by byte, or never, is cut off at the deadline of its request."""
    monkeypatch.setattr("crowline.server.guard.REQUEST_LIMIT", 0.3)
    async with hub_server() as server:
        slow = [await asyncio.open_connection(server.address.host, server.address.port) for _ in range(50)]
        for index, (_, writer) in enumerate(slow):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX: " if index % 2 else b"")
        await until(lambda: len(server.gate) == 50)
        for reader, writer in slow:
            async with asyncio.timeout(30):
                with_error = await asyncio.gather(reader.read(), return_exceptions=True)
            assert with_error[0] == b"" or isinstance(with_error[0], OSError)
            writer.close()
        await until(lambda: len(server.gate) == 0)


async def test_t1_the_second_request_has_a_deadline_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A good first request buys no time for a slow second one."""
    monkeypatch.setattr("crowline.server.guard.REQUEST_LIMIT", 0.3)
    async with hub_server() as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n")
        assert b"200" in await reader.readline()
        writer.write(b"GET / HTTP/1.1\r\n")
        async with asyncio.timeout(30):
            await asyncio.gather(reader.read(), return_exceptions=True)
        writer.close()
        await until(lambda: len(server.gate) == 0)


async def test_t1_a_websocket_that_says_nothing_is_closed() -> None:
    """After the upgrade the deadline is for the first whole message; half a frame does not count."""
    async with hub_server(HubLimits(first_message=0.2)) as server:
        reader, writer = await upgraded(server)
        writer.write(b"\x81\xfe\x01\x00")
        async with asyncio.timeout(30):
            assert b"\x88" in await reader.read()
        writer.close()
        await until(lambda: len(server.gate) == 0)


async def test_t1_one_source_cannot_take_all_connections() -> None:
    """The cap for one address holds from the moment of connecting."""
    gate = Gate(per_source=3)
    assert [gate.enter("203.0.113.1") for _ in range(5)] == [True, True, True, False, False]
    assert gate.enter("203.0.113.2")


def test_t1_a_subscriber_with_many_addresses_is_one_source() -> None:
    """All of an IPv6 /64 together have one share of the connections."""
    gate = Gate(per_source=3)
    assert [gate.enter(f"2001:db8::{number}") for number in range(5)] == [True] * 3 + [False] * 2
    assert gate.enter("2001:db8:0:1::1")
    gate.leave("2001:db8::1")
    assert gate.enter("2001:db8::ffff")


def test_t1_a_trusted_proxy_brings_more_connections_than_one_client() -> None:
    """It connects for everybody: only the common cap holds, on loopback and elsewhere."""
    gate = Gate(per_source=2, total=6, proxies=(ipaddress.ip_network("10.0.0.0/8"),))
    assert [gate.enter("10.1.2.3") for _ in range(4)] == [True] * 4
    assert [gate.enter("192.0.2.1") for _ in range(3)] == [True, True, False]
    assert not gate.enter("10.1.2.3")


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (b"\x82\xff" + struct.pack("!Q", 1 << 30) + b"mask", 1009),
        (b"\x82\xff" + struct.pack("!Q", wire.MAX_MESSAGE + 1) + b"mask", 1009),
        (b"\xc1\x80mask", 1002),
        (b"\x81\x00", 1002),
        (b"\x80\x80mask", 1002),
        (b"\x89\xfe\x00\x80mask" + bytes(128), 1002),
        (b"\x81\x81mask" + bytes([0xFF ^ ord("m")]), 1007),
    ],
    ids=["1 GiB", "64 KiB + 1", "compressed", "unmasked", "continuation first", "long ping", "not UTF-8"],
)
async def test_t3_a_bad_frame_ends_the_connection(frame: bytes, code: int) -> None:
    """Declared giants, compression that was not agreed and broken framing end with the code of RFC 6455."""
    async with hub_server() as server:
        reader, writer = await upgraded(server)
        writer.write(frame)
        async with asyncio.timeout(30):
            answer = await reader.read()
        assert struct.pack("!H", code) in answer[answer.rindex(b"\x88") :]
        writer.close()
        await until(lambda: not server.front._readers)


async def test_c2_a_bad_frame_writes_no_log(caplog: pytest.LogCaptureFixture) -> None:
    """Strangers cannot fill a log: what they send wrong ends their connection and nothing else."""
    async with hub_server() as server:
        reader, writer = await upgraded(server)
        writer.write(b"\x81\x81mask" + bytes([0xFF ^ ord("m")]))
        async with asyncio.timeout(30):
            await reader.read()
        writer.close()
        await until(lambda: not server.front._readers)
    assert [record for record in caplog.records if record.name.startswith("uvicorn")] == []


async def test_t3_compression_is_not_agreed() -> None:
    """A client that offers it gets a connection without."""
    async with hub_server() as server, server.connect(compression="deflate") as socket:
        await hear(socket)
        assert socket.protocol.extensions == []


async def test_t3_empty_fragments_are_counted() -> None:
    """A message in more pieces than any client makes ends the connection; it cannot fill a list."""
    async with hub_server() as server:
        reader, writer = await upgraded(server)
        writer.write(b"\x02\x80mask" + b"\x00\x80mask" * (MAX_FRAGMENTS + 1))
        async with asyncio.timeout(30):
            assert struct.pack("!H", 1002) in await reader.read()
        writer.close()


async def test_t3_pings_to_somebody_who_does_not_read_fill_nothing() -> None:
    """Ping after ping without reading the answers: the connection ends before its answers pile up."""
    async with hub_server() as server:
        _, writer = await upgraded(server)
        ping = b"\x89\xfd" + b"mask" + bytes(125)
        for _ in range(400):
            writer.write(ping * 500)
            try:
                async with asyncio.timeout(30):
                    await writer.drain()
            except (OSError, TimeoutError):
                break
            if not server.front._readers:
                break
        else:
            pytest.fail("50,000 unread answers, and still connected")
        writer.transport.abort()


async def test_t3_a_half_closed_connection_ends() -> None:
    """A client that stops sending is gone: nothing stays behind."""
    async with hub_server() as server:
        reader, writer = await upgraded(server)
        writer.write_eof()
        async with asyncio.timeout(30):
            await reader.read()
        writer.close()
        await until(lambda: not server.front._readers and len(server.gate) == 0)


SMUGGLED = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.mark.parametrize(
    "head",
    [
        f"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\nContent-Length: {len(SMUGGLED)}\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +4\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxxYY0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nName : value\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nName\0: value\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: x\r\n" + "X: y\r\n" * 10_000 + "\r\n",
        "GET /v1 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
        "Content-Length: 0\r\nContent-Length: 9\r\n\r\n",
    ],
    ids=[
        "two lengths", "a sign", "bad chunk end", "negative chunk", "unknown coding", "space before colon",
        "NUL", "two hosts", "10,000 headers", "upgrade",
    ],
)  # fmt: skip
async def test_t4_what_proxies_read_in_two_ways_is_refused(head: str) -> None:
    """One answer at most, and the end: what follows is never taken for a request."""
    async with hub_server() as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(head.encode() + SMUGGLED.encode())
        answer = b""
        with suppress(ConnectionError):
            async with asyncio.timeout(30):
                answer = await reader.read()
        assert b'"ok"' not in answer
        assert answer.count(b"HTTP/1.1 ") <= 1
        assert answer == b"" or answer.startswith((b"HTTP/1.1 400", b"HTTP/1.1 200"))
        writer.close()
        await until(lambda: len(server.gate) == 0)


async def test_t4_the_request_behind_is_answered_where_nothing_is_wrong() -> None:
    """The control of the test before: two plain requests at once get two answers."""
    async with hub_server() as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(("GET / HTTP/1.1\r\nHost: x\r\n\r\n" + SMUGGLED).encode())
        async with asyncio.timeout(30):
            assert b"HTTP/1.1 200" in await reader.readuntil(b"HTTP/1.1 200")
            assert b'"ok"' in await reader.readuntil(b'"ok"')
        writer.close()


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "http://127.0.0.1", ""])
async def test_t5_a_web_page_cannot_use_the_hub(origin: str) -> None:
    """Browsers say where a page is from, after DNS rebinding too; only configured pages are allowed."""
    async with hub_server() as server:
        reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
        writer.write(upgrade(server, f"Origin: {origin}\r\n"))
        async with asyncio.timeout(30):
            assert b"403" in await reader.readline()
        writer.close()


async def test_t8_a_thousand_torn_connections_leave_nothing() -> None:
    """Tasks, readers and counts are as before."""
    async with hub_server() as server:
        before = len(asyncio.all_tasks())
        for round_ in range(10):
            sockets = [await upgraded(server) for _ in range(20)]
            for index, (_, writer) in enumerate(sockets):
                if (index + round_) % 3:
                    writer.write(masked(wire.encode(wire.Allocate(1, b"host"))))
                writer.transport.abort()
        server.hub.handle_timeout(asyncio.get_running_loop().time() + 10_000)
        await until(lambda: not server.front._readers and len(server.gate) == 0)
        await until(lambda: len(asyncio.all_tasks()) <= before)
        gc.collect()


async def upgraded(server: HubServer) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    """A raw socket after the upgrade and the welcome."""
    reader, writer = await asyncio.open_connection(server.address.host, server.address.port)
    writer.write(upgrade(server))
    async with asyncio.timeout(30):
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        await reader.readuntil(b"}")
    return reader, writer


def upgrade(server: HubServer, extra: str = "") -> bytes:
    return (
        f"GET /v1 HTTP/1.1\r\nHost: {server.address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        f"Sec-WebSocket-Key: {base64.b64encode(bytes(16)).decode()}\r\n"
        f"Sec-WebSocket-Version: 13\r\n{extra}\r\n"
    ).encode()


def masked(text: bytes) -> bytes:
    assert len(text) < 126
    mask = b"mask"
    return bytes([0x81, 0x80 | len(text)]) + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(text))
