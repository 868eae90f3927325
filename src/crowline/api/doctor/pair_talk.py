"""The stream on which two doctors talk: frames in both directions, and trains of bytes that are measured."""

from __future__ import annotations

import asyncio
from typing import TypeVar

import msgspec

from crowline.api.peer import Stream
from crowline.base.errors import MalformedMessage, ProtocolViolation
from crowline.diagnosis.pair_messages import (
    HEADER,
    MAGIC,
    Arrived,
    Kind,
    Settled,
    SideFacts,
    SideResult,
    frame,
    message,
    parse,
    parse_header,
)

NO_DOCTOR = "The other side does something else."
TOGETHER = "`crowline doctor --pair` and `crowline doctor CODE` belong together."

# Bytes of one frame of a train.
CAR = 8 << 10
# A train as long as this is long enough to tell the rate, in seconds; each next one is four times as large.
LONG_ENOUGH = 0.25
_GROWTH = 4
# Bytes that one side takes in all its turns: some times what an honest side sends.
_MOST_BULK = 64 << 20

T = TypeVar("T", SideFacts, Settled, Arrived, SideResult)


class PairTalk:
    """One side's end. Both say the same things in the same order; only the trains go one after the other.

    What the other side says out of order, or what makes no sense, raises `ProtocolViolation`.
    """

    def __init__(self, stream: Stream) -> None:
        self._stream = stream
        self._loop = asyncio.get_running_loop()
        self._taken = 0

    async def begin(self, own: SideFacts) -> SideFacts:
        """Say what this side knows of itself, and hear the same."""
        await self._stream.write(MAGIC + message(Kind.SIDE, own))
        if await self._stream.readexactly(len(MAGIC)) != MAGIC:
            raise ProtocolViolation(NO_DOCTOR, hint=TOGETHER)
        return await self._hear(Kind.SIDE, SideFacts)

    async def settle(self, own: Settled) -> Settled:
        """Say that this side's paths are settled; return once the other side's are."""
        await self._tell(Kind.SETTLED, own)
        return await self._hear(Kind.SETTLED, Settled)

    async def conclude(self, own: SideResult) -> SideResult:
        """The last words; afterwards both end the stream."""
        await self._tell(Kind.RESULT, own)
        result = await self._hear(Kind.RESULT, SideResult)
        await self._stream.close()
        return result

    async def send_trains(self, limit: int) -> float | None:
        """Send longer and longer trains of at most `limit` bytes; the rate of the last, in bytes a second."""
        rate: float | None = None
        size = 4 * CAR
        while True:
            for _ in range(max(2, min(size, limit) // CAR)):
                await self._stream.write(frame(Kind.BULK, bytes(CAR)))
            await self._stream.write(frame(Kind.TRAIN_ENDED, b""))
            arrived = await self._hear(Kind.ARRIVED, Arrived)
            rate = arrived.rate or rate
            if arrived.seconds >= LONG_ENOUGH or size * _GROWTH > limit:
                await self._tell(Kind.SETTLED, Settled())
                return rate
            size *= _GROWTH

    async def take_trains(self) -> float | None:
        """Take the other side's trains, and tell how long each was; the rate of the last."""
        rate = None
        while True:
            kind, payload = await self._next()
            if kind is Kind.SETTLED:
                return rate
            self._count(kind, payload)
            arrived = await self._time_train()
            rate = arrived.rate or rate
            await self._tell(Kind.ARRIVED, arrived)

    async def _time_train(self) -> Arrived:
        """Its first frame has come. That one may have waited for the line to be free: it does not count."""
        began = last = self._loop.time()
        count = 0
        while True:
            kind, payload = await self._next()
            if kind is Kind.TRAIN_ENDED:
                return Arrived(count, last - began)
            self._count(kind, payload)
            count += len(payload)
            last = self._loop.time()

    def _count(self, kind: Kind, payload: bytes) -> None:
        """A frame of a train has come."""
        if kind is not Kind.BULK:
            raise ProtocolViolation("The other side says something out of turn.")
        self._taken += len(payload)
        if self._taken > _MOST_BULK:
            raise ProtocolViolation("The other side sends more than a measurement needs.")

    async def _tell(self, kind: Kind, body: msgspec.Struct) -> None:
        await self._stream.write(message(kind, body))

    async def _hear(self, kind: Kind, type_: type[T]) -> T:
        """The next frame, which must be of that kind."""
        got, payload = await self._next()
        if got is not kind:
            raise ProtocolViolation("The other side says something out of turn.")
        try:
            return parse(payload, type_)
        except MalformedMessage:
            raise ProtocolViolation("The other side says something that makes no sense.") from None

    async def _next(self) -> tuple[Kind, bytes]:
        try:
            kind, length = parse_header(await self._stream.readexactly(HEADER.size))
        except MalformedMessage:
            raise ProtocolViolation("The other side says something that makes no sense.") from None
        return kind, await self._stream.readexactly(length)
