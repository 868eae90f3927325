"""When a chat with a known peer meets that again, and when it ends."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import pytest

from crowline.api.chat import Chat, ChatEvent, PeerAway, PeerLeft, PeerTyping, Reachable
from crowline.base.errors import Interrupted, PeerRestarted, Refused, ServerUnreachable
from crowline.cli import chat as chat_command
from crowline.cli.chat_lines import notice
from crowline.cli.output import Output
from crowline.cli.place import PlaceFlags

PATIENCE = 30.0  # seconds for anything that must happen here


class Meetings:
    """What becomes of one meeting after the other: an error, or None for an end in good order."""

    def __init__(self, *ends: Exception | None) -> None:
        self._ends = list(ends)
        self.count = 0
        self.all_over = asyncio.Event()
        self.told: list[str] = []
        self.has_met = self.has_ever_met = False

    def tell(self, sentence: str) -> None:
        self.told.append(sentence)

    async def once(self, _: object, *, stays: bool) -> None:
        assert stays
        if not self._ends:
            await asyncio.Event().wait()
        self.count += 1
        self.has_met = self.has_ever_met = True
        await asyncio.sleep(0)
        self.has_met = False
        end = self._ends.pop(0)
        if not self._ends:
            self.all_over.set()
        if end is not None:
            raise end


async def run(meetings: Any, talk: Chat, *, stays: bool) -> None:
    async with asyncio.timeout(PATIENCE):
        await chat_command._again_and_again(meetings, talk, meetings.once, stays=stays)


@pytest.fixture(autouse=True)
async def at_once(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    monkeypatch.setattr(chat_command, "_PAUSE", 0.0)
    yield


async def test_the_end_of_a_meeting_is_the_end() -> None:
    """Where nobody stays."""
    meetings = Meetings(None, None)
    await run(meetings, Chat(), stays=False)
    assert meetings.count == 1 and not meetings.told


@pytest.mark.parametrize("stays", [False, True])
async def test_another_process_of_the_other_side_is_met_at_once(stays: bool) -> None:
    """Whoever started anew wants to go on."""
    meetings = Meetings(PeerRestarted(), None)
    talk = Chat()
    running = asyncio.create_task(run(meetings, talk, stays=stays))
    await meetings.all_over.wait()
    talk.end()
    await running
    assert len(meetings.told) == 1


async def test_who_stays_tries_again_after_everything_that_may_pass() -> None:
    """Until everything is said."""
    meetings = Meetings(None, Interrupted(), ServerUnreachable(), None)
    talk = Chat()
    running = asyncio.create_task(run(meetings, talk, stays=True))
    await meetings.all_over.wait()
    assert not running.done()
    talk.end()
    await running
    assert len(meetings.told) == 2 and all("Trying again" in sentence for sentence in meetings.told)


@pytest.mark.parametrize("error", [Refused(), Interrupted(), ServerUnreachable()])
async def test_what_another_meeting_would_not_mend_is_raised(error: Exception) -> None:
    """And, where nobody stays, every other error."""
    with pytest.raises(type(error)):
        await run(Meetings(error), Chat(), stays=False)


async def test_a_server_that_was_never_reached_is_an_error() -> None:
    """A wrong name is not tried for ever."""
    talk = Chat()

    async def once(_: object, *, stays: bool) -> None:
        raise ServerUnreachable

    unmet: Any = SimpleNamespace(has_met=False, has_ever_met=False, tell=lambda sentence: None)
    with pytest.raises(ServerUnreachable):
        await chat_command._again_and_again(unmet, talk, once, stays=True)


async def test_who_cannot_be_shown_anything_leaves_with_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where standard output is a file on a full disk: what comes later is not lost without a word."""

    class Full:
        def show(self, event: object) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        async def listen(self) -> None:
            await asyncio.Event().wait()

        def close(self) -> None: ...

    monkeypatch.setattr(chat_command, "_voice", lambda *_: Full())
    talk = Chat()
    place = PlaceFlags(False, False, None, None, "", ())
    conversation = chat_command._Conversation(Output(), talk, place)
    conversation.open()
    for on in (False, True):
        talk._set_reachable(on)
    async with asyncio.timeout(PATIENCE):
        await talk.all_said()
        await conversation.close()
    assert conversation.problem is not None and "No space left" in conversation.problem.message


@pytest.mark.parametrize(
    ("event", "expected"),
    [
        (PeerLeft(), "ana left."),
        (PeerAway(True, ""), "ana is away."),
        (PeerAway(True, "lunch"), "ana is away: lunch"),
        (PeerAway(False, ""), "ana is back."),
        (Reachable(True), "ana can be reached again."),
        (PeerTyping(True), None),
    ],
)
def test_people_are_told_in_sentences(event: ChatEvent, expected: str | None) -> None:
    """Of all but what has a sign of its own."""
    assert notice(event, "ana") == expected
