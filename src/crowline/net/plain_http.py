"""One plain HTTP request (RFC 9112) without a proxy: enough to see who answers."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass

MAX_ANSWER = 16 * 1024
"""Bytes that are read: a portal's page may be any size, and its head says all."""


@dataclass(frozen=True, slots=True)
class PlainAnswer:
    """`status` of the answer, where it redirects to ("" for nowhere), and the beginning of its body."""

    status: int
    location: str
    body: bytes


async def fetch_plain(host: str, port: int, path: str) -> PlainAnswer | None:
    """``None`` where nobody answers, or not with HTTP; a caller with little patience sets its own limit."""
    try:
        reader, writer = await asyncio.open_connection(host, port)
    except OSError:
        return None
    name = f"[{host}]" if ":" in host else host
    authority = name if port == 80 else f"{name}:{port}"
    try:
        writer.write(f"GET {path} HTTP/1.1\r\nHost: {authority}\r\nConnection: close\r\n\r\n".encode())
        return parse_answer(await _read(reader))
    except OSError:
        return None
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def parse_answer(data: bytes) -> PlainAnswer | None:
    """The answer in these bytes; ``None`` where they are no HTTP."""
    head, _, body = data.partition(b"\r\n\r\n")
    first, *lines = head.decode("latin-1").split("\r\n")
    version, _, rest = first.partition(" ")
    status = rest.partition(" ")[0]
    if not version.startswith("HTTP/1.") or not (status.isascii() and status.isdigit() and len(status) == 3):
        return None
    fields = {
        name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)
    }
    return PlainAnswer(int(status), fields.get("location", ""), body)


async def _read(reader: asyncio.StreamReader) -> bytes:
    """Until the end, be it a reset: some answer before they have read the question, and leave."""
    data = b""
    with suppress(ConnectionError):
        while len(data) < MAX_ANSWER and (more := await reader.read(MAX_ANSWER - len(data))):
            data += more
    return data
