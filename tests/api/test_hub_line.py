"""One meeting point after the other: what is heard, what is left, and how often the next one is sought."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from crowline.api import hub_line
from crowline.api.hub_line import HubLine
from crowline.api.meeting_point import Callbacks
from crowline.base.errors import ServerUnreachable
from crowline.rendezvous.events import PeerReturned
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Hello


class Point:
    """Notes what is done with it."""

    def __init__(self, callbacks: Callbacks) -> None:
        self.callbacks = callbacks
        self.told: list[Any] = []

    def start(self, traversal: Any) -> None:
        self.told.append("start")

    def signal(self, signal: Any) -> None:
        self.told.append(signal)

    def verify(self) -> None:
        self.told.append("verify")

    async def close(self) -> None:
        self.told.append("close")


class Town:
    """A place; the first `away` attempts to get there fail."""

    def __init__(self, away: int = 0) -> None:
        self.points: list[Point] = []
        self.attempts = 0
        self.on_attempt: Callable[[], None] = lambda: None
        self._away = away

    async def open(self, role: Role, code: None, callbacks: Callbacks) -> Point:
        self.attempts += 1
        self.on_attempt()
        if self.attempts <= self._away:
            raise ServerUnreachable
        self.points.append(Point(callbacks))
        return self.points[-1]


class Line:
    """A line that has begun at `first`."""

    def __init__(self) -> None:
        self.events: list[object] = []
        self.first = Town()
        nothing: Any = lambda *_: None  # noqa: E731
        callbacks = Callbacks(
            self.events.append, nothing, nothing, nothing, nothing, nothing, nothing, nothing
        )
        self.line = HubLine(
            self.first,  # type: ignore[arg-type]
            Role.HOST,
            None,
            callbacks,
            on_next=lambda: self.line.signal(Hello("first words")),
        )

    async def begin(self) -> None:
        await self.line.open()
        self.line.start(None)  # type: ignore[arg-type]
        self.line._traversal = object()  # type: ignore[assignment]

    async def found(self, town: Town) -> None:
        async with asyncio.timeout(30):
            while self.line.is_seeking:  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub_line, "DELAYS", (0.0, 0.001))


async def test_the_next_meeting_is_sought_until_it_is_found() -> None:
    """The first words are queued before it begins; the meeting before is left."""
    case, town = Line(), Town(away=3)
    await case.begin()
    assert case.line.is_first
    case.line.seek(town)  # type: ignore[arg-type]
    case.line.signal(Hello("between two meetings"))
    await case.found(town)
    assert town.attempts == 4 and not case.line.is_first
    assert town.points[0].told == [Hello("first words"), "start"]
    await case.line.close()
    assert case.first.points[0].told == ["start", "close"] and town.points[0].told[-1] == "close"


async def test_who_seeks_already_does_not_seek_twice() -> None:
    """However many reasons there are to look for the other side."""
    case, town = Line(), Town(away=1)
    await case.begin()
    for _ in range(5):
        case.line.seek(town)  # type: ignore[arg-type]
    await case.found(town)
    assert town.attempts == 2 and len(town.points) == 1
    await case.line.close()


async def test_an_earlier_meeting_is_not_heard_any_more() -> None:
    """What it says late, such as of its own end, belongs to the past."""
    case, town = Line(), Town()
    await case.begin()
    before = case.first.points[0].callbacks
    before.on_event(PeerReturned())
    case.line.seek(town)  # type: ignore[arg-type]
    before.on_event(PeerReturned())
    await case.found(town)
    before.on_event(PeerReturned())
    assert len(case.events) == 1
    town.points[0].callbacks.on_event(PeerReturned())
    assert len(case.events) == 2
    await case.line.close()


async def test_news_of_the_network_during_an_attempt_make_the_next_one_come_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The attempt may have begun before the network was there again."""
    monkeypatch.setattr(hub_line, "DELAYS", (0.0, 3600.0))
    case, town = Line(), Town(away=1)
    town.on_attempt = lambda: case.line.follow(())
    await case.begin()
    case.line.verify()
    case.line.seek(town)  # type: ignore[arg-type]
    await case.found(town)
    assert town.attempts == 2
    await case.line.close()


async def test_closing_ends_the_search() -> None:
    """Nothing is left behind when the place is never found."""
    case, town = Line(), Town(away=10**9)
    await case.begin()
    case.line.seek(town)  # type: ignore[arg-type]
    await asyncio.sleep(0.01)
    await case.line.close()
    assert not case.line.is_seeking and case.line.point is None
