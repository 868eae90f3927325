"""Proxies for tests on loopback: HTTP CONNECT and SOCKS5; each notes the targets it was asked for."""

from __future__ import annotations

import asyncio
import ssl
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

Ask = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[tuple[str, int]]]


@dataclass
class SmallProxy:
    """`targets` holds host and port of each connection asked for; `refuses` makes it say no. `heads` are the
    requests of HTTP.
    """

    ask: Ask
    yes: bytes
    no: bytes
    refuses: bool = False
    targets: list[tuple[str, int]] = field(default_factory=list)
    heads: list[bytes] = field(default_factory=list)
    port: int = 0
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writers.add(writer)
        with suppress(OSError, asyncio.IncompleteReadError):
            target = await self.ask(reader, writer)
            self.targets.append(target)
            if self.refuses:
                writer.write(self.no)
            else:
                there = await asyncio.open_connection(*target)
                self._writers.add(there[1])
                writer.write(self.yes)
                await asyncio.gather(_copy(reader, there[1]), _copy(there[0], writer))
        writer.close()

    def break_all(self) -> None:
        """Cut every connection."""
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()


@asynccontextmanager
async def connect_proxy(context: ssl.SSLContext | None = None) -> AsyncIterator[SmallProxy]:
    """HTTP CONNECT to any port; with `context` by TLS."""
    ok = b"HTTP/1.1 200 Connection established\r\n\r\n"
    no = b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"
    heads: list[bytes] = []

    async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
        heads.append(await reader.readuntil(b"\r\n\r\n"))
        host, _, port = heads[-1].split()[1].decode().rpartition(":")
        return host.strip("[]"), int(port)

    async with _running(SmallProxy(ask, ok, no, heads=heads), context) as proxy:
        yield proxy


@asynccontextmanager
async def socks_proxy() -> AsyncIterator[SmallProxy]:
    """SOCKS5 without a password (RFC 1928)."""
    tail = b"\0\1\0\0\0\0\0\0"
    async with _running(SmallProxy(_ask_socks, b"\5\0" + tail, b"\5\2" + tail)) as proxy:
        yield proxy


@asynccontextmanager
async def _running(proxy: SmallProxy, context: ssl.SSLContext | None = None) -> AsyncIterator[SmallProxy]:
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0, ssl=context)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.break_all()
        await asyncio.sleep(0.01)  # aborted streams tell their readers in the next rounds of the loop
        await server.wait_closed()


async def _ask_socks(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> tuple[str, int]:
    _, count = await reader.readexactly(2)
    await reader.readexactly(count)
    writer.write(b"\5\0")
    *_, kind = await reader.readexactly(4)
    if kind == 3:
        host = (await reader.readexactly((await reader.readexactly(1))[0])).decode()
    else:
        host = ".".join(str(byte) for byte in await reader.readexactly(4))
    (port,) = struct.unpack("!H", await reader.readexactly(2))
    return host, port


async def _copy(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()
    sink.close()
