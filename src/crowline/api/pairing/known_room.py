"""A meeting with a known peer: no code, and both sides prove their keys before anything else is said."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crowline.api.connection import Connection
from crowline.api.key_point import ByKey
from crowline.api.options import Options, default_server
from crowline.api.pairing.identity import exchange_cards
from crowline.api.pairing.services import meeting_secret
from crowline.api.peer import Peer
from crowline.api.room import Room, opened
from crowline.api.service import Service, agreed_stream
from crowline.base.errors import Refused
from crowline.net.known_peers import KnownPeer, KnownPeers

_SERVICE = Service("known")


class KnownRoom(Room):
    """A room whose peer has proven that it is `known`."""

    def __init__(self, room: Room, known: KnownPeer, store: KnownPeers) -> None:
        """`room`: the one that this is instead."""
        self._connection = room._connection
        self._peer = room._peer
        self._known = known
        self._store = store
        self._is_proven = False

    async def peer(self) -> Peer:
        """As `Room.peer`; raises `Refused` where the other side is somebody else, who has the secret."""
        peer = await super().peer()
        if not self._is_proven:
            stream = await agreed_stream(peer, _SERVICE)
            card = await exchange_cards(peer, stream, self._store.own_key())
            if card.key != self._known.public_key:
                raise Refused(
                    f"Whoever came is not {self._known.name}: the key is another one.",
                    hint=f"Pair with {self._known.name} again, and remove the old entry on both sides.",
                )
            await stream.close()
            self._is_proven = True
        return peer


@asynccontextmanager
async def room_with(
    name: str,
    service: str,
    server: str | None = None,
    *,
    sends: bool | None = None,
    known: KnownPeers | None = None,
    **options: Any,
) -> AsyncIterator[Room]:
    """Meet whoever is known by `name`, in whichever order the two come; both name the same `service`.

    `sends`: whether this side gives, in services with a direction. `server` is where, by default where the
    two were paired. `options` as of `room.host`. Raises `UsageError` for a name that nobody has.
    """
    store = known or KnownPeers()
    peer = store.get(name)
    url = server or peer.server or default_server()
    secret = meeting_secret(peer, service, sends=sends)
    # Whoever comes again as another process finds the side that still runs, and is found by it.
    place = ByKey(url, secret, hides=bool(options.get("relay_only", False)), lasts=True)
    connection = Connection(peer.role, Options(url, place=place, **options))
    async with opened(connection) as room:
        await asyncio.shield(connection.code_ready)
        yield KnownRoom(room, peer, store)
