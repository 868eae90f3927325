"""The other side, once met: its streams and the paths to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress

from crowline.api.connection import Connection
from crowline.api.datagrams import DatagramInbox
from crowline.api.path import Path
from crowline.api.stream import Stream, last_words
from crowline.base.errors import CrowlineError, UsageError
from crowline.base.machine import Buffer
from crowline.net.patience import within
from crowline.rendezvous.keys import derive
from crowline.rendezvous.role import Role
from crowline.session.frames import MAX_DATAGRAM

__all__ = ["Peer", "Stream"]

# Callers of `Peer.open_stream` that may wait until the other side takes one more.
MAX_WAITING_OPENS = 1024
# Seconds that `Peer.close` waits for finished streams to be acknowledged, at a good end and at a bad one: the
# last words on a stream say more than an exit code.
DELIVERY_LIMIT = 5.0
LAST_WORDS_LIMIT = 1.0


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
    def resume_secret(self) -> bytes:
        """32 bytes by which the two sides meet again (`api.key_point.ByKey`), also in a later process; empty
        where they met without a server."""
        secret = self._connection.resume_secret
        return secret.reveal() if secret is not None else b""

    @property
    def path(self) -> Path | None:
        """How bytes travel now, and why; None while there is no path."""
        return self._connection.carriers.paths.current

    @property
    def silence(self) -> float:
        """Seconds since anything came from the other side, by any path; idle ones are asked every 5 s."""
        return self._connection.silence

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
        await last_words(self._connection)
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
