"""When a side measures what it is behind, and what it does with silence."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import replace

import pytest

from crowline.api.traversal import own_nat
from crowline.api.traversal.own_nat import OwnNat
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.net import nat_discovery
from crowline.punch.nat_profile import NatProfile
from crowline.stun.nat_findings import Facet, Findings, Reason

SERVER = Address("192.0.2.1", 3478)


def profile(*, answers: bool = True) -> NatProfile:
    """Of a translator that nothing is known of."""
    silent = NatProfile.of(Findings(SERVER, unknown=dict.fromkeys(Facet, Reason.NO_ANSWER)))
    return replace(silent, answers=answers)


class Stage:
    """One `OwnNat`, the discoveries that it began, and what it told. Discoveries answer with `results`."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.discoveries = 0
        self.results: list[NatProfile | Exception] = []
        self.known: list[NatProfile] = []
        self.early: NatProfile | None = None
        self.servers = [SERVER]
        self.needed = True
        self.again = asyncio.Event()
        self.go_on = asyncio.Event()
        self.go_on.set()
        monkeypatch.setattr(nat_discovery, "discover_nat", self._discover)
        self.nat = OwnNat(self._servers, is_needed=self._is_needed, on_known=self._on_known)

    async def wait(self) -> None:
        async with asyncio.timeout(30):
            await self.again.wait()
        self.again.clear()
        # What hears of it goes on after this.
        await asyncio.sleep(0)

    async def _servers(self) -> list[Address]:
        return self.servers

    def _is_needed(self) -> bool:
        self.again.set()
        return self.needed

    def _on_known(self, found: NatProfile) -> None:
        self.known.append(found)
        self.again.set()

    async def _discover(
        self, servers: Sequence[Address], *, on_early: Callable[[NatProfile], None]
    ) -> NatProfile:
        assert servers == [SERVER]
        if self.early is not None:
            on_early(self.early)
        self.discoveries += 1
        self.again.set()
        await self.go_on.wait()
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


@pytest.fixture
async def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


async def until(stage: Stage, count: int) -> None:
    while len(stage.known) < count:
        await stage.wait()


async def test_a_nat_is_measured_once(stage: Stage) -> None:
    """Whoever asks again gets no second measurement of the same network."""
    stage.results = [profile()]
    stage.nat.measure_in(0.0)
    stage.nat.measure_in(0.0)
    await until(stage, 1)
    stage.nat.measure_in(0.0)
    assert stage.nat.profile is stage.known[0]
    assert stage.discoveries == 1
    stage.nat.close()


async def test_what_will_probably_come_out_is_told_before(stage: Stage) -> None:
    """Plans begin by that; it is no result."""
    stage.go_on.clear()
    stage.early, stage.results = profile(), [profile()]
    stage.nat.measure_in(0.0)
    await until(stage, 1)
    assert (stage.known, stage.nat.profile) == ([stage.early], None)
    stage.go_on.set()
    await until(stage, 2)
    assert stage.nat.profile is stage.known[1]
    stage.nat.close()


async def test_the_earlier_of_two_times_counts(stage: Stage) -> None:
    """A side that waits would measure in a while; when the other side comes, it is measured soon."""
    stage.results = [profile()]
    stage.nat.measure_in(1000.0)
    stage.nat.measure_in(0.0)
    stage.nat.measure_in(2000.0)
    await until(stage, 1)
    stage.nat.close()


async def test_nothing_is_measured_that_nobody_needs(stage: Stage) -> None:
    """A direct path was there before."""
    stage.needed = False
    stage.nat.measure_in(0.0)
    await stage.wait()
    assert stage.discoveries == 0
    stage.needed, stage.results = True, [profile()]
    stage.nat.measure_in(0.0)
    await until(stage, 1)
    stage.nat.close()


async def test_another_network_is_measured_anew(stage: Stage) -> None:
    """What was found before, and what was being measured, is forgotten."""
    stage.go_on.clear()
    stage.nat.measure_in(0.0)
    while not stage.discoveries:
        await stage.wait()
    stage.nat.forget()
    stage.go_on.set()
    stage.results = [profile()]
    stage.nat.measure_in(0.0)
    await until(stage, 1)
    assert (stage.discoveries, len(stage.known)) == (2, 1)
    stage.nat.forget()
    assert stage.nat.profile is None
    stage.nat.close()


async def test_silence_is_told_and_looked_at_again(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    """The network may have been down; that nothing answers is no knowledge of it."""
    monkeypatch.setattr(own_nat, "AGAIN_AFTER", 0.0)
    stage.results = [profile(answers=False), profile()]
    stage.nat.measure_in(0.0)
    await until(stage, 2)
    assert [found.answers for found in stage.known] == [False, True]
    assert stage.nat.profile is stage.known[1]
    stage.nat.close()


async def test_silence_is_looked_at_less_and_less_often(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no UDP gets out a meeting may last for hours; another network is new."""
    waits: list[float] = []
    measure_in = stage.nat.measure_in

    def at_once(delay: float) -> None:
        waits.append(delay)
        measure_in(0.0)

    monkeypatch.setattr(stage.nat, "measure_in", at_once)
    stage.results = [
        *(profile(answers=False) for _ in range(8)),
        profile(),
        profile(answers=False),
        profile(),
    ]
    stage.nat.measure_in(0.0)
    await until(stage, 9)
    assert waits[1:] == [20.0, 40.0, 80.0, 160.0, 320.0, 600.0, 600.0, 600.0]
    stage.nat.forget()
    stage.nat.measure_in(0.0)
    await until(stage, 11)
    assert waits[9:] == [0.0, 20.0]
    stage.nat.close()


async def test_without_a_server_or_a_way_out_nothing_is_known(stage: Stage) -> None:
    """And nothing is told."""
    stage.servers = []
    stage.nat.measure_in(0.0)
    await stage.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    assert stage.discoveries == 0
    stage.servers, stage.results = [SERVER], [LocalProblem("no way out"), profile()]
    stage.nat.measure_in(0.0)
    while stage.discoveries < 1:
        await stage.wait()
    for _ in range(3):
        await asyncio.sleep(0)
    stage.nat.measure_in(0.0)
    await until(stage, 1)
    stage.nat.close()


async def test_after_the_end_nothing_is_measured(stage: Stage) -> None:
    """What was planned is not done, what was going on is cancelled, and nothing is begun."""
    stage.go_on.clear()
    stage.nat.measure_in(0.0)
    while not stage.discoveries:
        await stage.wait()
    stage.nat.close()
    stage.nat.measure_in(0.0)
    await asyncio.sleep(0)
    assert (stage.discoveries, stage.known) == (1, [])
