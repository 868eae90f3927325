"""Datagrams of programs that are none of ours."""

from __future__ import annotations

import asyncio
import socket

from crowline.base.addresses import Address
from crowline.net.local_udp import LocalUdp

# More full datagrams than Linux keeps by itself (90), fewer than it keeps for anybody who asks (184).
BURST = 150


async def test_a_burst_waits_while_the_event_loop_is_busy() -> None:
    """All of it, in order."""
    found: list[bytes] = []
    whole = asyncio.Event()

    def take(data: bytes, source: Address) -> None:
        found.append(data)
        if len(found) == BURST:
            whole.set()

    listening = LocalUdp.listening("127.0.0.1", 0, take)
    sent = [number.to_bytes(2, "big") * 600 for number in range(BURST)]
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as program:
            for data in sent:
                program.sendto(data, ("127.0.0.1", listening.address.port))
        await asyncio.wait_for(whole.wait(), 30)
    finally:
        listening.close()
    assert found == sent
