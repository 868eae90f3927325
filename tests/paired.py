"""Two users of one computer, each with a folder of their own, who meet through a real server on loopback."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import crowline
from crowline.api.pairing import KnownPeer, KnownPeers, pair, room_with
from crowline.server.server import Server

PATIENCE = 30.0  # seconds for anything that must happen here


class Two:
    """`ana` hosted when they paired, `ben` joined."""

    def __init__(self, server: Server, folder: Path) -> None:
        self.server = server
        self.ana, self.ben = KnownPeers(folder / "ana"), KnownPeers(folder / "ben")

    async def pair(self) -> tuple[KnownPeer, KnownPeer]:
        """What each keeps of the other."""
        url = self.server.url
        async with (
            asyncio.timeout(PATIENCE),
            crowline.host(url, port_mapping=False) as room,
            crowline.join(room.code, url, port_mapping=False) as there,
        ):
            here = await room.peer()
            return await asyncio.gather(
                pair(here, server=url, own="ana", known=self.ana),
                pair(there, server=url, own="ben", known=self.ben),
            )

    def rooms(self, service: str = "chat", **options: Any) -> tuple[Any, Any]:
        """A room of each with the other; ana's first."""
        return (
            room_with("ben", service, known=self.ana, port_mapping=False, **options),
            room_with("ana", service, known=self.ben, port_mapping=False, **options),
        )


async def both(one: Any, other: Any) -> tuple[crowline.Peer, crowline.Peer]:
    """The peers of two rooms; the error of whichever has none."""
    first, second = await asyncio.gather(one.peer(), other.peer(), return_exceptions=True)
    for result in (first, second):
        if isinstance(result, BaseException):
            raise result
    return first, second
