"""Sessions with libnice over TCP (RFC 6544, RFC 4571): it dials us, or we dial it."""

from __future__ import annotations

import asyncio

import pytest

from crowline.ice.candidate import TcpType
from nice_process import libnice
from our_ice import PATIENCE
from our_tcp_ice import our_tcp_ice

pytestmark = pytest.mark.peer

# libnice has an active and a passive candidate, and no simultaneous opens.
MODES = {
    "we-dial": ((TcpType.ACTIVE,), "tcptype passive"),
    "it-dials": ((TcpType.PASSIVE,), "tcptype active"),
    "either-dials": ((TcpType.ACTIVE, TcpType.PASSIVE), "tcptype"),
}


@pytest.mark.parametrize("we_control", [True, False], ids=["we-control", "it-controls"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_session_over_tcp(mode: str, we_control: bool) -> None:
    """Framed checks, a nomination, and framed data of all sizes in both directions."""
    types, theirs_of_use = MODES[mode]
    async with (
        asyncio.timeout(2 * PATIENCE),
        our_tcp_ice(controlling=we_control) as ours,
        libnice(controlling=not we_control, tcp=1) as theirs,
    ):
        ours.offer(types)
        ours.speak_to(theirs.hear)
        theirs.speak_to(
            lambda line: ours.hear(line) if "tcptype" not in line or theirs_of_use in line else None
        )
        pair = await ours.connected()
        await theirs.until("state ready")
        assert pair.local.transport == "tcp"
        for size in (1, 1200, 9000):
            ours.send(b"\xff" * size)
            assert await theirs.data() == b"\xff" * size
            theirs.send(b"\xfe" * size)
            assert await ours.data.get() == b"\xfe" * size
