"""One stream of iroh by its Python binding, on loopback, without relays."""

from __future__ import annotations

import asyncio
from pathlib import Path

import iroh
from measure import PIECE, Meter, find, pieces, run, say_where

ALPN = b"bench"


async def endpoint() -> iroh.Endpoint:
    if hasattr(iroh, "uniffi_set_event_loop"):
        iroh.uniffi_set_event_loop(asyncio.get_running_loop())
    options = iroh.EndpointOptions(
        bind_addr="127.0.0.1:0", alpns=[ALPN], relay_mode=iroh.RelayMode.disabled()
    )
    return await iroh.Endpoint.bind(options)


async def receive(folder: Path, _: list[str]) -> None:
    node = await endpoint()
    say_where(folder, {"id": str(node.id()), "sockets": node.bound_sockets()})
    incoming = await node.accept_next()
    connection = await (await incoming.accept()).connect()
    both = await connection.accept_bi()
    meter, reader = Meter(), both.recv()
    while data := await reader.read(PIECE):
        meter.add(len(data))
    meter.tell()
    await both.send().write_all(b"k")
    await both.send().finish()
    await connection.closed()
    await node.close()


async def send(folder: Path, size: int, _: list[str]) -> None:
    where = await find(folder)
    node = await endpoint()
    address = iroh.EndpointAddr(iroh.EndpointId.from_string(where["id"]), None, where["sockets"])
    connection = await node.connect(address, ALPN)
    both = await connection.open_bi()
    meter, writer = Meter(), both.send()
    for piece in pieces(size):
        meter.add(len(piece))
        await writer.write_all(bytes(piece))
    await writer.finish()
    await both.recv().read_exact(1)
    meter.tell()
    connection.close(0, b"")
    await node.close()


if __name__ == "__main__":
    run(receive, send)
