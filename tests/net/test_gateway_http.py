"""HTTP with a router: what is sent, and what of any answer is taken."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from crowline.base.addresses import Address
from crowline.net import gateway_http
from crowline.net.gateway_http import (
    MAX_HEAD,
    HttpAnswer,
    MalformedHttp,
    fetch,
    read_answer,
    write_request,
)
from crowline.portmap.upnp.events import HttpRequest
from crowline.portmap.upnp.gateway_url import GatewayUrl

LIMIT = 1000
HOST = "127.0.0.1"


def request(port: int = 5000, method: str = "GET", body: bytes = b"", limit: int = LIMIT) -> HttpRequest:
    url = GatewayUrl(Address(HOST, port), "/a?b=c")
    return HttpRequest(1, method, url, (("SOAPAction", '"x#y"'),), body, limit)


async def read(data: bytes, limit: int = LIMIT, *, is_ended: bool = True) -> HttpAnswer:
    """What is made of these bytes, after which the router hangs up."""
    reader = asyncio.StreamReader(limit=MAX_HEAD)
    reader.feed_data(data)
    if is_ended:
        reader.feed_eof()
    async with asyncio.timeout(30):
        return await read_answer(reader, limit)


@asynccontextmanager
async def router(answer: Callable[[bytes], bytes]) -> AsyncIterator[int]:
    """One that answers each connection's first request so, and waits for the client to end it."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            asked = await reader.readuntil(b"\r\n\r\n")
            writer.write(answer(asked))
            await reader.read()
        except (OSError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def test_a_request_says_where_it_goes_and_how_long_it_is() -> None:
    """One connection for each, and nothing that asks for compression."""
    lines = write_request(request(method="POST", body=b"<x/>")).split(b"\r\n")
    assert lines[0] == b"POST /a?b=c HTTP/1.1"
    assert b"Host: 127.0.0.1:5000" in lines and b"Connection: close" in lines
    assert b"Content-Length: 4" in lines and lines[-1] == b"<x/>"
    assert not any(line.lower().startswith(b"accept") for line in lines)


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 5\r\n\r\nhello, and more",
        b"content-length:5\n\nhello",
        b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3;x=y\r\nllo\r\n0\r\n\r\n",
        b"\r\nhello",
        b"Content-Encoding: identity\r\n\r\nhello",
    ],
    ids=["length", "bare line feeds", "twice the same length", "chunks", "until the end", "identity"],
)
async def test_a_body_is_read_however_its_end_is_told(rest: bytes) -> None:
    """By a length, in chunks, or by hanging up."""
    assert await read(b"HTTP/1.1 200 OK\r\n" + rest) == HttpAnswer(200, b"hello")


async def test_an_interim_answer_is_not_the_answer() -> None:
    """RFC 9110 §15.2."""
    assert await read(b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx") == HttpAnswer(200, b"x")


@pytest.mark.parametrize(
    "rest",
    [b"Content-Length: 9999\r\n\r\n", b"\r\n", b"Transfer-Encoding: chunked\r\n\r\n270F\r\n"],
    ids=["length", "until the end", "chunk"],
)
async def test_no_more_is_read_than_was_asked_for(rest: bytes) -> None:
    """A document that is too long is cut off, and the rest is not waited for."""
    answer = await read(b"HTTP/1.1 200 OK\r\n" + rest + b"x" * 9999, is_ended=False)
    assert answer == HttpAnswer(200, b"x" * LIMIT)


async def test_a_request_is_made_and_answered() -> None:
    """Over a real connection, from the address that was named."""
    asked: list[bytes] = []

    def answer(data: bytes) -> bytes:
        asked.append(data)
        return b"HTTP/1.0 500 No\r\nContent-Length: 2\r\n\r\nno"

    async with router(answer) as port:
        assert await fetch(request(port), HOST) == HttpAnswer(500, b"no")
    assert asked == [write_request(request(port))]


async def test_a_redirect_is_not_followed() -> None:
    """It is an answer like any other, which says where nobody goes."""
    seen: list[bytes] = []

    def answer(data: bytes) -> bytes:
        seen.append(data)
        return b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n"

    async with router(answer) as port:
        assert (await fetch(request(port), HOST)).status == 302
    assert len(seen) == 1


async def test_a_router_that_is_not_there_is_an_error_of_the_system() -> None:
    """Nobody listens at that port any more."""
    async with router(lambda _: b"") as port:
        pass
    with pytest.raises(OSError):
        await fetch(request(port), HOST)


async def test_a_router_that_says_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """After the time for all of it together."""
    monkeypatch.setattr(gateway_http, "LIMIT", 0.05)
    async with router(lambda _: b"") as port:
        with pytest.raises(TimeoutError):
            await fetch(request(port), HOST)


async def test_a_router_that_says_one_byte_at_a_time_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """No single wait is too long, but all of them are."""
    monkeypatch.setattr(gateway_http, "LIMIT", 0.3)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            writer.write(b"HTTP/1.1 200 OK\r\n")
            while not reader.at_eof():
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
        except OSError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        with pytest.raises(TimeoutError):
            await fetch(request(server.sockets[0].getsockname()[1]), HOST)


@pytest.mark.parametrize("data", [b"HTTP/1.1 200", b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nx"])
async def test_an_answer_that_ends_too_early_is_none(data: bytes) -> None:
    """Over a real connection it is told as malformed."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(data)
        writer.close()

    server = await asyncio.start_server(serve, HOST, 0)
    async with server:
        with pytest.raises(MalformedHttp):
            await fetch(request(server.sockets[0].getsockname()[1]), HOST)
