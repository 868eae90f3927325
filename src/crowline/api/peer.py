"""The other side, once met: its streams and the paths to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

from crowline.api.connection import Connection
from crowline.api.path import Path
from crowline.base.errors import CrowlineError, ProtocolViolation, UsageError
from crowline.base.machine import Buffer
from crowline.net.patience import within
from crowline.session.events import SessionEvent
from crowline.session.events import StreamReset as ResetEvent

# Bytes written and not yet on a link, above which `Stream.write` waits.
WRITE_LIMIT = 1 << 20
# Bytes of one line that `Stream.readline` looks through.
LINE_LIMIT = 64 * 1024
# Seconds that `Peer.close` waits for finished streams to be acknowledged.
DELIVERY_LIMIT = 5.0


class Stream:
    """A bidirectional stream of bytes. It outlives the path it began on.

    Every method raises the error that ended the connection, where one did.
    """

    def __init__(self, connection: Connection, number: int) -> None:
        self._connection = connection
        self._session = connection.session
        self._number = number
        self._changed = asyncio.Event()
        self._reset = False
        self._buffer = b""
        connection.observers.streams[number] = self._on_event

    async def read(self, limit: int = 1 << 18) -> bytes:
        """Between 1 and `limit` bytes as soon as there are any; ``b""`` after the other side's end."""
        if self._buffer:
            data, self._buffer = self._buffer[:limit], self._buffer[limit:]
            return data
        while True:
            parts: list[Buffer] = []
            left = limit
            while left and len(part := self._session.read(self._number, left)):
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
            data = await self.read(size)
            if not data:
                raise ProtocolViolation("The other side ended the stream in the middle of a message.")
            parts.append(data)
            size -= len(data)
        return b"".join(parts)

    async def readline(self) -> bytes:
        """A line with its newline, or what is left at the end. Raises `ProtocolViolation` past 64 KiB."""
        line = b""
        while b"\n" not in line:
            data = await self.read()
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

    def abort(self, code: int = 0) -> None:
        """Give the stream up in both directions."""
        self._session.reset(self._number, code)
        self._connection.flush()
        self._reset = True
        self._changed.set()

    def _on_event(self, event: SessionEvent) -> None:
        if isinstance(event, ResetEvent):
            self._reset = True
        self._changed.set()

    async def _wait(self) -> None:
        self._check()
        self._changed.clear()
        await self._changed.wait()

    def _check(self) -> None:
        ended = self._connection.ended
        if ended.done():
            raise ended.result() or CrowlineError("The connection was closed.")
        if self._reset:
            raise CrowlineError("The other side gave the stream up.")


class Peer:
    """The authenticated other side."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._incoming: asyncio.Queue[Stream] = asyncio.Queue()
        self._open: list[Stream] = []
        connection.observers.on_stream_opened = self._on_opened

    @property
    def words(self) -> tuple[str, ...]:
        """Words that both sides can read out to each other: equal when nobody is in between."""
        return self._connection.words

    @property
    def path(self) -> Path | None:
        """How bytes travel now, and why; None while there is no path."""
        return self._connection.path

    def paths(self) -> list[Path]:
        """Every usable path, the one in use first."""
        return self._connection.paths.all()

    @property
    def carried(self) -> dict[str, int]:
        """Stream bytes in both directions by kind of path: ``hub``, ``relay``, ``direct``."""
        return self._connection.paths.carried()

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
        """A new stream. Raises `UsageError` after `close`."""
        if self._connection.ended.done():
            raise self._connection.ended.result() or UsageError("The connection is closed.")
        stream = Stream(self._connection, self._connection.session.open_stream())
        self._open.append(stream)
        self._connection.flush()
        return stream

    async def accept_stream(self) -> Stream:
        """The next stream that the other side opened. Raises what ended the connection."""
        getting = asyncio.create_task(self._incoming.get())
        waits: set[asyncio.Future[object]] = {getting, self._connection.ended}  # type: ignore[arg-type]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            if getting.done():
                return getting.result()
            raise self._connection.ended.result() or CrowlineError("The connection was closed.")
        finally:
            getting.cancel()

    async def streams(self) -> AsyncIterator[Stream]:
        """Streams that the other side opens, until the connection ends without an error."""
        while True:
            try:
                yield await self.accept_stream()
            except CrowlineError:
                if self._connection.ended.done() and self._connection.ended.result() is None:
                    return
                raise

    async def close(self, code: int = 0, sentence: str = "") -> None:
        """End the connection; the other side is told `code` (an exit code) and `sentence`."""
        if code == 0:
            await self._deliver()
        await self._connection.close(code, sentence)

    async def _deliver(self) -> None:
        """Wait for what finished streams still owe the other side."""
        try:
            await within(DELIVERY_LIMIT, self._all_delivered())
        except CrowlineError:
            return

    async def _all_delivered(self) -> None:
        for stream in self._open:
            if self._is_finished(stream):
                await stream.delivered()

    @staticmethod
    def _is_finished(stream: Stream) -> bool:
        return stream._session.is_finished(stream._number)

    def _on_opened(self, number: int) -> None:
        stream = Stream(self._connection, number)
        self._open.append(stream)
        self._incoming.put_nowait(stream)
