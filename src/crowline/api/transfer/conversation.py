"""A transfer machine and the stream it speaks over."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from crowline.base.errors import (
    CrowlineError,
    Declined,
    IntegrityFailed,
    Interrupted,
    LocalProblem,
    ProtocolViolation,
    Refused,
)
from crowline.base.machine import Buffer
from crowline.net.files import DiskFull
from crowline.net.patience import within
from crowline.transfer.endings import Ending, PeerBroke, PeerStopped
from crowline.transfer.messages import Reason
from crowline.transfer.names import display_name

T = TypeVar("T")

AGAIN = "Run the same command again on both sides: what has come is kept, and only the rest moves."

FAREWELL_SECONDS = 2.0
"""How long a side that stops tries to say why: enough for a slow path, short enough for Ctrl-C."""

JOIN_BYTES = 64 << 10
"""Frames smaller than this are joined before they are written, so that small files cost few writes."""


class ByteStream(Protocol):
    """One bidirectional ordered stream of bytes to the peer.

    `write` takes all of `data` before it waits for room, so that cancelling the wait takes nothing back; it
    may keep `data` by reference. What `read` gives need not stay unchanged after the next `read`, unless
    it is `bytes`.
    """

    async def read(self, limit: int) -> bytes | memoryview:
        """The next bytes, at most `limit`; ``b""`` once the peer has ended its direction."""
        ...

    async def write(self, data: Buffer) -> None: ...

    async def close(self) -> None:
        """End our direction once everything is sent."""
        ...

    def abort(self) -> None:
        """Drop the stream in both directions."""
        ...


class Machine(Protocol):
    """What the sender and the receiver have in common."""

    def receive(self, data: Buffer) -> None: ...

    def receive_end(self) -> None: ...

    def next_transmit(self) -> Buffer | None: ...

    def abort(self, reason: Reason, sentence: str) -> None: ...


class Conversation:
    """Gives the machine what comes, and writes what it wants to say, in order, whoever asks for it."""

    def __init__(self, stream: ByteStream, machine: Machine) -> None:
        self.stream = stream
        self._machine = machine
        self._pending: deque[Buffer] = deque()
        self._lock = asyncio.Lock()

    async def hear(self, limit: int) -> None:
        """Wait for what comes next, at most `limit` bytes of it, or for the end of the stream."""
        if data := await self.stream.read(limit):
            self._machine.receive(data)
        else:
            self._machine.receive_end()

    async def flush(self) -> None:
        """Write everything the machine has to say now, as fast as the stream takes it."""
        async with self._lock:
            self._collect()
            while self._pending:
                await self.stream.write(self._pending.popleft())
                self._collect()

    async def farewell(self, problem: BaseException) -> None:
        """Tell the peer about `problem`, if there is time, and end the stream. Never raises for the stream's
        own trouble: the problem is what the caller will hear."""
        self._machine.abort(*_told(problem))
        try:
            if not await within(FAREWELL_SECONDS, self._end()):
                self.stream.abort()
        except (CrowlineError, OSError):
            self.stream.abort()

    async def _end(self) -> None:
        await self.flush()
        await self.stream.close()

    def _collect(self) -> None:
        small = bytearray()
        while len(small) < JOIN_BYTES and len(self._pending) < 4:
            piece = self._machine.next_transmit()
            if piece is None:
                break
            if len(piece) < JOIN_BYTES:
                small += piece
                continue
            if small:
                self._pending.append(bytes(small))
                small.clear()
            self._pending.append(piece)
        if small:
            self._pending.append(bytes(small))


async def together(main: Coroutine[Any, Any, T], *others: Coroutine[Any, Any, None]) -> T:
    """Run all at once: the result of `main`, or the first failure of any. Whatever still runs is cancelled.

    When several fail at once, one of `others` is heard: they listen to the peer, who knows why.
    """
    first = asyncio.create_task(main)
    rest = [asyncio.create_task(other) for other in others]
    running: set[asyncio.Task[Any]] = {first, *rest}
    try:
        while not first.done():
            await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
            for task in (*rest, first):
                if task in running and task.done():
                    running.discard(task)
                    task.result()
        return first.result()
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def ended_early(ending: Ending) -> CrowlineError:
    """The error that an early end is for this side."""
    if isinstance(ending, PeerStopped):
        return stopped(ending.reason, ending.sentence)
    if isinstance(ending, PeerBroke):
        return ProtocolViolation(ending.sentence)
    return Interrupted("The other side went away before everything had been transferred.", hint=AGAIN)


def stopped(reason: Reason, sentence: str) -> CrowlineError:
    """The error for this side when the other side refused or stopped. `sentence` is its text, as it came."""
    said = f" It says: {display_name(sentence)}" if sentence else ""
    match reason:
        case Reason.DISK_FULL:
            return Refused(
                "The other side's disk is too full." + said,
                hint="When there is room, run the same command again: what has come is kept.",
            )
        case Reason.DECLINED:
            return Declined("The other side declined." + said)
        case Reason.CANCELLED:
            return Interrupted("The other side stopped the transfer." + said, hint=AGAIN)
        case Reason.INTEGRITY:
            return IntegrityFailed("The other side found that what arrived is not what was sent." + said)
        case Reason.VERSION:
            return ProtocolViolation(
                "The other side speaks another version of file transfer." + said,
                hint="Update Crowline on both sides.",
            )
        case Reason.PROTOCOL:
            return ProtocolViolation("The other side could not understand this one." + said)
        case _:
            return Refused("The other side had to stop." + said)


def _told(problem: BaseException) -> tuple[Reason, str]:
    """What the peer hears of our problem: nothing of our paths or names."""
    if isinstance(problem, DiskFull):
        return Reason.DISK_FULL, "There is not enough room on this disk."
    if isinstance(problem, LocalProblem):
        return Reason.LOCAL, "A file could not be read or written here."
    if isinstance(problem, asyncio.CancelledError):
        return Reason.CANCELLED, ""
    return Reason.OTHER, ""
