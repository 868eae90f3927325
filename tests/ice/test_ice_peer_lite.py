"""Our lite agent with agents of others, which are full and control."""

from __future__ import annotations

import asyncio

import pytest

from crowline.ice.events import PairLost, PairNominated
from foreign_ice import PROGRAMS
from our_ice import PATIENCE, our_ice

pytestmark = pytest.mark.peer


@pytest.mark.parametrize("program", PROGRAMS)
async def test_a_lite_agent_of_ours(program: str) -> None:
    """It makes no check, is nominated by theirs, and carries data in both directions."""
    async with (
        asyncio.timeout(2 * PATIENCE),
        our_ice(controlling=False, lite=True) as ours,
        PROGRAMS[program](True) as theirs,
    ):
        ours.connection.add_socket(ours.own.local)
        await ours.connection.gather()
        assert "ice-lite" in ours.lines
        await theirs.connect(ours)
        pair = await ours.connection.connected()
        ours.connection.send(b"\xffours")
        assert await theirs.receive() == b"\xffours"
        await theirs.send(b"\xfftheirs")
        assert await ours.data.get() == b"\xfftheirs"
        assert pair in [event.pair for event in ours.of(PairNominated)]
        assert not ours.of(PairLost)
