"""`docs/streams.md` tells the truth: its code runs."""

from __future__ import annotations

import asyncio
import re
import types
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import crowline
from crowline.api.peer import MAX_WAITING_OPENS
from crowline.api.stream import LINE_LIMIT, WRITE_LIMIT
from crowline.session.streams import MAX_STREAMS
from crowline.session.windows import BASE, LARGEST, SPARE
from serving import serving

PAGE = (Path(__file__).parents[2] / "docs" / "streams.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
PATIENCE = 60.0  # seconds until something must have happened


@pytest.fixture(scope="module")
def page() -> Any:
    """What the page defines, run from top to bottom as it promises."""
    module = types.ModuleType("streams_page")
    for number, block in enumerate(BLOCKS):
        exec(compile(block, f"docs/streams.md, block {number}", "exec"), module.__dict__)
    return module


async def test_serve_echo_and_ask(page: Any, capsys: pytest.CaptureFixture[str]) -> None:
    """What one side asks, the other gives back."""
    async with serving() as server, asyncio.timeout(PATIENCE):
        code: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        echoing = asyncio.create_task(page.serve_echo(server.url, code.set_result))
        assert await page.ask(server.url, await code, b"question" * 10_000) == b"question" * 10_000
        await echoing
    assert "because" in capsys.readouterr().out


async def test_report_and_follow(page: Any) -> None:
    """Positions arrive until the connection ends."""
    shown: list[bytes] = []
    arrived = asyncio.Event()

    def show(position: bytes) -> None:
        shown.append(position)
        arrived.set()

    async def positions() -> AsyncIterator[bytes]:
        while not arrived.is_set():
            yield b"48.2 N 16.4 E"
            await asyncio.sleep(0.01)

    async with (
        asyncio.timeout(PATIENCE),
        serving() as server,
        crowline.host(server.url) as room,
    ):
        async with crowline.join(room.code, server.url) as there:
            following = asyncio.create_task(page.follow(await room.peer(), show))
            await page.report(there, positions())
        await following
    assert set(shown) == {b"48.2 N 16.4 E"}


def test_the_numbers_of_the_page_are_those_of_the_code() -> None:
    """Limits that a program may rely on."""
    assert (BASE, LARGEST, BASE * 2 * MAX_STREAMS + SPARE) == (64 << 10, 16 << 20, 48 << 20)
    assert (MAX_STREAMS, MAX_WAITING_OPENS) == (128, 1024)
    assert (LINE_LIMIT, WRITE_LIMIT) == (64 << 10, 1 << 20)
    assert crowline.Peer.max_datagram_size.fget(None) == 65_535  # type: ignore[attr-defined]
