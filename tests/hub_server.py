"""A hub on a loopback port, and WebSocket clients for it."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from websockets.asyncio.client import ClientConnection, connect

from crowline.base.addresses import Address
from crowline.rendezvous import wire
from crowline.rendezvous.hub import Hub
from crowline.rendezvous.limits import HubLimits
from crowline.server.gate import Gate
from crowline.server.http import HttpServer
from crowline.server.hub import HubFront
from crowline.server.listener import bound_address, listen


class HubServer:
    """A running hub."""

    def __init__(self, hub: Hub, front: HubFront, address: Address, gate: Gate) -> None:
        self.hub = hub
        self.front = front
        self.address = address
        self.gate = gate

    @property
    def url(self) -> str:
        return f"ws://{self.address}/v1"

    def connect(self, **options: Any) -> connect:
        return connect(self.url, **{"compression": None, "proxy": None, **options})


@asynccontextmanager
async def hub_server(
    limits: HubLimits | None = None, gate: Gate | None = None, **options: Any
) -> AsyncIterator[HubServer]:
    hub = Hub(entropy=os.urandom, limits=limits, **options)
    front = HubFront(hub)
    sock = listen(Address("127.0.0.1", 0))
    server = HttpServer(front.app, sock, gate)
    await server.start()
    try:
        yield HubServer(hub, front, bound_address(sock), server.gate)
    finally:
        front.close()
        await server.close()


async def say(socket: ClientConnection, message: wire.ClientMessage) -> None:
    await socket.send(wire.encode(message).decode())


async def hear(socket: ClientConnection) -> wire.HubMessage:
    async with asyncio.timeout(30):
        return wire.decode_hub((await socket.recv()).encode())  # type: ignore[union-attr]


async def meet(
    host: ClientConnection, join: ClientConnection
) -> tuple[wire.Allocated, wire.Claimed, wire.Joined]:
    """Bring two fresh connections into one meeting."""
    for socket in (host, join):
        assert isinstance(await hear(socket), wire.Welcome)
    await say(host, wire.Allocate(wire.VERSION, b"host"))
    allocated = await hear(host)
    assert isinstance(allocated, wire.Allocated)
    await say(join, wire.Claim(wire.VERSION, allocated.number, b"join"))
    claimed, joined = await hear(join), await hear(host)
    assert isinstance(claimed, wire.Claimed) and isinstance(joined, wire.Joined)
    return allocated, claimed, joined
