"""Chats without a screen: lines of text in a pipe, or JSON objects both ways."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any, Protocol

from crowline.api.chat import (
    Arrived,
    Chat,
    ChatEvent,
    Delivered,
    PeerAway,
    PeerLeft,
    PeerTyping,
    Reachable,
    Read,
    keyboard,
    pages,
)
from crowline.base.errors import UsageError
from crowline.cli.output import Output

# Bytes of one line of input: a message has 16,384 characters, of up to 6 bytes each in JSON.
_MAX_LINE = 1 << 18

OUT_OF_REACH = "{name} is out of reach. What you write is kept, and delivered as soon as a path is back."
BACK = "{name} can be reached again."
LEFT = "{name} left."


class Voice(Protocol):
    """How a chat is shown, and where its texts come from."""

    def show(self, event: ChatEvent) -> None:
        """Show what happened."""

    async def listen(self) -> None:
        """Say what the person writes, until there is no more of it."""

    def close(self) -> None:
        """Leave the terminal as it was."""


def notice(event: ChatEvent, name: str) -> str | None:
    """What a person is told of an event that is no message; None where that is nothing."""
    if isinstance(event, PeerAway):
        note = f": {event.note}" if event.note else "."
        return f"{name} is away{note}" if event.on else f"{name} is back."
    if isinstance(event, Reachable):
        return (BACK if event.on else OUT_OF_REACH).format(name=name)
    if isinstance(event, PeerLeft):
        return LEFT.format(name=name)
    return None


class PlainVoice:
    """Each line of standard input is a message, each line of standard output one of the other side's."""

    def __init__(self, output: Output, chat: Chat, name: str) -> None:
        self._output = output
        self._chat = chat
        self._name = name

    def show(self, event: ChatEvent) -> None:
        if isinstance(event, Arrived):
            for line in event.text.split("\n"):
                self._output.data(line)
            self._chat.saw(event.number)
        elif text := notice(event, self._name):
            self._output.say(text)

    async def listen(self) -> None:
        async for line in typed_lines():
            for page in pages(line):
                await self._chat.has_room()
                self._chat.say(page)

    def close(self) -> None: ...


class JsonVoice:
    """Objects on standard output for all that happens, and on standard input for all that is to be done:
    ``say`` (`text`), ``read`` (`id`), ``typing``, ``away`` (`on`, `note`), ``end``.
    """

    def __init__(self, output: Output, chat: Chat) -> None:
        self._output = output
        self._chat = chat

    def show(self, event: ChatEvent) -> None:
        emit = self._output.emit
        if isinstance(event, Arrived):
            emit("message", id=event.number, text=event.text)
        elif isinstance(event, Delivered):
            emit("delivered", id=event.number)
        elif isinstance(event, Read):
            emit("read", id=event.number)
        elif isinstance(event, PeerTyping):
            emit("typing", on=event.on)
        elif isinstance(event, PeerAway):
            emit("away", on=event.on, note=event.note)
        elif isinstance(event, Reachable):
            emit("reachable", on=event.on)
        elif isinstance(event, PeerLeft):
            emit("left")

    async def listen(self) -> None:
        async for line in typed_lines():
            if not line.strip():
                continue
            try:
                if not await self._obey(_object(line)):
                    return
            except UsageError as problem:
                self._output.warn(problem.message)

    async def _obey(self, wish: dict[str, Any]) -> bool:
        """Whether more may follow. Raises `UsageError` for what makes no sense."""
        match wish:
            case {"t": "say", "text": str(text)}:
                await self._chat.has_room()
                self._output.emit("sent", id=self._chat.say(text))
            case {"t": "read", "id": int(number)}:
                self._chat.saw(number)
            case {"t": "typing"}:
                self._chat.typed()
            case {"t": "away"}:
                note = wish.get("note", "")
                self._chat.away(str(note) if wish.get("on", True) else None)
            case {"t": "end"}:
                return False
            case _:
                raise UsageError("That is nothing that a chat can be told.")
        return True

    def close(self) -> None: ...


def _object(line: str) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict):
        raise UsageError("A line of standard input is no JSON object.")
    return found


async def typed_lines() -> AsyncIterator[str]:
    """Lines of standard input without their ends, the last one too where nothing ends it. What is longer than
    any message may be is cut.
    """
    source = keyboard()
    try:
        rest = b""
        while data := await source.read():
            *lines, rest = (rest + data).split(b"\n")
            for line in lines:
                yield _text(line)
            while len(rest) > _MAX_LINE:
                yield _text(rest[:_MAX_LINE])
                rest = rest[_MAX_LINE:]
        if rest:
            yield _text(rest)
    finally:
        source.close()


def _text(line: bytes) -> str:
    return line.removesuffix(b"\r").decode("utf-8", "replace")
