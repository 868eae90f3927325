"""One HTTP request to a router that nobody trusts: no redirect, no compression, no more bytes than wanted."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass

from crowline.base.errors import MalformedMessage
from crowline.portmap.upnp.events import HttpRequest

# Seconds for all of it; slow routers need three.
LIMIT = 8.0
# Bytes of the head of an answer, and of the line that begins a chunk.
MAX_HEAD = 16 * 1024
_MAX_CHUNK_LINE = 128
# Heads that say "wait" (1xx) before the one that counts.
_MAX_INTERIM = 4


class MalformedHttp(MalformedMessage):
    """The router's answer is not HTTP, or more of it than anybody needs."""


@dataclass(frozen=True, slots=True)
class HttpAnswer:
    """Status and body, the latter cut off where the request says so."""

    status: int
    body: bytes


async def fetch(request: HttpRequest, source: str, index: int = 0) -> HttpAnswer:
    """Make the request over a new connection from the local address `source`.

    `index` is the number of the interface, for routers at link-local addresses. Raises `OSError`, which
    `TimeoutError` is too, and `MalformedHttp`.
    """
    address = request.url.address
    host = f"{address.host}%{index}" if address.host.startswith("fe80:") else address.host
    async with asyncio.timeout(LIMIT):
        reader, writer = await asyncio.open_connection(
            host, address.port, local_addr=(source, 0), limit=MAX_HEAD
        )
        try:
            writer.write(write_request(request))
            await writer.drain()
            return await read_answer(reader, request.limit)
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError, ValueError) as error:
            raise MalformedHttp("The router's answer ends too early, or a line of it never does.") from error
        finally:
            writer.transport.abort()
            with suppress(OSError):
                await writer.wait_closed()


def write_request(request: HttpRequest) -> bytes:
    """The bytes of it."""
    lines = [
        f"{request.method} {request.url.target} HTTP/1.1",
        f"Host: {request.url.address}",
        "Connection: close",
        "User-Agent: UPnP/1.1 crowline/1",
        *(f"{name}: {value}" for name, value in request.headers),
        *([f"Content-Length: {len(request.body)}"] if request.method == "POST" else []),
    ]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("ascii") + request.body


async def read_answer(reader: asyncio.StreamReader, limit: int) -> HttpAnswer:
    """The answer, with at most `limit` bytes of its body.

    Raises `MalformedHttp`, and what readers raise: `IncompleteReadError`, `LimitOverrunError`, `ValueError`.
    """
    for _ in range(_MAX_INTERIM):
        status, fields = await _read_head(reader)
        if status >= 200:
            return HttpAnswer(status, await _read_body(reader, status, fields, limit))
    raise MalformedHttp("The router puts us off again and again.")


async def _read_head(reader: asyncio.StreamReader) -> tuple[int, dict[str, list[str]]]:
    room = MAX_HEAD
    lines: list[str] = []
    while room > 0:
        line = await reader.readuntil(b"\n")
        room -= len(line)
        text = line.decode("latin-1").rstrip("\r\n")
        if not text and lines:
            return _status(lines[0]), _fields(lines[1:])
        if text:
            lines.append(text)
    raise MalformedHttp("The head of the router's answer is too long.")


def _status(line: str) -> int:
    words = line.split(None, 2)
    if len(words) < 2 or not words[0].startswith("HTTP/1.") or len(words[1]) != 3 or not words[1].isdigit():
        raise MalformedHttp("The router's answer is not HTTP.")
    return int(words[1])


def _fields(lines: Iterable[str]) -> dict[str, list[str]]:
    fields: dict[str, list[str]] = {}
    for line in lines:
        name, colon, value = line.partition(":")
        if colon:
            fields.setdefault(name.strip().lower(), []).append(value.strip())
    return fields


async def _read_body(
    reader: asyncio.StreamReader, status: int, fields: dict[str, list[str]], limit: int
) -> bytes:
    if any(value.lower() != "identity" for value in fields.get("content-encoding", [])):
        raise MalformedHttp("The router compresses its answer, which it was not asked to.")
    codings = [value.lower() for value in fields.get("transfer-encoding", [])]
    if codings not in ([], ["identity"], ["chunked"]):
        raise MalformedHttp("The router codes its answer in a way that it was not asked to.")
    if codings == ["chunked"]:
        return await _read_chunks(reader, limit)
    if status in (204, 304):
        return b""
    lengths = set(fields.get("content-length", []))
    if not lengths:
        return await _read_up_to(reader, limit)
    length = lengths.pop()
    if lengths or not (length.isascii() and length.isdigit() and len(length) <= 12):
        raise MalformedHttp("The router's answer has no length that makes sense.")
    return await reader.readexactly(min(int(length), limit))


async def _read_chunks(reader: asyncio.StreamReader, limit: int) -> bytes:
    """What comes after the last chunk is not waited for."""
    body = b""
    while len(body) < limit:
        line = await reader.readuntil(b"\n")
        digits = line.partition(b";")[0].strip()
        if len(line) > _MAX_CHUNK_LINE or not digits or len(digits) > 8 or not _is_hexadecimal(digits):
            raise MalformedHttp("The router's answer comes in pieces that make no sense.")
        size = int(digits, 16)
        if size == 0:
            break
        body += await reader.readexactly(min(size, limit - len(body)))
        if len(body) < limit:
            await reader.readuntil(b"\n")
    return body


async def _read_up_to(reader: asyncio.StreamReader, limit: int) -> bytes:
    """Until the router ends the connection, or it is enough."""
    body = b""
    while len(body) < limit and (more := await reader.read(limit - len(body))):
        body += more
    return body


def _is_hexadecimal(text: bytes) -> bool:
    return all(character in b"0123456789abcdefABCDEF" for character in text)
