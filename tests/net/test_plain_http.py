"""One plain request: whatever answers, little is read and nothing is raised."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

import pytest

from crowline.net.plain_http import MAX_ANSWER, PlainAnswer, fetch_plain, parse_answer
from crowline.server.hub import PATH
from serving import serving


@asynccontextmanager
async def answering(answer: bytes, *, endless: bool = False) -> AsyncIterator[int]:
    """A server that says that to whoever connects, again and again if it is endless; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            await reader.readline()
            writer.write(answer)
            while endless:
                await writer.drain()
                writer.write(answer)
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        await server.wait_closed()


async def test_our_server_says_a_token_back() -> None:
    """And to nothing but a token."""
    async with serving() as server:
        host, port = server.address.host, server.address.port
        answer = await fetch_plain(host, port, "/probe/00ff17")
        assert answer is not None
        assert (answer.status, answer.body) == (200, b"crowline 00ff17\n")
        for other in ("/probe/" + "0" * 65, "/probe/XYZ", "/probe/", "/probe/a/b", PATH):
            refused = await fetch_plain(host, port, other)
            assert refused is not None and refused.status >= 400, other


async def test_a_redirect_is_told_and_not_followed() -> None:
    """Nobody else is asked."""
    async with answering(b"HTTP/1.1 302 Found\r\nlocation:  http://login.example/ \r\n\r\n") as port:
        answer = await fetch_plain("127.0.0.1", port, "/")
    assert answer == PlainAnswer(302, "http://login.example/", b"")


async def test_an_endless_page_is_not_read_to_its_end() -> None:
    """Its beginning is enough."""
    async with answering(b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 4096, endless=True) as port:
        answer = await fetch_plain("127.0.0.1", port, "/")
    assert answer is not None
    assert len(answer.body) < MAX_ANSWER


async def test_nobody_is_nobody() -> None:
    """A refused connection, and one that says nothing, are no answers."""
    async with answering(b"") as port:
        assert await fetch_plain("127.0.0.1", port, "/") is None
    assert await fetch_plain("127.0.0.1", port, "/") is None


@pytest.mark.parametrize(
    "data",
    [
        b"", b"\r\n\r\n", b"SSH-2.0-x\r\n", b"HTTP/1.1\r\n\r\n", b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 20 x\r\n\r\n", b"HTTP/1.1 \xb2\xb2\xb2 x\r\n\r\n", b"\xff" * 100,
    ],
)  # fmt: skip
def test_what_is_no_http_is_no_answer(data: bytes) -> None:
    """Whatever listens there."""
    assert parse_answer(data) is None


def test_a_head_without_end_still_tells_its_status() -> None:
    """It was cut off where reading stopped."""
    assert parse_answer(b"HTTP/1.1 511 Needed\r\nX: y") == PlainAnswer(511, "", b"")
