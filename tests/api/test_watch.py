"""When a meeting is given up, and when it is not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from itertools import pairwise

import pytest

from crowline.api import watch
from crowline.api.path_reasons import PathReasons
from crowline.api.paths import PathBook
from crowline.api.watch import (
    HUNG_UP_LIMIT,
    PATH_LIMIT,
    SEEK_AFTER,
    SILENCE_LIMIT,
    TELL_AFTER,
    VERIFY_AFTER,
    Watch,
)
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


class Outage:
    """A session in which bytes have flowed by a pair; the seconds of its watch go by one after the other."""

    def __init__(self, deadline: float = 600.0) -> None:
        self.lost_at: float | None = None
        self.is_stuck = False
        self.done: list[tuple[float, str]] = []
        self.watch = Watch(
            is_stuck=lambda: self.is_stuck,
            direct_only=False,
            on_verdict=lambda _: None,
            rescuer=self,
            lost_since=lambda: None if self.lost_at is None else self.began + self.lost_at,
            deadline=deadline,
        )
        self.watch.usable = self.watch.has_had_pair = True
        self.began = asyncio.get_running_loop().time()
        self.second = 0.0

    def tell_lost(self) -> None:
        self._note("tell")

    def verify(self) -> None:
        self._note("verify")

    def begin_anew(self) -> None:
        self._note("anew")

    def seek(self, *, is_absent: bool) -> None:
        self._note("seek the absent" if is_absent else "seek")

    def _note(self, what: str) -> None:
        self.done.append((self.second, what))

    def when(self, what: str) -> list[float]:
        return [second for second, done in self.done if done == what]

    def leave(self, *, is_silent: bool) -> None:
        """The hub says so now."""
        self.watch.left(is_silent=is_silent)
        self.watch._left_at = self.began + self.second

    def run(self, seconds: float, *, heard: bool = False) -> CrowlineError | None:
        """The verdict in that time, if there is one."""
        end = self.second + seconds
        while self.second < end:
            self.second += 1.0
            if heard:
                self.watch.heard(self.began + self.second)
            if (verdict := self.watch._judge(self.began + self.second)) is not None:
                return verdict
        return None

    def lose(self) -> None:
        self.lost_at = self.second


@pytest.fixture
async def outage() -> Iterator[Outage]:  # type: ignore[misc]
    made = Outage()
    yield made
    made.watch.close()


async def test_what_can_be_done_is_done_in_its_order(outage: Outage) -> None:
    """The hub is tried soon and often, pairs are sought anew ever less often, people are told once."""
    assert outage.run(100, heard=True) is None and outage.done == []
    outage.lose()
    assert outage.run(400) is None
    assert outage.when("tell") == [100 + TELL_AFTER]
    verified = outage.when("verify")
    assert verified[0] == 100 + VERIFY_AFTER and len(verified) == 80
    anew = outage.when("anew")
    gaps = [later - before for before, later in pairwise(anew)]
    assert gaps == [16, 32, 60, 60, 60, 60, 60]
    assert outage.when("seek")[0] == 100 + SEEK_AFTER and not outage.when("seek the absent")


async def test_a_session_without_any_path_lives_until_its_deadline(outage: Outage) -> None:
    """And no second longer than that; the hint says how it goes on."""
    outage.lose()
    assert outage.run(600) is None
    verdict = outage.run(2)
    assert isinstance(verdict, Interrupted) and "same command" in verdict.hint


async def test_an_outage_that_ends_counts_for_nothing(outage: Outage) -> None:
    """The next one has all the time again, and people are told again."""
    for _ in range(3):
        outage.lose()
        assert outage.run(599) is None
        outage.lost_at = None
        assert outage.run(5, heard=True) is None
    assert len(outage.when("tell")) == 3


async def test_a_process_that_hung_up_is_not_waited_for_long(outage: Outage) -> None:
    """Its connection to the hub was closed without a word, and by no path anything comes."""
    outage.leave(is_silent=False)
    outage.lose()
    assert outage.run(HUNG_UP_LIMIT) is None
    assert outage.when("seek the absent")
    assert isinstance(outage.run(2), Interrupted)


async def test_a_side_that_fell_silent_is_waited_for(outage: Outage) -> None:
    """A lid that was closed may be opened again: nobody saw it go."""
    outage.leave(is_silent=True)
    outage.lose()
    assert outage.run(590) is None
    assert isinstance(outage.run(20), Interrupted)


async def test_a_side_that_hung_up_and_is_there_by_a_path_stays(outage: Outage) -> None:
    """The hub is not needed for that."""
    outage.leave(is_silent=False)
    assert outage.run(3600, heard=True) is None


async def test_a_side_that_lost_the_hub_alone_has_not_hung_up(outage: Outage) -> None:
    """It was heard by a path long after its connection to the hub had ended; when that path breaks too, it
    has all the time.
    """
    outage.leave(is_silent=False)
    assert outage.run(60, heard=True) is None
    outage.lose()
    assert outage.run(590) is None
    assert isinstance(outage.run(20), Interrupted)


async def test_a_side_that_came_back_may_be_silent_again(outage: Outage) -> None:
    """What it did before it came back is forgotten."""
    outage.leave(is_silent=False)
    outage.lose()
    assert outage.run(20) is None
    outage.watch.returned()
    assert outage.run(300) is None


async def test_silence_counts_from_the_last_word(outage: Outage) -> None:
    """Where no link is known to have failed, but nothing comes by any."""
    outage.watch.heard(outage.began)
    assert outage.run(SILENCE_LIMIT) is None and not outage.done
    assert outage.run(2) is None
    assert outage.when("tell") == [SILENCE_LIMIT + 1]


async def test_link_zero_alone_that_is_used_up_ends_it(outage: Outage) -> None:
    """Where nothing else ever worked there is nothing to wait for; where something did, there is."""
    outage.is_stuck = True
    assert outage.run(60, heard=True) is None
    outage.watch.has_had_pair = False
    assert isinstance(outage.run(PATH_LIMIT + 2, heard=True), NoPath)


def test_a_choice_of_a_link_that_has_ended_meanwhile_is_no_path() -> None:
    """The next choice follows; nothing raises."""
    book = PathBook(Session(initiator=True), "ws://127.0.0.1:1", PathReasons())
    assert book.choose(LinkChosen(7, None, "a better path")) == (None, None)
