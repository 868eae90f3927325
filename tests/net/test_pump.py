"""The pump drives any machine: what it gives is sent, its events handed on, its one timer kept."""

from __future__ import annotations

import asyncio
from collections import deque

import pytest

from crowline.net.pump import Pump


class Countdown:
    """Says `n` every 10 ms until zero; an event may ask for another flush."""

    def __init__(self, start: int) -> None:
        self.left = start
        self.at: float | None = None
        self.out: deque[int] = deque()
        self.events: deque[str] = deque()

    def begin(self, now: float) -> None:
        self.at = now + 0.01

    def handle_timeout(self, now: float) -> None:
        assert self.at is not None and now >= self.at
        self.out.append(self.left)
        self.left -= 1
        self.at = now + 0.01 if self.left else None
        if not self.left:
            self.events.append("done")

    def next_timeout(self) -> float | None:
        return self.at

    def next_transmit(self) -> int | None:
        return self.out.popleft() if self.out else None

    def next_event(self) -> str | None:
        return self.events.popleft() if self.events else None


async def test_the_timer_follows_the_machine() -> None:
    """Each deadline is met once, and the last event ends it."""
    machine = Countdown(3)
    sent: list[int] = []
    done = asyncio.Event()
    pump = Pump[int, str](machine, sent.append, lambda _: done.set())
    machine.begin(pump.now)
    pump.flush()
    async with asyncio.timeout(30):
        await done.wait()
    assert sent == [3, 2, 1]


async def test_a_send_that_raises_stops_no_timer() -> None:
    """Its caller hears of it, and what is due later is still sent."""
    machine = Countdown(1)
    sent: asyncio.Queue[int] = asyncio.Queue()

    def send(number: int) -> None:
        if number == 42:
            raise OSError("no such datagram")
        sent.put_nowait(number)

    pump = Pump[int, str](machine, send, lambda _: None)
    machine.out.append(42)
    machine.begin(pump.now)
    with pytest.raises(OSError, match="no such datagram"):
        pump.flush()
    async with asyncio.timeout(30):
        assert await sent.get() == 1


async def test_an_event_handler_may_flush_again() -> None:
    """What a handler makes the machine say is sent before the outer flush returns."""
    machine = Countdown(1)
    sent: list[int] = []

    def handle(event: str) -> None:
        if event == "again":
            machine.out.append(42)
            pump.flush()

    pump = Pump[int, str](machine, sent.append, handle)
    machine.events.extend(["again", "again"])
    pump.flush()
    assert sent == [42, 42]


async def test_an_owner_may_do_more_when_the_time_has_come() -> None:
    """What the machine says by its timer passes through the owner's hands, like everything else."""
    machine = Countdown(1)
    sent: list[int] = []
    later: list[int] = []
    done = asyncio.Event()

    def flush() -> None:
        pump.flush()
        later.extend(sent)

    pump = Pump[int, str](machine, sent.append, lambda _: done.set(), on_timeout=flush)
    machine.begin(pump.now)
    pump.flush()
    async with asyncio.timeout(30):
        await done.wait()
        await asyncio.sleep(0)
    assert later == [1]


async def test_a_closed_pump_calls_nothing() -> None:
    """Neither its timer nor a flush reaches the machine."""
    machine = Countdown(1)
    sent: list[int] = []
    pump = Pump[int, str](machine, sent.append, lambda _: None)
    machine.begin(pump.now)
    pump.flush()
    pump.close()
    machine.out.append(9)
    pump.flush()
    await asyncio.sleep(0.03)
    assert sent == [] and machine.left == 1


async def test_closing_from_a_handler_stops_at_once() -> None:
    """No further event is handed on."""
    machine = Countdown(1)
    seen: list[str] = []

    def handle(event: str) -> None:
        seen.append(event)
        pump.close()

    pump = Pump[int, str](machine, lambda _: None, handle)
    machine.events.extend(["one", "two"])
    pump.flush()
    assert seen == ["one"]
