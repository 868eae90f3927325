"""One connection of asyncio's own TLS streams."""

from __future__ import annotations

import asyncio
import ssl
from pathlib import Path

from measure import PIECE, Meter, find, pieces, run, say_where
from own_certificate import files


async def receive(folder: Path, _: list[str]) -> None:
    meter, done = Meter(), asyncio.Event()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE):
            meter.add(len(data))
        meter.tell()
        writer.close()
        done.set()

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*files(folder))
    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
    say_where(folder, server.sockets[0].getsockname()[1])
    await done.wait()
    server.close()


async def send(folder: Path, size: int, _: list[str]) -> None:
    port = await find(folder)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    _reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
    meter = Meter()
    for piece in pieces(size):
        meter.add(len(piece))
        writer.write(piece)
        await writer.drain()
    writer.close()
    await writer.wait_closed()
    meter.tell()


if __name__ == "__main__":
    run(receive, send)
