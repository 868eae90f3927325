"""Mappings that other hosts make behind the same translator."""

from __future__ import annotations

import itertools
import random
import statistics
from dataclasses import replace

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import TCP, UDP, Allocation
from crowline.lab.cross_traffic import CrossTraffic
from crowline.lab.nat import Nat
from crowline.lab.presets import HOME, SYMMETRIC_SEQUENTIAL

SERVER = Address("198.51.100.1", 3478)


def ports(behaviour: object, count: int, every: float, seed: int = 1) -> list[int]:
    """Outside ports of `count` sockets that send one after the other."""
    box = Nat(behaviour, "203.0.113.1", random.Random(seed).randbytes)  # type: ignore[arg-type]
    found = []
    for number in range(count):
        outside = box.outbound(UDP, Address("10.0.0.2", 20_000 + number), SERVER, 100 + number * every)
        assert outside is not None
        found.append(outside.port)
    return found


def test_others_take_ports_of_a_sequence() -> None:
    """As many as the rate says, at random times; none where there are no others."""
    busy = replace(SYMMETRIC_SEQUENTIAL, cross_traffic=50.0)
    seen = ports(busy, 400, 0.1)
    steps = [(after - before) % (65535 - 1024 + 1) for before, after in itertools.pairwise(seen)]
    assert all(step >= 1 for step in steps)
    assert 5.5 < statistics.mean(steps) < 6.5  # five others and one's own
    assert len(set(steps)) > 5
    quiet = ports(SYMMETRIC_SEQUENTIAL, 5, 0.1)
    assert quiet == list(range(quiet[0], quiet[0] + 5))


def test_a_sequence_that_counts_down_goes_on_downwards() -> None:
    """In steps of its own."""
    down = replace(SYMMETRIC_SEQUENTIAL, allocation=Allocation.sequential(-2), cross_traffic=20.0)
    seen = ports(down, 50, 0.1)
    steps = [before - after for before, after in itertools.pairwise(seen) if before > after]
    assert len(steps) > 40 and all(step % 2 == 0 for step in steps)


def test_ports_that_are_no_sequence_stay_as_they_are() -> None:
    """A home router keeps the inside port, whatever others do."""
    assert ports(replace(HOME, cross_traffic=50.0), 5, 1.0) == list(range(20_000, 20_005))


def test_long_waits_cost_no_time() -> None:
    """A day of mappings is a number."""
    others = CrossTraffic(1000.0, random.Random(1).randbytes)
    assert others.since(UDP, 0.0) == 0
    day = 86_400.0
    assert others.since(UDP, day) == pytest.approx(1000 * day, rel=0.01)
    assert others.since(UDP, day) == 0


def test_protocols_have_others_of_their_own() -> None:
    """What TCP takes leaves UDP's sequence where it was."""
    others = CrossTraffic(100.0, random.Random(1).randbytes)
    assert others.since(UDP, 0.0) == others.since(TCP, 9.0) == 0
    assert others.since(TCP, 10.0) > 50


@pytest.mark.parametrize("rate", [-1.0, float("inf"), float("nan")])
def test_rates_that_make_no_sense_are_refused(rate: float) -> None:
    """They would never end."""
    with pytest.raises(UsageError):
        Nat(replace(HOME, cross_traffic=rate), "203.0.113.1", bytes)
