"""The other side, once met: its streams and the paths to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from typing import NoReturn

from crowline.api.connection import Connection
from crowline.api.datagrams import DatagramInbox
from crowline.api.path import Path
from crowline.base.errors import CrowlineError, ProtocolViolation, UsageError
from crowline.base.machine import Buffer
from crowline.net.patience import within
from crowline.rendezvous.keys import derive
from crowline.rendezvous.role import Role
from crowline.session.events import SessionEvent, StreamDone
from crowline.session.events import StreamReset as ResetEvent
from crowline.session.frames import MAX_DATAGRAM

# Bytes written and not yet on a link, above which `Stream.write` waits.
WRITE_LIMIT = 1 << 20
# Callers of `Peer.open_stream` that may wait until the other side takes one more.
MAX_WAITING_OPENS = 1024
# Bytes of one line that `Stream.readline` looks through.
LINE_LIMIT = 64 * 1024
# Seconds that `Peer.close` waits for finished streams to be acknowledged, at a good end and at a bad one: the
# last words on a stream say more than an exit code.
DELIVERY_LIMIT = 5.0
LAST_WORDS_LIMIT = 1.0


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
        await _last_words(self._connection)
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


class Peer:
    """The authenticated other side."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        # Streams that are not over, and those of them that nobody has accepted yet, by number.
        self._open: dict[int, Stream] = {}
        self._waiting: dict[int, Stream] = {}
        self._arrived = asyncio.Event()
        # Who opens streams, one after the other, and what they wait for.
        self._opening = asyncio.Lock()
        self._openers = 0
        self._allowed = asyncio.Event()
        self._inbox = DatagramInbox()
        self._is_flush_due = False
        connection.observers.on_stream_opened = self._on_opened
        connection.observers.on_streams_allowed = self._allowed.set
        connection.observers.on_datagram = self._inbox.put
        connection.ended.add_done_callback(self._on_ended)

    @property
    def words(self) -> tuple[str, ...]:
        """Words that both sides can read out to each other: equal when nobody is in between."""
        return self._connection.words

    @property
    def is_host(self) -> bool:
        """Whether this side is the one that hosted the meeting; the other side sees the opposite."""
        return self._connection.role is Role.HOST

    def export_key(self, label: str) -> bytes:
        """32 secret bytes for the purpose `label`, the same on both sides and on no other two; they stay so
        for the life of the session, and say nothing of its other keys.
        """
        key = self._connection.key
        if key is None:
            raise UsageError("There is no key before the other side has proven itself.")
        return derive(key, f"export {label}").reveal()

    @property
    def has_left(self) -> bool:
        """Whether the connection has ended without an error."""
        return self._connection.ended.done() and self._connection.ended.result() is None

    @property
    def path(self) -> Path | None:
        """How bytes travel now, and why; None while there is no path."""
        return self._connection.carriers.paths.current

    def paths(self) -> list[Path]:
        """Every usable path, the one in use first."""
        return self._connection.carriers.paths.all()

    @property
    def carried(self) -> dict[str, int]:
        """Stream bytes in both directions by kind of path: ``hub``, ``relay``, ``direct``."""
        return self._connection.carriers.paths.carried()

    @property
    def setup_ms(self) -> float | None:
        """Milliseconds from the hub's word that both are there to the first byte that could be sent."""
        return self._connection.timing.setup_ms

    @property
    def direct_ms(self) -> float | None:
        """Milliseconds from the same word to the first direct path in use; None while there is none."""
        return self._connection.timing.direct_ms

    def on_path(self, tell: Callable[[Path | None, Path | None], None]) -> None:
        """Call `tell(now, before)` at each change of path."""
        self._connection.observers.on_path.append(tell)

    async def open_stream(self) -> Stream:
        """A new stream; waits while 128 streams of this side are open. Raises `UsageError` after `close`, and
        where very many wait already.
        """
        await _last_words(self._connection)
        if self._openers >= MAX_WAITING_OPENS:
            raise UsageError("Too many streams are waiting to be opened.")
        self._openers += 1
        try:
            async with self._opening:
                return await self._open_next()
        finally:
            self._openers -= 1

    async def _open_next(self) -> Stream:
        self._check()
        while not self._connection.session.may_open_stream():
            self._allowed.clear()
            await self._allowed.wait()
            self._check()
        number = self._connection.session.open_stream()
        stream = self._open[number] = Stream(self._connection, number, self._forget)
        self._connection.flush()
        return stream

    async def accept_stream(self) -> Stream:
        """The next stream that the other side opened. Raises what ended the connection."""
        while not self._waiting:
            if self._connection.ended.done():
                raise self._connection.ended.result() or CrowlineError("The connection was closed.")
            self._arrived.clear()
            await self._arrived.wait()
        return self._waiting.pop(next(iter(self._waiting)))

    async def streams(self) -> AsyncIterator[Stream]:
        """Streams that the other side opens, until the connection ends without an error."""
        while True:
            try:
                yield await self.accept_stream()
            except CrowlineError:
                if self._connection.ended.done() and self._connection.ended.result() is None:
                    return
                raise

    @property
    def max_datagram_size(self) -> int:
        """Bytes that `send_datagram` takes: as many as a datagram of UDP may have."""
        return MAX_DATAGRAM

    @property
    def packet_size(self) -> int:
        """Bytes of a datagram that travels as a packet of its own on the path of now; 0 where none does.

        Larger ones, and all where it is 0, travel whole between the bytes of streams: late rather than lost.
        """
        return self._connection.session.packet_size

    def send_datagram(self, data: Buffer) -> None:
        """Send `data` once, without waiting: it may get lost, or overtake others.

        Raises `UsageError` above `max_datagram_size` and after `close`, or what ended the connection.
        """
        self._check()
        self._connection.session.send_datagram(bytes(data))
        if not self._is_flush_due:
            self._is_flush_due = True
            asyncio.get_running_loop().call_soon(self._flush_datagrams)

    async def datagrams(self) -> AsyncIterator[bytes]:
        """What the other side sends by `send_datagram`, until the connection ends; raises what ended it.

        While nobody takes them, the latest few thousand are kept.
        """
        while (data := await self._inbox.get()) is not None:
            yield data
        if error := self._connection.ended.result():
            raise error

    async def close(self, code: int = 0, sentence: str = "") -> None:
        """End the connection; the other side is told `code` (an exit code) and `sentence`."""
        await within(LAST_WORDS_LIMIT if code else DELIVERY_LIMIT, self._all_delivered())
        await self._connection.close(code, sentence)

    async def _all_delivered(self) -> None:
        """Wait for what finished streams still owe the other side."""
        for stream in list(self._open.values()):
            if self._is_finished(stream):
                with suppress(CrowlineError):
                    await stream.delivered()

    @staticmethod
    def _is_finished(stream: Stream) -> bool:
        return stream._session.is_finished(stream._number)

    def _flush_datagrams(self) -> None:
        self._is_flush_due = False
        self._connection.flush()

    def _check(self) -> None:
        ended = self._connection.ended
        if ended.done():
            raise ended.result() or UsageError("The connection is closed.")

    def _on_ended(self, _: asyncio.Future[CrowlineError | None]) -> None:
        for event in (self._arrived, self._allowed):
            event.set()
        self._inbox.end()

    def _on_opened(self, number: int) -> None:
        stream = Stream(self._connection, number, self._forget)
        self._open[number] = self._waiting[number] = stream
        self._arrived.set()

    def _forget(self, number: int) -> None:
        self._open.pop(number, None)
        self._waiting.pop(number, None)


async def _last_words(connection: Connection) -> None:
    """Return at once, or, where the session is closed, raise the error that it ends with, if any."""
    if connection.session.is_closed:
        await asyncio.shield(connection.ended)
        if error := connection.ended.result():
            raise error
