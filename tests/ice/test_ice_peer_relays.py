"""Sessions with agents of others through TURN servers: ours and coturn."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from crowline.net.relayed_address import TurnAccount
from needs import missing
from nice_process import libnice
from our_ice import PATIENCE, OurIce, our_ice
from turn_login import account

try:
    import aioice
    import aioice.ice
except ImportError:
    aioice = None  # type: ignore[assignment]

pytestmark = pytest.mark.peer

# Our server relays to nothing on its own host but what it relays itself: the agents have another address.
AGENTS = "127.0.0.2"


@dataclass(frozen=True)
class Foreign:
    """Their side of a connection, whatever program it is."""

    connect: Callable[[OurIce], Awaitable[None]]
    send: Callable[[bytes], Awaitable[None]]
    receive: Callable[[], Awaitable[bytes]]


@asynccontextmanager
async def by_libnice(controlling: bool, relay: TurnAccount | None) -> AsyncIterator[Foreign]:
    options: dict[str, object] = {}
    if relay is not None:
        options = {
            "turn": f"{relay.address.host}:{relay.address.port}",
            "user": relay.username,
            "password": relay.password,
            "relay_only": 1,
        }
    async with libnice(controlling=controlling, address=AGENTS, **options) as theirs:

        async def connect(ours: OurIce) -> None:
            ours.speak_to(theirs.hear)
            theirs.speak_to(ours.connection.hear)
            await theirs.until("state ready")

        async def send(data: bytes) -> None:
            theirs.send(data)

        yield Foreign(connect, send, theirs.data)


@asynccontextmanager
async def by_aioice(controlling: bool, relay: TurnAccount | None) -> AsyncIterator[Foreign]:
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
            elif name == "candidate":
                await theirs.add_remote_candidate(aioice.Candidate.from_sdp(value))
        await theirs.add_remote_candidate(None)
        await theirs.connect()

    try:
        yield Foreign(connect, theirs.send, theirs.recv)
    finally:
        await theirs.close()


PROGRAMS = {"libnice": by_libnice, "aioice": by_aioice}


@pytest.mark.parametrize("relayed", ["their side", "our side", "both sides"])
@pytest.mark.parametrize("we_control", [True, False])
@pytest.mark.parametrize("server", ["ours", "coturn"])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_session_through_a_relay(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    program: str,
    server: str,
    we_control: bool,
    relayed: str,
) -> None:
    """Whoever has the relayed address, in both roles: a pair of that kind, and data in both directions."""
    if aioice is not None:
        monkeypatch.setattr(aioice.ice, "get_host_addresses", lambda **_: [AGENTS])
    we_relay, they_relay = relayed != "their side", relayed != "our side"
    async with (
        asyncio.timeout(2 * PATIENCE),
        account(server, tmp_path) as turn,
        our_ice(controlling=we_control, address=AGENTS) as ours,
        PROGRAMS[program](not we_control, turn if they_relay else None) as theirs,
    ):
        ours.connection.add_socket(ours.own.local)
        if we_relay:
            # Nothing but the server is in reach, and nobody reaches our socket but the server.
            ours.reach = lambda address: address == turn.address
        await ours.connection.gather(turn=[turn] if we_relay else [])
        await theirs.connect(ours)
        pair = await ours.connection.connected()
        assert (pair.local.type.value == "relay") is we_relay
        assert pair.kind == "relay"
        ours.connection.send(b"\xffours")
        assert await theirs.receive() == b"\xffours"
        await theirs.send(b"\xfftheirs")
        assert await ours.data.get() == b"\xfftheirs"
