"""Round trips between two peers in one process."""

from __future__ import annotations

import asyncio

import pytest

import crowline
from crowline.api.ping import PING, pinging
from crowline.api.service import agreed_stream
from crowline.base.errors import ProtocolViolation
from two_peers import two_peers


async def test_both_sides_measure_at_once() -> None:
    """Each gets the answers to its own questions, in order."""

    async def measure(peer: crowline.Peer, count: int) -> list[int]:
        async with pinging(peer, count=count, interval=0.01) as pinger:
            numbers = []
            async for pong in pinger.pongs():
                assert 0 < pong.rtt < 30 and pong.path is not None
                numbers.append(pong.number)
        return numbers

    async with two_peers() as (here, there):
        assert await asyncio.gather(measure(here, 5), measure(there, 9)) == [list(range(5)), list(range(9))]


async def test_who_leaves_ends_the_other_sides_questions(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without an error, when it leaves in good order."""
    monkeypatch.setattr("crowline.api.ping.LINGER", 0.3)

    async def leave(peer: crowline.Peer) -> None:
        async with pinging(peer, count=2, interval=0.01) as pinger:
            async for _ in pinger.pongs():
                pass
        await peer.close()

    async def go_on(peer: crowline.Peer) -> int:
        async with pinging(peer, interval=0.01) as pinger:
            return len([pong async for pong in pinger.pongs()])

    async with two_peers() as (here, there):
        _, answered = await asyncio.gather(leave(here), go_on(there))
    assert answered > 2


async def test_an_answer_that_nobody_asked_for_is_a_violation() -> None:
    """Numbers are counted here, not taken from there."""
    async with two_peers() as (here, there):

        async def lie() -> None:
            await agreed_stream(there, PING)
            stream = await there.accept_stream()
            await stream.write((10**9).to_bytes(8, "big"))

        lying = asyncio.ensure_future(lie())
        with pytest.raises(ProtocolViolation, match="nobody asked"):
            async with pinging(here, interval=0.01) as pinger:
                async for _ in pinger.pongs():
                    pass
        await lying
