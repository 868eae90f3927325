"""The meeting's WebSocket breaks and comes back; whatever happens then, none stays open."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from crowline.api import hub_channel
from crowline.api.hub_channel import HubChannel
from crowline.api.meeting_point import Callbacks
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


def nothing(*arguments: Any) -> None: ...


def quiet(on_returned: Callable[[], None] = nothing) -> Callbacks:
    """Who listens to nothing else."""
    return Callbacks(
        on_event=nothing,
        on_link_data=nothing,
        on_link_down=nothing,
        on_link_room=nothing,
        on_broken=nothing,
        on_returned=on_returned,
        on_closed=nothing,
        on_warning=nothing,
    )


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

    monkeypatch.setattr(HubSocket, "connect", connect)
    monkeypatch.setattr(hub_channel, "RETURN_DELAYS", (0.0,))
    channel = HubChannel(
        broken,  # type: ignore[arg-type]
        QuietMeeting(),  # type: ignore[arg-type]
        quiet(),
    )
    channel.start()
    async with asyncio.timeout(30):
        await broken.is_closing.wait()
        new.may_close.set()
        await channel.close()
    assert broken.closed and new.closed


class OpenSocket(FakeSocket):
    """A WebSocket on which nothing comes until it is cut."""

    def __init__(self) -> None:
        super().__init__()
        self.may_close.set()
        self.is_cut = asyncio.Event()

    def abort(self) -> None:
        self.is_cut.set()

    async def messages(self) -> AsyncIterator[str | bytes]:
        await self.is_cut.wait()
        for message in ():
            yield message


async def test_a_question_dies_with_the_way_by_which_it_was_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new WebSocket is not cut because the one before it brought no answer."""
    first, second = OpenSocket(), OpenSocket()

    async def connect(url: str) -> FakeSocket:
        return second

    returned = asyncio.Event()

    monkeypatch.setattr(HubSocket, "connect", connect)
    monkeypatch.setattr(hub_channel, "RETURN_DELAYS", (0.0,))
    monkeypatch.setattr(hub_channel, "PROOF_LIMIT", 0.2)
    channel = HubChannel(
        first,  # type: ignore[arg-type]
        QuietMeeting(),  # type: ignore[arg-type]
        quiet(returned.set),
    )
    monkeypatch.setattr(QuietMeeting, "ping", nothing, raising=False)
    channel.start()
    channel.verify()
    first.abort()
    async with asyncio.timeout(30):
        await returned.wait()
    assert channel.socket is second and channel._proof_timer is None
    channel.verify()
    async with asyncio.timeout(30):
        await second.is_cut.wait()
    await channel.close()


@pytest.mark.parametrize("turns", range(6))
async def test_whoever_stops_reaching_for_a_hub_leaves_no_connection(
    monkeypatch: pytest.MonkeyPatch, turns: int
) -> None:
    """Not even one that comes about in that very moment."""
    monkeypatch.setattr(hub_channel, "warm_up", lambda: None)
    connected = asyncio.Event()
    made: list[HubSocket] = []

    class Made(HubSocket):
        def __init__(self) -> None:
            self.closed = False

        async def close(self) -> None:
            self.closed = True

    async def connect(url: str) -> HubSocket:
        await connected.wait()
        made.append(Made())
        return made[0]

    monkeypatch.setattr(HubSocket, "connect", connect)
    reaching = asyncio.create_task(hub_channel.reach_hub("ws://hub.example"))
    for _ in range(4):
        await asyncio.sleep(0)
    connected.set()
    for _ in range(turns):
        await asyncio.sleep(0)
    reaching.cancel()
    [outcome] = await asyncio.gather(reaching, return_exceptions=True)
    assert outcome in made or all(each.closed for each in made)  # type: ignore[attr-defined]
