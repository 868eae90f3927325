"""How often the UDP plans lead through the lab's NATs, packet by packet, from seeds."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence

import pytest

from crowline.lab.presets import SYMMETRIC
from crowline.punch.port_prediction import MAX_BURST, MAX_WINDOW
from crowline.punch.spray import MAX_SOCKETS
from crowline.punch.spray_budget import MAX_PACKETS
from guessing_nats import BLOCK, DELAY, Result, predict_both, predict_one, spray

RUNS = 300
RANDOM_RUNS = 1000  # the reach is close to the bound of the formula: fewer runs would measure luck


def results(run: Callable[[str], Result], count: int = RUNS) -> list[Result]:
    return [run(f"{number}") for number in range(count)]


def met(found: Sequence[Result], within: float) -> list[float]:
    return [result.at for result in found if result.at is not None and result.at <= within]


def test_a_spray_meets_a_random_nat() -> None:
    """98 of 100 within 5 s, half within 1 s, with 256 sockets and 1,300 packets of both sides at most."""
    found = results(lambda seed: spray(SYMMETRIC, seed), RANDOM_RUNS)
    times = met(found, 5.0)
    assert len(times) >= 0.98 * RANDOM_RUNS
    assert statistics.median([*times, *[5.0] * (RANDOM_RUNS - len(times))]) <= 1.0
    assert max(result.packets for result in found) <= MAX_PACKETS
    assert max(result.sockets for result in found) == MAX_SOCKETS


def test_a_spray_meets_a_block_sooner() -> None:
    """99 of 100 within 2 s for a block of 2,048 ports, with fewer packets and sockets."""
    found = results(lambda seed: spray(BLOCK, seed))
    assert len(met(found, 2.0)) >= 0.99 * RUNS
    assert max(result.packets for result in found) < MAX_PACKETS / 2


@pytest.mark.parametrize("rate", [1.0, 10.0])
def test_prediction_on_one_side_needs_one_round(rate: float) -> None:
    """99 of 100 in a single window, with one mapping and a window's packets."""
    found = results(lambda seed: predict_one(rate, seed))
    assert len(met(found, 1.0)) >= 0.99 * RUNS
    assert max(result.packets for result in found) <= 1 + MAX_WINDOW


@pytest.mark.parametrize("rate", [10.0, 50.0])
def test_prediction_on_both_sides_needs_three_rounds(rate: float) -> None:
    """95 of 100 in three rounds of bursts."""
    found = results(lambda seed: predict_both(rate, 3, seed))
    assert len(met(found, 5.0)) >= 0.95 * RUNS
    assert max(result.packets for result in found) <= 3 * 2 * MAX_BURST


def test_nobody_meets_sooner_than_light() -> None:
    """The model has no short cut: whoever met had a packet on the way for a round trip, less the skew."""
    for run in (lambda seed: spray(BLOCK, seed), lambda seed: predict_one(10.0, seed)):
        assert min(met(results(run, 50), 5.0)) > DELAY


def test_guesses_without_a_pattern_miss() -> None:
    """Without prediction a window finds nobody: the model does let packets fail."""
    found = results(lambda seed: predict_both(5000.0, 1, seed), 30)
    assert len(met(found, 5.0)) < 15
