"""A stream of bytes to the other side, as applications use it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import NoReturn

from crowline.api.connection import Connection
from crowline.base.errors import CrowlineError, ProtocolViolation, UsageError
from crowline.base.machine import Buffer
from crowline.session.events import SessionEvent, StreamDone
from crowline.session.events import StreamReset as ResetEvent

# Bytes written and not yet on a link, above which `Stream.write` waits.
WRITE_LIMIT = 1 << 20
# Bytes of one line that `Stream.readline` looks through.
LINE_LIMIT = 64 * 1024


class Stream:
    """A bidirectional stream of bytes. It outlives the path it began on.

    Whatever has to wait raises the error that ended the connection, where one did.
    """

    def __init__(self, connection: Connection, number: int, on_over: Callable[[int], None]) -> None:
        self._connection = connection
        self._session = connection.session
        self._loop = asyncio.get_running_loop()
        self._number = number
        self._on_over = on_over
        self._changed = asyncio.Event()
        # Who gave the stream up, in a sentence.
        self._reset = ""
        self._buffer = b""
        connection.observers.streams[number] = self._on_event

    async def read(self, limit: int = 1 << 18) -> bytes:
        """Between 1 and `limit` bytes as soon as there are any; ``b""`` after the other side's end."""
        if limit < 1:
            raise UsageError("A read takes one byte or more.")
        if self._buffer:
            data, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return data
        while True:
            parts: list[Buffer] = []
            left, now = limit, self._loop.time()
            while left and len(part := self._session.read(self._number, left, now)):
                parts.append(part)
                left -= len(part)
            if parts:
                if self._session.has_news:
                    self._connection.flush()
                return bytes(parts[0]) if len(parts) == 1 else b"".join(parts)
            if not self._reset and self._session.is_ended(self._number):
                return b""
            await self._wait()

    async def readexactly(self, size: int) -> bytes:
        """Exactly `size` bytes. Raises `ProtocolViolation` when the stream ends before."""
        parts: list[bytes] = []
        while size:
            try:
                data = await self.read(size)
            except BaseException:
                self._buffer = b"".join(parts)
                raise
            if not data:
                raise ProtocolViolation("The other side ended the stream in the middle of a message.")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    async def readline(self) -> bytes:
        """A line with its newline, or what is left at the end. Raises `ProtocolViolation` past 64 KiB."""
        line = b""
        while b"\n" not in line:
            try:
                data = await self.read()
            except BaseException:
                self._buffer = line
                raise
            if not data:
                return line
            line += data
            if len(line) > LINE_LIMIT and b"\n" not in line[:LINE_LIMIT]:
                raise ProtocolViolation("The other side sent a line that does not end.")
        end = line.index(b"\n") + 1
        self._buffer = line[end:] + self._buffer
        return line[:end]

    async def write(self, data: Buffer) -> None:
        """Send `data`, which must not change afterwards; waits while too much is unsent."""
        await last_words(self._connection)
        self._check()
        self._session.write(self._number, data)
        self._connection.flush()
        while self._session.unsent(self._number) > WRITE_LIMIT:
            await self._wait()

    async def close(self) -> None:
        """End our direction; what was written is still delivered, and reading goes on."""
        self._session.finish(self._number)
        self._connection.flush()

    async def delivered(self) -> None:
        """Wait until the other side has everything, the end included; call it after `close`."""
        while not self._session.is_delivered(self._number):
            await self._wait()

    async def broken(self) -> NoReturn:
        """Wait until the stream cannot go on: raises why, when either side gave it up or all has ended."""
        while True:
            await self._wait()

    @property
    def is_given_up(self) -> bool:
        """Whether either side gave the stream up."""
        return bool(self._reset)

    def abort(self, code: int = 0) -> None:
        """Give the stream up in both directions."""
        self._session.reset(self._number, code)
        self._connection.flush()
        self._give_up("This side gave the stream up.")

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, ResetEvent):
            self._give_up("The other side gave the stream up.")
        elif isinstance(event, StreamDone):
            self._forget()
        self._changed.set()

    def _give_up(self, sentence: str) -> None:
        self._reset = self._reset or sentence
        self._forget()
        self._changed.set()

    def _forget(self) -> None:
        """Nothing more is said of this stream."""
        self._connection.observers.streams.pop(self._number, None)
        self._on_over(self._number)

    async def _wait(self) -> None:
        self._check()
        self._changed.clear()
        await self._changed.wait()

    def _check(self) -> None:
        ended = self._connection.ended
        if ended.done():
            raise ended.result() or CrowlineError("The connection was closed.")
        if self._reset:
            raise CrowlineError(self._reset)


async def last_words(connection: Connection) -> None:
    """Return at once, or, where the session is closed, raise the error that it ends with, if any."""
    if connection.session.is_closed:
        await asyncio.shield(connection.ended)
        if error := connection.ended.result():
            raise error
