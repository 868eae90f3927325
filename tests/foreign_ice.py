"""ICE agents that other people wrote, all used alike against one of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from unittest.mock import patch

from crowline.net.relayed_address import TurnAccount
from needs import missing
from nice_process import libnice
from our_ice import OurIce

try:
    import aioice
    import aioice.ice
except ImportError:
    aioice = None  # type: ignore[assignment]


@dataclass(frozen=True)
class Foreign:
    """Their side of a connection, whatever program it is."""

    connect: Callable[[OurIce], Awaitable[None]]
    send: Callable[[bytes], Awaitable[None]]
    receive: Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def by_libnice(
    controlling: bool, address: str = "127.0.0.1", relay: TurnAccount | None = None
) -> AsyncIterator[Foreign]:
    options: dict[str, object] = {}
    if relay is not None:
        options = {
            "turn": f"{relay.address.host}:{relay.address.port}",
            "user": relay.username,
            "password": relay.password,
            "relay_only": 1,
        }
    async with libnice(controlling=controlling, address=address, **options) as theirs:

        async def connect(ours: OurIce) -> None:
            ours.speak_to(theirs.hear)
            theirs.speak_to(ours.connection.hear)
            await theirs.until("state ready")

        async def send(data: bytes) -> None:
            theirs.send(data)

        yield Foreign(connect, send, theirs.data)


@asynccontextmanager
async def by_aioice(
    controlling: bool, address: str = "127.0.0.1", relay: TurnAccount | None = None
) -> AsyncIterator[Foreign]:
    if aioice is None:
        missing("aioice is not installed")
    options = {}
    if relay is not None:
        options = {
            "turn_server": (relay.address.host, relay.address.port),
            "turn_username": relay.username,
            "turn_password": relay.password,
            "transport_policy": aioice.TransportPolicy.RELAY,
        }
    theirs = aioice.Connection(ice_controlling=controlling, use_ipv6=False, **options)

    async def connect(ours: OurIce) -> None:
        with patch.object(aioice.ice, "get_host_addresses", lambda **_: [address]):
            await theirs.gather_candidates()
        told = asyncio.Queue[str]()
        ours.speak_to(told.put_nowait)
        ours.connection.hear(f"ice-ufrag:{theirs.local_username}")
        ours.connection.hear(f"ice-pwd:{theirs.local_password}")
        for candidate in theirs.local_candidates:
            ours.connection.hear(f"candidate:{candidate.to_sdp()}")
        ours.connection.hear("end-of-candidates")
        while (line := await told.get()) != "end-of-candidates":
            name, _, value = line.partition(":")
            if name == "ice-ufrag":
                theirs.remote_username = value
            elif name == "ice-pwd":
                theirs.remote_password = value
            elif name == "ice-lite":
                theirs.remote_is_lite = True
            elif name == "candidate":
                await theirs.add_remote_candidate(aioice.Candidate.from_sdp(value))
        await theirs.add_remote_candidate(None)
        await theirs.connect()

    try:
        yield Foreign(connect, theirs.send, theirs.recv)
    finally:
        await theirs.close()


PROGRAMS = {"libnice": by_libnice, "aioice": by_aioice}
