"""Chats between two sides of a meeting in one process, through a real server on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import TypeVar

import pytest

import crowline
from crowline.api import chat as chat_api
from crowline.api.chat import (
    MAX_TEXT,
    Arrived,
    Chat,
    ChatEvent,
    Delivered,
    PeerAway,
    PeerLeft,
    PeerTyping,
    Reachable,
    Read,
)
from crowline.chat.messages import Away, Marks, Say, Typing, encode
from crowline.server.server import Server
from serving import serving

PATIENCE = 30.0  # seconds for anything that must happen here
E = TypeVar("E", bound=ChatEvent)


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


@asynccontextmanager
async def speaking(chat: Chat, peer: crowline.Peer) -> AsyncIterator[asyncio.Task[None]]:
    task = asyncio.create_task(chat.run(peer))
    try:
        yield task
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError, crowline.CrowlineError):
            await task


@asynccontextmanager
async def two_chats(server: Server) -> AsyncIterator[tuple[Chat, Chat]]:
    """The host's and the other side's, each with a first message that was said before they met."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        host, join = Chat(), Chat()
        host.say("hello from the host")
        join.say("hello from over there")
        async with speaking(host, await room.peer()), speaking(join, there):
            yield host, join


async def wanted(chat: Chat, kind: type[E]) -> E:
    """The next event of that kind; those before it are left out."""
    async with asyncio.timeout(PATIENCE):
        async for event in chat.events():
            if isinstance(event, kind):
                return event
    raise AssertionError(f"the chat ended before {kind}")


async def test_what_was_said_before_arrives_first(server: Server) -> None:
    """And is marked as delivered, then as read; then a word about writing and about being away."""
    async with two_chats(server) as (host, join):
        assert await wanted(join, Arrived) == Arrived(1, "hello from the host")
        assert await wanted(host, Arrived) == Arrived(1, "hello from over there")
        assert await wanted(host, Delivered) == Delivered(1)
        assert not host.undelivered
        join.saw(1)
        assert await wanted(host, Read) == Read(1)
        host.typed()
        assert await wanted(join, PeerTyping) == PeerTyping(True)
        host.away("lunch")
        assert await wanted(join, PeerAway) == PeerAway(True, "lunch")


async def test_a_chat_ends_when_everything_is_delivered(server: Server) -> None:
    """The other side gets it all, then hears that this one left."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        host, join = Chat(), Chat()
        for number in range(500):
            host.say(f"line {number}")
        host.end()
        async with speaking(join, there), speaking(host, await room.peer()) as running:
            async with asyncio.timeout(PATIENCE):
                told = [event async for event in join.events()]
                await running
            assert not host.undelivered
    assert [event.text for event in told if isinstance(event, Arrived)] == [f"line {n}" for n in range(500)]
    assert told[-1] == PeerLeft()


async def test_a_chat_goes_on_with_the_same_person_in_another_meeting(server: Server) -> None:
    """What was not delivered comes first, numbers go on, and being away is told again."""
    host = Chat()
    host.say("one")
    async with asyncio.timeout(PATIENCE):
        async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
            first = Chat()
            first.say("a")
            async with speaking(first, there):
                speaker = asyncio.create_task(host.run(await room.peer(), stays=True))
                assert await wanted(host, Arrived) == Arrived(1, "a")
                assert await wanted(host, Delivered) == Delivered(1)
                host.away("lunch")
                assert await wanted(first, PeerAway) == PeerAway(True, "lunch")
                first.end()
                assert await wanted(host, PeerLeft)
                await speaker
        assert host.say("two") == 2
        assert [said.number for said in host.undelivered] == [2]
        async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
            second = Chat()
            second.say("b")
            async with speaking(second, there), speaking(host, await room.peer()):
                assert await wanted(second, Arrived) == Arrived(1, "two")
                assert await wanted(second, PeerAway) == PeerAway(True, "lunch")
                assert await wanted(host, Arrived) == Arrived(2, "b")
                second.saw(1)
                assert await wanted(host, Read) == Read(2)
                host.saw(2)
                assert await wanted(second, Read) == Read(1)
    assert not host.undelivered


async def test_a_side_that_runs_something_else_is_named(server: Server) -> None:
    """In the sentence of the error, on the side that chats."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        async with asyncio.timeout(PATIENCE):
            peer = await room.peer()
            stream = await peer.open_stream()
            await stream.write(b"crowline/pipe 1\n")
            with pytest.raises(crowline.ProtocolViolation, match="runs `crowline pipe`"):
                await Chat().run(there)


async def test_who_does_not_listen_may_still_say_everything(server: Server) -> None:
    """What is told of marks does not pile up until nothing goes on."""
    async with two_chats(server) as (host, join), asyncio.timeout(PATIENCE):
        listening = asyncio.create_task(_listen(join))
        for number in range(1000):
            await host.has_room(10)
            host.say(str(number))
        host.end()
        await host.all_said()
        listening.cancel()
        with suppress(asyncio.CancelledError):
            await listening
        assert len(host._events) <= 3


async def test_who_waits_for_room_is_never_refused(server: Server) -> None:
    """However long the messages: what is kept is counted in characters too."""
    chat = Chat()

    async def write() -> None:
        for _ in range(300):
            await chat.has_room()
            chat.say("x" * MAX_TEXT)
        chat.end()

    writing = asyncio.create_task(write())
    for _ in range(3):
        await asyncio.sleep(0)
    assert not writing.done()
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        other = Chat()
        listening = asyncio.create_task(_listen(other))
        async with speaking(other, there), asyncio.timeout(PATIENCE):
            await chat.run(await room.peer())
            await writing
        await listening
    assert not chat.undelivered


async def test_what_came_is_marked_before_leaving() -> None:
    """Also where it came together with the last mark that this side waited for."""
    chat, stream = Chat(), Script(encode(Say(1, "hello")) + encode(Marks(1)))
    chat.say("bye")
    chat.end()
    async with asyncio.timeout(PATIENCE):
        await chat.run(Scripted(stream))  # type: ignore[arg-type]
    assert stream.written[-1] == encode(Marks(1))


async def test_a_path_that_never_came_back_is_not_said_to_be_back() -> None:
    """It is when there is another one, in a later meeting."""
    chat, peer = Chat(), Scripted(Script())
    peer.silence = 60.0
    running = asyncio.create_task(chat.run(peer, stays=True))  # type: ignore[arg-type]
    assert await wanted(chat, Reachable) == Reachable(False)
    peer.stream.over.set_exception(crowline.Interrupted())
    with pytest.raises(crowline.Interrupted):
        await running
    assert not chat._events
    async with speaking(chat, Scripted(Script())):  # type: ignore[arg-type]
        assert await wanted(chat, Reachable) == Reachable(True)


async def test_another_process_of_the_same_person_neither_writes_nor_is_away() -> None:
    """What the killed one said of its person ends when the next one is met."""
    chat, peer = Chat(), Scripted(Script(encode(Typing(True)) + encode(Away(True, "lunch"))))
    chat.say("hello")
    running = asyncio.create_task(chat.run(peer, stays=True))  # type: ignore[arg-type]
    assert await wanted(chat, PeerTyping) == PeerTyping(True)
    assert await wanted(chat, PeerAway) == PeerAway(True, "lunch")
    peer.stream.over.set_exception(crowline.Interrupted())
    with pytest.raises(crowline.Interrupted):
        await running
    async with speaking(chat, Scripted(Script())):  # type: ignore[arg-type]
        assert await wanted(chat, PeerTyping) == PeerTyping(False)
        assert await wanted(chat, PeerAway) == PeerAway(False, "")


class Script:
    """A stream on which the other side answers `words` when it has heard something, and then nothing."""

    def __init__(self, words: bytes = b"") -> None:
        self.written: list[bytes] = []
        self.over: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self._words = words
        self._was_written = asyncio.Event()

    async def write(self, data: bytes) -> None:
        self.written.append(data)
        if len(self.written) > 1:
            self._was_written.set()

    async def readline(self) -> bytes:
        return chat_api.SERVICE.line

    async def read(self, limit: int) -> bytes:
        if not self._words:
            return await self.over
        await self._was_written.wait()
        words, self._words = self._words, b""
        return words

    async def close(self) -> None: ...


class Scripted:
    """A peer with that stream."""

    def __init__(self, stream: Script) -> None:
        self.is_host = False
        self.silence = 0.0
        self.stream = stream

    async def accept_stream(self) -> Script:
        return self.stream


async def _listen(chat: Chat) -> None:
    async for event in chat.events():
        if isinstance(event, Arrived):
            chat.saw(event.number)


async def test_a_side_that_breaks_the_protocol_ends_the_chat(server: Server) -> None:
    """With an error, and with the events from before it."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        async with asyncio.timeout(PATIENCE):
            peer = await room.peer()
            stream = await peer.open_stream()
            await stream.write(b"crowline/chat 1\n\xff\xff\xff\xff")
            chat = Chat()
            with pytest.raises(crowline.ProtocolViolation):
                await chat.run(there)
            assert [event async for event in chat.events()] == []


class Silent:
    """A peer of which nothing has been heard for some seconds."""

    def __init__(self) -> None:
        self.silence = 0.0


@pytest.mark.parametrize("owes", [False, True])
async def test_who_is_out_of_reach_is_told_of(monkeypatch: pytest.MonkeyPatch, owes: bool) -> None:
    """Sooner where there is something to be heard of; and when it is over, once each."""
    monkeypatch.setattr(chat_api, "_LOOK_INTERVAL", 0.0)
    monkeypatch.setattr(chat_api, "ANSWER_LIMIT", 0.0)
    chat, peer = Chat(), Silent()
    if owes:
        chat.say("are you there?")
    peer.silence = 1.0
    looking = asyncio.create_task(chat._look(peer))  # type: ignore[arg-type]
    for _ in range(100):
        await asyncio.sleep(0)
    assert bool(chat._events) is owes
    peer.silence = 60.0
    assert await wanted(chat, Reachable) == Reachable(False)
    monkeypatch.setattr(chat_api, "ANSWER_LIMIT", 5.0)
    peer.silence = 1.0
    assert await wanted(chat, Reachable) == Reachable(True)
    looking.cancel()
    with suppress(asyncio.CancelledError):
        await looking
    chat.stop()
    assert [event async for event in chat.events()] == []


async def test_a_program_that_does_not_listen_stops_the_other_side(server: Server) -> None:
    """What comes is not piled up: the other side's messages wait over there."""
    count = 2000
    async with two_chats(server) as (host, join):
        for number in range(count):
            host.say("x" * 1000 + str(number))
        await wanted(host, Delivered)
        assert len(join._events) < chat_api._EVENTS + chat_api._READ_BYTES
        texts = []
        async with asyncio.timeout(PATIENCE):
            async for event in join.events():
                if isinstance(event, Arrived):
                    texts.append(event.text)
                if len(texts) == count + 1:
                    break
        assert texts[-1].endswith(str(count - 1))
