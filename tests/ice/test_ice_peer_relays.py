"""Sessions with agents of others through TURN servers: ours and coturn."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from foreign_ice import PROGRAMS
from our_ice import PATIENCE, our_ice
from turn_login import account

pytestmark = pytest.mark.peer

# Our server relays to nothing on its own host but what it relays itself: the agents have another address.
AGENTS = "127.0.0.2"


@pytest.mark.parametrize("relayed", ["their side", "our side", "both sides"])
@pytest.mark.parametrize("we_control", [True, False])
@pytest.mark.parametrize("server", ["ours", "coturn"])
@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_session_through_a_relay(
    tmp_path: Path,
    program: str,
    server: str,
    we_control: bool,
    relayed: str,
) -> None:
    """Whoever has the relayed address, in both roles: a pair of that kind, and data in both directions."""
    we_relay, they_relay = relayed != "their side", relayed != "our side"
    async with (
        asyncio.timeout(2 * PATIENCE),
        account(server, tmp_path) as turn,
        our_ice(controlling=we_control, address=AGENTS) as ours,
        PROGRAMS[program](not we_control, AGENTS, turn if they_relay else None) as theirs,
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
