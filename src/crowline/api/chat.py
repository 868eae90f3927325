"""A chat with the other side: text over one stream of the session, from the first path on."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import suppress

from crowline.api.peer import Peer, Stream
from crowline.api.service import Service, agreed_stream
from crowline.base.errors import CrowlineError, ProtocolViolation
from crowline.chat.events import (
    Arrived,
    Broken,
    ChatEvent,
    Delivered,
    PeerAway,
    PeerLeft,
    PeerTyping,
    Reachable,
    Read,
)
from crowline.chat.messages import MAX_TEXT
from crowline.chat.pages import pages
from crowline.chat.talk import Said, Talk
from crowline.net.standard_streams import StandardInput

__all__ = [
    "MAX_TEXT",
    "Arrived",
    "Broken",
    "Chat",
    "ChatEvent",
    "Delivered",
    "PeerAway",
    "PeerLeft",
    "PeerTyping",
    "Reachable",
    "Read",
    "Said",
    "keyboard",
    "pages",
]

SERVICE = Service("chat")


def keyboard() -> StandardInput:
    """What comes by standard input, as it comes."""
    return StandardInput()


# Seconds without a word from the other side, whose paths are asked every 5 s, until it is out of reach; the
# same while it owes an answer; and between two looks.
SILENCE_LIMIT = 8.0
ANSWER_LIMIT = 3.0
_LOOK_INTERVAL = 0.25
# Events that wait for the program, above which nothing more is read, and bytes of one read.
_EVENTS = 256
_READ_BYTES = 16_384


class Chat:
    """One side of a chat. What is said before the other side is there, or while no path leads to it, is kept,
    and delivered as soon as one does.

    `say`, `typed`, `away` and `saw` are heard at once; `run` speaks with a peer; `events` tells the rest.

    `run` may be called again with another peer that is the same person: what the earlier one did not get is
    said again. Numbers go on counting.
    """

    def __init__(self) -> None:
        self._talk = Talk()
        self._is_fresh = True
        # What the messages of both sides are counted from, in the present talk.
        self._said_before = self._heard_before = 0
        self._note: str | None = None
        self._loop = asyncio.get_running_loop()
        self._events: deque[ChatEvent] = deque()
        self._has_events = asyncio.Event()
        self._has_room = asyncio.Event()
        self._wake = asyncio.Event()
        self._was_delivered = asyncio.Event()
        self._is_over = False
        self._is_ending = False
        self._is_reachable = True

    @property
    def undelivered(self) -> tuple[Said, ...]:
        """This side's messages that the other side does not have yet, as far as is known."""
        return tuple(Said(self._said_before + said.number, said.text) for said in self._talk.undelivered)

    def say(self, text: str) -> int:
        """The number of that message, which `Delivered` and `Read` name. Raises `UsageError` for none, for a
        text of more than `MAX_TEXT` characters (`pages` cuts one), and where too much waits already.
        """
        number = self._talk.say(text)
        self._wake.set()
        return self._said_before + number

    async def has_room(self, most: int = 1000) -> None:
        """Wait while more than `most` messages are not delivered, or very long ones; for who says more than a
        person does.
        """
        while (self._talk.waiting > most or not self._talk.has_room) and not self._is_over:
            self._was_delivered.clear()
            await self._was_delivered.wait()

    def typed(self) -> None:
        """This side's person pressed a key."""
        self._talk.typed(self._loop.time())
        self._wake.set()

    def away(self, note: str | None) -> None:
        """This side's person is away, with a line of at most 200 characters, or back (None)."""
        self._note = note
        self._talk.away(note)
        self._wake.set()

    def saw(self, number: int) -> None:
        """This side's person has seen the other's messages up to `number`."""
        self._talk.saw(number - self._heard_before)
        self._wake.set()

    def end(self) -> None:
        """Say nothing more: `run` returns as soon as everything said is delivered."""
        self._is_ending = True
        self._wake.set()
        self._was_delivered.set()

    async def all_said(self) -> None:
        """Wait until this side has ended, and everything that it said is delivered."""
        while not self._is_done:
            self._was_delivered.clear()
            await self._was_delivered.wait()

    async def events(self) -> AsyncIterator[ChatEvent]:
        """What happens, in order, until the chat is over. The other side is not read faster than this is; of
        what is no message only the latest of its kind is told.
        """
        while True:
            while self._events:
                event = self._events.popleft()
                self._has_room.set()
                yield event
            if self._is_over:
                return
            self._has_events.clear()
            await self._has_events.wait()

    async def run(self, peer: Peer, *, stays: bool = False) -> None:
        """Speak until either side ends the chat. With `stays` the end of this is not that of `events`.

        Raises `ProtocolViolation` where the other side runs something else or breaks the protocol, and what
        ended the connection.
        """
        if not self._is_fresh:
            self._begin_again()
        self._is_fresh = False
        try:
            stream = await agreed_stream(peer, SERVICE)
            self._set_reachable(True)
            await self._converse(stream, peer)
        finally:
            if not stays:
                self.stop()

    def stop(self) -> None:
        """There is no chat any more: `events` ends after what it has."""
        self._is_over = True
        self._has_events.set()
        self._was_delivered.set()

    @property
    def _is_done(self) -> bool:
        return self._is_ending and not self._talk.waiting

    def _begin_again(self) -> None:
        """The other side knows nothing of what was: to it, the first message that it does not have is the
        first one.
        """
        self._talk.part()
        self._collect()
        before, self._talk = self._talk, Talk()
        self._said_before += before.delivered
        self._heard_before += before.received
        for said in before.undelivered:
            self._talk.say(said.text)
        if self._note is not None:
            self._talk.away(self._note)

    async def _converse(self, stream: Stream, peer: Peer) -> None:
        works = (self._read(stream), self._write(stream), self._look(peer))
        tasks = {asyncio.create_task(work) for work in works}
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            with suppress(CrowlineError):
                await stream.close()

    async def _read(self, stream: Stream) -> None:
        """Until the other side's end."""
        data: bytes | None = None
        while data != b"":
            data = await stream.read(_READ_BYTES)
            self._set_reachable(True)
            self._talk.receive(data, self._loop.time())
            self._wake.set()
            self._collect()
            while len(self._events) >= _EVENTS:
                self._has_room.clear()
                await self._has_room.wait()

    async def _write(self, stream: Stream) -> None:
        """Until this side's end, once everything is delivered, and what came is marked."""
        while True:
            self._wake.clear()
            now = self._loop.time()
            self._talk.handle_timeout(now)
            self._collect()
            is_done = self._is_done
            while (data := self._talk.next_transmit(now)) is not None:
                await stream.write(data)
            if is_done:
                return
            await self._rest()

    async def _rest(self) -> None:
        """Wait for something to do."""
        at = self._talk.next_timeout()
        try:
            async with asyncio.timeout_at(at):
                await self._wake.wait()
        except TimeoutError:
            return

    def _collect(self) -> None:
        while (event := self._talk.next_event()) is not None:
            if isinstance(event, Broken):
                raise ProtocolViolation(event.reason)
            if isinstance(event, Arrived):
                event = Arrived(self._heard_before + event.number, event.text)
            elif isinstance(event, Delivered | Read):
                event = type(event)(self._said_before + event.number)
            self._tell(event)

    async def _look(self, peer: Peer) -> None:
        """Say when the other side is out of reach, and when it is back."""
        waits_since: float | None = None
        while True:
            now = self._loop.time()
            if not self._talk.waiting:
                waits_since = None
            elif waits_since is None:
                waits_since = now
            owes = waits_since is not None and now - waits_since > ANSWER_LIMIT
            self._set_reachable(peer.silence < (ANSWER_LIMIT if owes else SILENCE_LIMIT))
            await asyncio.sleep(_LOOK_INTERVAL)

    def _set_reachable(self, on: bool) -> None:
        if on is not self._is_reachable and not self._is_over:
            self._is_reachable = on
            self._tell(Reachable(on))

    def _tell(self, event: ChatEvent) -> None:
        if isinstance(event, Delivered):
            self._was_delivered.set()
        if not isinstance(event, Arrived):
            # Only the latest is of any interest; whoever does not listen must not be buried.
            self._events = deque(each for each in self._events if type(each) is not type(event))
        self._events.append(event)
        self._has_events.set()
