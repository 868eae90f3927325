"""One QUIC stream by a library's own asyncio interface: ``qh3`` or ``aioquic``, as the last argument says."""

from __future__ import annotations

import asyncio
import socket
import ssl
from importlib import import_module
from pathlib import Path
from typing import Any

from measure import PIECE, Meter, find, pieces, run, say_where
from own_certificate import NAME, files

ALPN = "bench"
# Bytes unsent above which the sender waits, where the library says how many there are.
ROOM = 4 << 20


def parts(library: str) -> tuple[Any, Any]:
    return import_module(f"{library}.asyncio"), import_module(f"{library}.quic.configuration")


async def receive(folder: Path, rest: list[str]) -> None:
    api, settings = parts(rest[-1])
    certificate, key = files(folder)
    configuration = settings.QuicConfiguration(alpn_protocols=[ALPN], is_client=False)
    configuration.load_cert_chain(str(certificate), str(key))
    meter, done = Meter(), asyncio.Event()
    tasks = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(PIECE):
            meter.add(len(data))
        meter.tell()
        writer.write_eof()
        await asyncio.sleep(0.3)
        done.set()

    def on_stream(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.create_task(take(reader, writer)))

    port = _free_port()
    await api.serve("127.0.0.1", port, configuration=configuration, stream_handler=on_stream)
    say_where(folder, port)
    await done.wait()


async def send(folder: Path, size: int, rest: list[str]) -> None:
    api, settings = parts(rest[-1])
    port = await find(folder)
    configuration = settings.QuicConfiguration(
        alpn_protocols=[ALPN], is_client=True, verify_mode=ssl.CERT_NONE, server_name=NAME
    )
    async with api.connect("127.0.0.1", port, configuration=configuration) as client:
        reader, writer = await client.create_stream()
        meter = Meter()
        for piece in pieces(size):
            meter.add(len(piece))
            writer.write(bytes(piece))
            while _unsent(client, writer) > ROOM:  # noqa: ASYNC110 - neither library tells when it has sent
                await asyncio.sleep(0.001)
        writer.write_eof()
        await reader.read()
        meter.tell()


def _unsent(client: Any, writer: asyncio.StreamWriter) -> int:
    """Bytes that the library keeps for the stream: neither tells it to its writer."""
    connection, stream = client._quic, writer.get_extra_info("stream_id")
    if hasattr(connection, "get_send_buffer_size"):
        return int(connection.get_send_buffer_size(stream))
    return len(connection._streams[stream].sender._buffer)


def _free_port() -> int:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


if __name__ == "__main__":
    run(receive, send)
