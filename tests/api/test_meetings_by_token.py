"""Two sides that meet by tokens, in one process on loopback."""

from __future__ import annotations

import asyncio
import os

import pytest

import crowline
from crowline.api import watch
from crowline.api.serverless import host_by_token, join_by_token


async def test_two_tokens_make_a_connection_that_carries_bytes() -> None:
    """No server runs; both sides see the same words, and the path says how."""
    data = os.urandom(300_000)
    async with (
        asyncio.timeout(30),
        host_by_token(loopback=True) as room,
        join_by_token(room.code, loopback=True) as other,
    ):
        room.answer(other.code)
        here, there = await asyncio.gather(room.peer(), other.peer())
        assert here.words == there.words and len(here.words) == 4
        assert here.path is not None and here.path.is_direct
        stream = await here.open_stream()
        await stream.write(data)
        await stream.close()
        assert await (await there.accept_stream()).readexactly(len(data)) == data
        assert here.carried["hub"] == here.carried["relay"] == 0


async def test_a_text_that_is_no_token_is_refused_at_once() -> None:
    """Before anything is sent, on both sides; the hosting side may then paste the right one."""
    with pytest.raises(crowline.WrongCode):
        async with join_by_token("7-maple-orbit-candle", loopback=True):
            pass
    async with asyncio.timeout(30), host_by_token(loopback=True) as room:
        with pytest.raises(crowline.WrongCode):
            room.answer("nonsense")
        with pytest.raises(crowline.WrongCode, match="your own"):
            room.answer(room.code)
        async with join_by_token(room.code, loopback=True) as other:
            room.answer(other.code)
            await asyncio.gather(room.peer(), other.peer())
            with pytest.raises(crowline.UsageError):
                room.answer(other.code)


async def test_whoever_waits_is_told_when_nobody_answers() -> None:
    """`timeout` ends the wait."""
    async with asyncio.timeout(30):
        with pytest.raises(crowline.NobodyCame):
            async with (
                host_by_token(loopback=True) as room,
                join_by_token(room.code, loopback=True, timeout=0.2) as other,
            ):
                await other.peer()


async def test_a_side_that_cannot_be_reached_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence speaks of no server's allowance, since there is no server; it says what would help."""
    monkeypatch.setattr(watch, "PATH_LIMIT", 0.5)
    async with asyncio.timeout(60), host_by_token(loopback=True) as room:
        async with join_by_token(room.code, loopback=True) as other:
            answer = other.code
        room.answer(answer)
        with pytest.raises(crowline.NoPath, match="without a server") as caught:
            await room.peer()
        assert "--stun" in caught.value.hint


async def test_a_server_that_is_none_is_refused() -> None:
    """A name without a port."""
    with pytest.raises(crowline.UsageError):
        async with host_by_token(stun=["stun.example.org"], loopback=True):
            pass
