"""When a meeting is given up, and when it is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator

import pytest

from crowline.api import watch
from crowline.api.path_reasons import PathReasons
from crowline.api.paths import PathBook
from crowline.api.watch import PATH_LIMIT, SILENCE_LIMIT, Watch
from crowline.base.errors import CrowlineError, Interrupted, NobodyCame, NoPath
from crowline.session.events import LinkChosen
from crowline.session.session import Session
from serving import serving


class Case:
    """A watch that is asked at any time one likes; nothing is waited for."""

    def __init__(self) -> None:
        self.stuck = True
        self.watch = Watch(is_stuck=lambda: self.stuck, direct_only=False, on_verdict=lambda _: None)
        self.began = asyncio.get_running_loop().time()

    def at(self, seconds: float, *, heard: bool = True) -> CrowlineError | None:
        now = self.began + seconds
        if heard:
            self.watch.heard(now)
        return self.watch._judge(now)


@pytest.fixture
async def case() -> Iterator[Case]:  # type: ignore[misc]
    made = Case()
    yield made
    made.watch.close()


async def test_a_path_must_be_found_in_time(case: Case) -> None:
    """At the beginning, the limit counts from when both are there."""
    assert case.at(PATH_LIMIT - 1) is None
    assert isinstance(case.at(PATH_LIMIT + 1), NoPath)


async def test_a_path_that_is_lost_later_may_be_found_again(case: Case) -> None:
    """A long meeting whose only path breaks has as much time as a new one."""
    case.stuck = False
    assert case.at(600) is None
    case.stuck = True
    assert case.at(601) is None
    assert case.at(601 + PATH_LIMIT - 1) is None
    assert isinstance(case.at(601 + PATH_LIMIT + 1), NoPath)


async def test_silence_ends_it_with_what_can_be_done_about_it(case: Case) -> None:
    """Before bytes could flow nobody came; afterwards it was interrupted."""
    case.stuck = False
    assert isinstance(case.at(SILENCE_LIMIT + 1, heard=False), NobodyCame)
    case.watch.usable = True
    assert isinstance(case.at(SILENCE_LIMIT + 1, heard=False), Interrupted)


async def test_a_side_that_comes_and_never_proves_the_code_is_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """No path can be missing before there is a key."""
    from websockets.asyncio.client import connect

    import crowline
    from crowline.rendezvous import wire
    from crowline.rendezvous.pake import Spake2Pake
    from crowline.rendezvous.role import Role

    monkeypatch.setattr(watch, "PATH_LIMIT", 0.5)
    monkeypatch.setattr(watch, "SILENCE_LIMIT", 1.5)
    element = Spake2Pake(Role.JOIN, bytes(4), os.urandom).element
    async with (
        serving() as server,
        crowline.host(server.url) as room,
        connect(f"{server.url}/v1") as stranger,
    ):
        number = int(room.code.split("-")[0])
        await stranger.send(wire.encode(wire.Claim(1, number, element)).decode())
        with pytest.raises(NobodyCame):
            async with asyncio.timeout(30):
                await room.peer()


def test_a_choice_of_a_link_that_has_ended_meanwhile_is_no_path() -> None:
    """The next choice follows; nothing raises."""
    book = PathBook(Session(initiator=True), "ws://127.0.0.1:1", PathReasons())
    assert book.choose(LinkChosen(7, None, "a better path")) == (None, None)
