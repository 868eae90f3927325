"""Two sides of the library that have met at a server on loopback, and waiting for what they do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import crowline
from serving import serving


@asynccontextmanager
async def two_peers() -> AsyncIterator[tuple[crowline.Peer, crowline.Peer]]:
    """What the host has of the one who joins, and the other way round."""
    async with (
        serving() as server,
        crowline.host(server.url) as room,
        crowline.join(room.code, server.url) as there,
    ):
        yield await room.peer(), there


async def until(condition: Callable[[], bool]) -> None:
    """Wait until `condition()` holds."""
    deadline = asyncio.get_running_loop().time() + 30
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "that did not happen in time"
        await asyncio.sleep(0.005)
