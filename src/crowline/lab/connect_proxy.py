"""An HTTP proxy that knows nothing but CONNECT to port 443 (RFC 9110 §9.3.6), as strict companies run them.

python -m crowline.lab.connect_proxy ADDRESS PORT
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import suppress

HTTPS_PORT = 443
LONGEST_REQUEST = 8192  # bytes of a request's head
PATIENCE = 10.0  # seconds for a client to ask, and for a server to accept
_CHUNK = 65536

_ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"
_REFUSED = {
    400: b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    403: b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
    502: b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
}


async def serve(host: str, port: int) -> asyncio.Server:
    """Listen there; port 0 takes a free one."""
    return await asyncio.start_server(_serve_client, host, port, limit=LONGEST_REQUEST)


def parse_target(head: bytes) -> tuple[str, int] | None:
    """The host and port of a CONNECT request; ``None`` for any other request."""
    method, _, rest = head.partition(b"\r\n")[0].partition(b" ")
    authority, _, version = rest.partition(b" ")
    host, colon, port = authority.decode("ascii", errors="replace").rpartition(":")
    if method != b"CONNECT" or not version.startswith(b"HTTP/1.") or not colon:
        return None
    if not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        return None
    return host.strip("[]"), int(port)


async def _serve_client(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            target = parse_target(await reader.readuntil(b"\r\n\r\n"))
            upstream = await _open(target, writer)
        if upstream is not None:
            await _carry(reader, writer, *upstream)
    except (OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
        pass  # the client is gone, or never meant to ask
    finally:
        writer.close()


async def _open(
    target: tuple[str, int] | None, writer: asyncio.StreamWriter
) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
    """The connection to the target, told to the client; ``None`` after a refusal."""
    if target is None or target[1] != HTTPS_PORT:
        writer.write(_REFUSED[400 if target is None else 403])
        await writer.drain()
        return None
    try:
        upstream = await asyncio.open_connection(*target)
    except OSError:
        writer.write(_REFUSED[502])
        await writer.drain()
        return None
    writer.write(_ESTABLISHED)
    return upstream


async def _carry(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    upstream_reader: asyncio.StreamReader,
    upstream_writer: asyncio.StreamWriter,
) -> None:
    try:
        await asyncio.gather(_copy(reader, upstream_writer), _copy(upstream_reader, writer))
    finally:
        upstream_writer.close()


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(_CHUNK):
            sink.write(data)
            await sink.drain()
        sink.write_eof()


async def _main(host: str, port: int) -> None:
    async with await serve(host, port) as server:
        await server.serve_forever()


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        asyncio.run(_main(sys.argv[1], int(sys.argv[2])))
