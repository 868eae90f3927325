"""The meeting's WebSocket breaks and comes back; whatever happens then, none stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from crowline.api import hub_channel
from crowline.api.hub_channel import HubChannel
from crowline.net.websocket import HubSocket


class FakeSocket:
    """A WebSocket that has ended; closing it takes until `may_close`."""

    url = "ws://hub.example"
    queued = 0

    def __init__(self) -> None:
        self.is_closing = asyncio.Event()
        self.may_close = asyncio.Event()
        self.closed = False

    def send(self, message: str | bytes) -> None: ...

    async def messages(self) -> AsyncIterator[str | bytes]:
        return
        yield b""

    async def close(self) -> None:
        self.is_closing.set()
        try:
            await self.may_close.wait()
        finally:
            self.closed = True


class QuietMeeting:
    """Has nothing to say."""

    def open(self, now: float) -> None: ...

    def reopen(self, now: float) -> None: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_timeout(self) -> None: ...

    def next_transmit(self) -> None: ...

    def next_event(self) -> None: ...


async def test_closing_while_the_broken_socket_is_left_closes_the_new_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The channel answers for a WebSocket from the moment that it is open."""
    broken, new = FakeSocket(), FakeSocket()

    async def connect(url: str) -> FakeSocket:
        return new

    def nothing(*arguments: Any) -> None: ...

    monkeypatch.setattr(HubSocket, "connect", connect)
    monkeypatch.setattr(hub_channel, "RETURN_DELAYS", (0.0,))
    channel = HubChannel(
        broken,  # type: ignore[arg-type]
        QuietMeeting(),  # type: ignore[arg-type]
        on_event=nothing,
        on_link_data=nothing,
        on_link_down=nothing,
        on_link_room=nothing,
        on_broken=nothing,
        on_returned=nothing,
        on_closed=nothing,
    )
    channel.start()
    async with asyncio.timeout(30):
        await broken.is_closing.wait()
        new.may_close.set()
        await channel.close()
    assert broken.closed and new.closed
