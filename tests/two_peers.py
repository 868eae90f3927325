"""Two sides of the library that have met at a server on loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator
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
