"""A doctor whose other side lies, says nonsense, says too much or says nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from crowline.api.doctor import pair_talk
from crowline.api.doctor.pair_talk import CAR, PairTalk
from crowline.api.peer import Stream
from crowline.base.errors import CrowlineError, ProtocolViolation
from crowline.base.machine import Buffer
from crowline.diagnosis.pair_messages import (
    HEADER,
    MAGIC,
    MAX_PAYLOAD,
    Arrived,
    Kind,
    Settled,
    SideFacts,
    SideResult,
    frame,
    message,
)

OWN = SideFacts(nat="full cone")


class Scripted(Stream):
    """A stream on which the other side says what the script has, and nothing more."""

    def __init__(self, said: bytes) -> None:
        self._said = said
        self.written = 0

    async def readexactly(self, size: int) -> bytes:
        if size > len(self._said):
            raise CrowlineError("the script is over")
        data, self._said = self._said[:size], self._said[size:]
        return data

    async def write(self, data: Buffer) -> None:
        self.written += len(data)

    async def close(self) -> None:
        pass


def talk(*said: bytes) -> PairTalk:
    return PairTalk(Scripted(b"".join(said)))


@pytest.mark.parametrize(
    "said",
    [
        b"\x01" * 64,
        MAGIC + b"\x00" * 64,
        MAGIC + frame(Kind.BULK, b"x"),
        MAGIC + frame(Kind.SIDE, b"{"),
        MAGIC + frame(Kind.SIDE, b'{"nat":1}'),
        MAGIC + HEADER.pack(Kind.SIDE, MAX_PAYLOAD + 1) + bytes(64),
        MAGIC + HEADER.pack(200, 1) + bytes(64),
    ],
)
async def test_a_beginning_that_makes_no_sense_ends_it(said: bytes) -> None:
    """As a breach of the protocol, before anything is believed or a large frame is waited for."""
    with pytest.raises(ProtocolViolation):
        await talk(said).begin(OWN)


@pytest.mark.parametrize(
    "call",
    [
        lambda talk: talk.settle(Settled()),
        lambda talk: talk.conclude(SideResult()),
        lambda talk: talk.send_trains(1 << 20),
        lambda talk: talk.take_trains(),
    ],
)
async def test_what_is_out_of_turn_ends_it(call: Callable[[PairTalk], object]) -> None:
    """Whatever is expected next, a second beginning is not it."""
    with pytest.raises(ProtocolViolation):
        await call(talk(message(Kind.SIDE, OWN)))  # type: ignore[misc]


async def test_who_claims_that_nothing_takes_time_gets_no_more_than_the_limit() -> None:
    """The other side says that each train came at once; trains end at the limit all the same."""
    claim = message(Kind.ARRIVED, Arrived(10**12, 0.0))
    stream = Scripted(claim * 100)
    limit = 1 << 20
    assert await PairTalk(stream).send_trains(limit) is None
    assert stream.written < 2 * limit


@pytest.mark.parametrize("seconds", [5e-324, 1e-300, 1e-7])
async def test_who_claims_to_be_quicker_than_any_line_claims_nothing(seconds: float) -> None:
    """A rate without bounds would be no number that JSON has."""
    claim = message(Kind.ARRIVED, Arrived(2**40, seconds))
    assert await PairTalk(Scripted(claim * 100)).send_trains(1 << 20) is None


async def test_who_sends_without_end_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A train that does not end is longer than any measurement."""
    monkeypatch.setattr(pair_talk, "_MOST_BULK", 10 * CAR)
    with pytest.raises(ProtocolViolation, match="more than a measurement needs"):
        await talk(frame(Kind.BULK, bytes(CAR)) * 100).take_trains()


async def test_bytes_of_many_short_trains_count_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ending each train does not begin the count anew."""
    monkeypatch.setattr(pair_talk, "_MOST_BULK", 10 * CAR)
    train = frame(Kind.BULK, bytes(CAR)) * 3 + frame(Kind.TRAIN_ENDED, b"")
    with pytest.raises(ProtocolViolation, match="more than a measurement needs"):
        await talk(train * 100).take_trains()


async def test_trains_without_a_byte_end_too() -> None:
    """Empty frames cost as little as they bring: the round ends with the patience of who measures."""
    with pytest.raises(CrowlineError, match="the script is over"):
        async with asyncio.timeout(10):
            await talk(frame(Kind.BULK, b"") * 1000).take_trains()
