"""The site's HTTP proxy on loopback: CONNECT to port 443, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from crowline.lab import connect_proxy
from crowline.lab.connect_proxy import LONGEST_REQUEST, parse_target, serve


@pytest.mark.parametrize(
    ("head", "target"),
    [
        (b"CONNECT 192.0.2.1:443 HTTP/1.1\r\nHost: x\r\n\r\n", ("192.0.2.1", 443)),
        (b"CONNECT [2001:db8::1]:443 HTTP/1.0\r\n\r\n", ("2001:db8::1", 443)),
        (b"CONNECT example:80 HTTP/1.1\r\n\r\n", ("example", 80)),
        (b"GET http://192.0.2.1/ HTTP/1.1\r\n\r\n", None),
        (b"CONNECT 192.0.2.1 HTTP/1.1\r\n\r\n", None),
        (b"CONNECT 192.0.2.1:https HTTP/1.1\r\n\r\n", None),
        (b"CONNECT 192.0.2.1:443\r\n\r\n", None),
        (b"\r\n\r\n", None),
        (b"\xff\xfe", None),
    ],
)
def test_requests_are_read_strictly(head: bytes, target: tuple[str, int] | None) -> None:
    """Whatever is not CONNECT HOST:PORT in HTTP/1 names nothing."""
    assert parse_target(head) == target


async def answer_to(request: bytes) -> bytes:
    async with await serve("127.0.0.1", 0) as server:
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        try:
            writer.write(request)
            async with asyncio.timeout(30):
                return await reader.read(1000)
        finally:
            writer.close()


@pytest.mark.parametrize(
    ("request_line", "status"),
    [
        (b"CONNECT 127.0.0.1:80 HTTP/1.1", b"403"),
        (b"GET http://127.0.0.1/ HTTP/1.1", b"400"),
        (b"CONNECT 127.0.0.1:65536 HTTP/1.1", b"400"),
        (b"CONNECT 127.0.0.1:" + b"9" * 5000 + b" HTTP/1.1", b"400"),
    ],
)
async def test_other_requests_are_refused(request_line: bytes, status: bytes) -> None:
    """With the status that says why."""
    assert (await answer_to(request_line + b"\r\n\r\n")).split()[1] == status


async def test_an_endless_request_is_cut_off() -> None:
    """A client that never ends its head is left without an answer."""
    assert await answer_to(b"CONNECT " + b"x" * (2 * LONGEST_REQUEST)) == b""


async def test_bytes_flow_both_ways_until_both_have_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """An end in one direction is handed on, and the other direction stays open."""

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        data = await reader.read()  # until the client's end has come through
        writer.write(data[::-1])
        await writer.drain()
        writer.close()

    async with (
        await asyncio.start_server(echo, "127.0.0.1", 0) as target,
        await serve("127.0.0.1", 0) as proxy,
    ):
        port = target.sockets[0].getsockname()[1]
        monkeypatch.setattr(connect_proxy, "HTTPS_PORT", port)
        reader, writer = await asyncio.open_connection(*proxy.sockets[0].getsockname())
        writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())
        async with asyncio.timeout(30):
            assert (await reader.readuntil(b"\r\n\r\n")).split()[1] == b"200"
            writer.write(b"forth and back")
            writer.write_eof()
            assert await reader.read() == b"kcab dna htrof"
        writer.close()


async def test_a_server_that_is_not_there_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    """502, and the proxy goes on."""
    async with await asyncio.start_server(lambda reader, writer: writer.close(), "127.0.0.1", 0) as gone:
        port = gone.sockets[0].getsockname()[1]
    monkeypatch.setattr(connect_proxy, "HTTPS_PORT", port)
    assert (await answer_to(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\n\r\n".encode())).split()[1] == b"502"
