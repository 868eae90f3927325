"""Attacks of a router on the client that asks it by HTTP (rows M2, M3 and M5)."""

from __future__ import annotations

import asyncio

import hypothesis.strategies as st
import pytest
from hypothesis import given

from crowline.net.gateway_http import MAX_HEAD, HttpAnswer, MalformedHttp, read_answer

REFUSALS = (MalformedHttp, asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError)


async def read(data: bytes, limit: int = 1000) -> HttpAnswer:
    reader = asyncio.StreamReader(limit=MAX_HEAD)
    reader.feed_data(data)
    reader.feed_eof()
    return await read_answer(reader, limit)


@pytest.mark.parametrize(
    "head",
    [
        b"Content-Length: -1",
        b"Content-Length: +5",
        b"Content-Length: 0x5",
        b"Content-Length:",
        b"Content-Length: 5, 6",
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 9999999999999",
        "Content-Length: \u0665".encode(),
        b"Transfer-Encoding: gzip",
        b"Transfer-Encoding: chunked, chunked",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip",
        b"Content-Encoding: gzip",
        b"Content-Encoding: br",
    ],
)
async def test_m5_odd_heads_are_refused(head: bytes) -> None:
    """A length that is none, two of them, and codings that nobody asked for."""
    with pytest.raises(MalformedHttp):
        await read(b"HTTP/1.1 200 OK\r\n" + head + b"\r\n\r\nhello")


@pytest.mark.parametrize(
    "chunks",
    [
        b"-5\r\nhello\r\n0\r\n\r\n",
        b"\r\nhello",
        b"5x\r\nhello\r\n0\r\n\r\n",
        b"0x5\r\nhello\r\n0\r\n\r\n",
        b"123456789\r\nhello",
        b"5;" + b"x" * 200 + b"\r\nhello\r\n0\r\n\r\n",
        b"1_0\r\n0123456789abcdef\r\n0\r\n\r\n",
    ],
)
async def test_m5_odd_chunks_are_refused(chunks: bytes) -> None:
    """Sizes that are none, too large, or come with extensions without an end."""
    with pytest.raises(MalformedHttp):
        await read(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + chunks)


@pytest.mark.parametrize(
    "data",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\n" * 1000,
        b"x" * 1_000_000,
        b"\r\n" * 100_000,
    ],
    ids=["many fields", "one long field", "interim answers", "one long line", "empty lines"],
)
async def test_m5_heads_without_an_end_are_refused(data: bytes) -> None:
    """Not more than a fixed number of bytes is looked at."""
    with pytest.raises(REFUSALS):
        await read(data)


@pytest.mark.parametrize(
    "status", [b"HTTP/2 200 OK", b"HTTP/1.1 20 OK", b"HTTP/1.1 abc", b"SIP/2.0 200 OK", b"200"]
)
async def test_m5_what_is_not_http_is_refused(status: bytes) -> None:
    """Nothing is guessed."""
    with pytest.raises(MalformedHttp):
        await read(status + b"\r\n\r\nhello")


async def test_m3_a_giant_document_is_cut_off() -> None:
    """One byte more than is read is taken, so that it is known to be too long."""
    answer = await read(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n" + b"x" * 200_000, 65_537)
    assert len(answer.body) == 65_537


@given(st.binary(max_size=400))
def test_m5_any_bytes_are_an_answer_or_refused(data: bytes) -> None:
    """No other exception, and never more than was asked for."""

    async def run() -> None:
        try:
            answer = await read(b"HTTP/1.1 200 OK\r\n" + data, 50)
        except REFUSALS:
            return
        assert len(answer.body) <= 50

    asyncio.run(run())
