"""Round trips and losses of one pair, counted by checks of the probe's own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, cast

import pytest

from crowline.api.doctor import path_probe
from crowline.api.doctor.path_probe import PathProbe
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.ice.candidate import CandidateFactory
from crowline.ice.pair import CandidatePair, ValidPair

BASE, REMOTE = Address("192.0.2.1", 1000), Address("192.0.2.2", 2000)


class Way:
    """Stands for a traversal whose other side answers what `answers` says, by number of the question."""

    def __init__(self, answers: Callable[[int], bool]) -> None:
        self.on_heard: Callable[[memoryview, Address, Address], None] = lambda *_: None
        self.agent = self
        self.sent: list[Transmit] = []
        self.twice = False
        self.source = REMOTE
        self.restarts_after: int | None = None
        self._answers = answers
        self._count = 0

    def probe(self, base: Address, destination: Address) -> bytes:
        if self._count == self.restarts_after:
            raise UsageError("nothing can be asked of an unknown side")
        self._count += 1
        return bytes(8) + self._count.to_bytes(12, "big")

    def send(self, transmit: Transmit) -> None:
        self.sent.append(transmit)
        if self._answers(len(self.sent)):
            for _ in range(1 + self.twice):
                data = memoryview(bytes(transmit.data))
                asyncio.get_running_loop().call_soon(self._deliver, data)

    def _deliver(self, data: memoryview) -> None:
        self.on_heard(data, self.source, BASE)


def pair() -> ValidPair:
    factory = CandidateFactory()
    local, remote = factory.host(BASE), factory.host(REMOTE)
    return ValidPair(local, remote, CandidatePair(local, remote))


async def probed(way: Way, count: int = 20) -> path_probe.Probed:
    return await PathProbe(cast(Traversal, cast(Any, way))).run(pair(), count=count, interval=0.0)


async def test_every_answer_counts_once() -> None:
    """Also one that comes twice; the questions go by the pair's own way."""
    way = Way(lambda _: True)
    way.twice = True
    result = await probed(way)
    assert (result.sent, result.answered, result.loss) == (20, 20, 0.0)
    assert result.rtt is not None and result.rtt >= 0
    assert {(each.local, each.destination) for each in way.sent} == {(BASE, REMOTE)}


async def test_what_is_not_answered_is_loss(monkeypatch: pytest.MonkeyPatch) -> None:
    """One in four here; the last answers are waited for."""
    monkeypatch.setattr(path_probe, "_PATIENCE", 0.05)
    result = await probed(Way(lambda number: number % 4 != 0))
    assert result.answered == 15 and result.loss == 0.25


async def test_answers_from_elsewhere_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """A number alone, which somebody on the way may have seen, is not enough."""
    monkeypatch.setattr(path_probe, "_PATIENCE", 0.05)
    way = Way(lambda _: True)
    way.source = Address("192.0.2.9", 2000)
    result = await probed(way)
    assert (result.answered, result.rtt, result.loss) == (0, None, 1.0)


@pytest.mark.parametrize(("asked", "loss"), [(0, None), (5, 0.0)])
async def test_a_restart_in_between_ends_the_questions(asked: int, loss: float | None) -> None:
    """While the other side's new password is not known nothing can be asked, and nothing is lost."""
    way = Way(lambda _: True)
    way.restarts_after = asked
    result = await probed(way)
    assert (result.sent, result.answered, result.loss) == (asked, asked, loss)


async def test_whoever_listened_before_listens_again() -> None:
    """The probe borrows the ear."""
    heard: list[Address] = []
    way = Way(lambda _: True)
    way.on_heard = lambda data, source, base: heard.append(source)
    await probed(way)
    way.on_heard(memoryview(b""), REMOTE, BASE)
    assert heard == [REMOTE]
