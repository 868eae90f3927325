"""Which port a NAT gives next, and from which pool it draws."""

from __future__ import annotations

import random

import pytest

from crowline.punch.port_pool import HIGHEST_PORT, LOWEST_PORT, MAX_BLOCK, pool_of
from crowline.punch.port_prediction import (
    MAX_BURST,
    MAX_WINDOW,
    MIN_WINDOW,
    TARGET_SPARE,
    Observation,
    PortSequence,
    between,
    sequence_of,
)

AHEAD = 0.1  # seconds


def seen(*ports: int, interval: float = 0.015) -> list[Observation]:
    return [Observation(port, 100.0 + index * interval) for index, port in enumerate(ports)]


def sequence(*ports: int, interval: float = 0.015) -> PortSequence:
    found = sequence_of(seen(*ports, interval=interval))
    assert found is not None
    return found


# --- the fit --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", [1, 2, 4, -1, -2])
def test_the_step_is_found_under_cross_traffic(step: int) -> None:
    """Ports that others took in between do not hide the step, whichever its sign or parity."""
    found = sequence(*(30_000 + step * count for count in (0, 1, 4, 5, 7, 8)))
    assert (found.step, found.others) == (step, 3)
    assert found.rate == pytest.approx(3 / 0.075)
    assert found.port(1) == 30_000 + step * 9


def test_the_order_of_arrival_does_not_matter() -> None:
    """Observations are taken in the order in which their packets left."""
    observations = seen(5000, 5001, 5003, 5004)
    assert sequence_of(observations[::-1]) == sequence_of(observations)


@pytest.mark.parametrize(
    "ports",
    [
        (5000, 5001, 5002),
        (5000, 40_000, 12_000, 61_000, 3000),
        (5000, 5001, 4000, 5002, 5003, 3000, 5004),
        (5000, 5001, 5002, 4999, 5000, 5001),
        (5000, 5000, 5000, 5000),
    ],
    ids=["too few", "random", "two breaks", "a short way back", "one port"],
)
def test_what_follows_no_sequence_has_none(ports: tuple[int, ...]) -> None:
    """Too few ports, random ones or always the same are not taken for a count."""
    assert sequence_of(seen(*ports)) is None


def test_ports_seen_at_one_moment_say_nothing_of_a_rate() -> None:
    """Without time between the observations there is no sequence."""
    assert sequence_of(seen(5000, 5001, 5002, 5003, interval=0.0)) is None


def test_a_count_that_went_over_its_end_is_still_one() -> None:
    """One break in the sequence is forgiven, and counts neither as ports nor as time."""
    found = sequence(65_533, 65_534, 65_535, 1024, 1025, 1026)
    assert (found.step, found.others) == (1, 0)
    assert found.watched == pytest.approx(0.06)


def test_prediction_goes_over_the_end() -> None:
    """After the highest port comes the lowest, and before it in a sequence that falls."""
    assert sequence(65_532, 65_533, 65_534, 65_535).port(2) == LOWEST_PORT + 1
    assert sequence(1027, 1026, 1025, 1024).port(1) == HIGHEST_PORT


def test_eight_random_ports_are_hardly_ever_taken_for_a_sequence() -> None:
    """Of 5,000 samples of a block of 512 ports two at most look like a count."""
    dice = random.Random(1)
    samples = [[dice.randrange(2048, 2560) for _ in range(8)] for _ in range(5000)]
    assert sum(sequence_of(seen(*ports)) is not None for ports in samples) <= 2


# --- the window -----------------------------------------------------------------------------------------


def test_a_quiet_nat_gets_the_smallest_window_with_the_next_port_first() -> None:
    """Where nobody else was seen, the very next port is the likeliest."""
    found = sequence(*range(5000, 5008))
    window = found.window(found.last.at + 0.02)
    assert window == tuple(range(5008, 5008 + MIN_WINDOW))


def test_the_window_follows_the_rate() -> None:
    """More mappings of others make a wider window, up to the largest."""
    rates = [range(5000, 5000 + 8 * step, step) for step in (1, 2, 3, 4)]
    # One port of step 1 keeps the greatest common divisor at 1.
    sizes = []
    for ports in rates:
        found = sequence(*ports, ports[-1] + 1)
        sizes.append(len(found.window(found.last.at + AHEAD)))
    assert sizes[0] == MIN_WINDOW and sizes == sorted(sizes) and len(set(sizes)) == 4
    assert max(sizes) <= MAX_WINDOW


def test_the_window_grows_with_the_time_since_the_last_port() -> None:
    """What was seen long ago says less, and never makes more than the largest window."""
    found = sequence(5000, 5001, 5003, 5004, 5006, 5007, 5008, 5010)
    sizes = [len(found.window(found.last.at + ahead)) for ahead in (0.0, 0.1, 0.5, 60.0)]
    assert sizes == sorted(sizes) and sizes[0] == MIN_WINDOW and sizes[-1] == MAX_WINDOW
    assert sizes[1] < sizes[2]


def test_a_window_keeps_the_step() -> None:
    """With a step of two, all guesses have the parity of what was seen, and none comes twice."""
    found = sequence(5000, 5002, 5004, 5008)
    window = found.window(found.last.at + AHEAD)
    assert len(set(window)) == len(window) and {port % 2 for port in window} == {0}


@pytest.mark.parametrize("rate", [1.0, 10.0, 50.0, 100.0])
def test_the_window_holds_the_next_port(rate: float) -> None:
    """Against Poisson cross-traffic of any usual rate, all but a few of 1,000 next ports are in it."""
    dice = random.Random(int(rate))
    missed = 0
    for _ in range(1000):
        port, ports = 5000, []
        for _ in range(8):
            ports.append(port)
            port += 1 + arrivals(dice, rate, 0.015)
        found = sequence_of(seen(*ports))
        following = ports[-1] + 1 + arrivals(dice, rate, AHEAD)
        missed += found is None or following not in found.window(found.last.at + AHEAD)
    assert missed <= 10


def arrivals(dice: random.Random, rate: float, seconds: float) -> int:
    """How many came of a Poisson process."""
    count, at = 0, dice.expovariate(rate)
    while at < seconds:
        count, at = count + 1, at + dice.expovariate(rate)
    return count


def test_a_mapping_between_two_samples_needs_no_guess_of_the_rate() -> None:
    """All ports strictly between the sample before and the one after, the middle first."""
    before, after = Observation(5000, 0.0), Observation(5008, 0.03)
    assert between(before, after, 2) in ((5004, 5002, 5006), (5004, 5006, 5002))
    assert between(after, before, -2) in ((5004, 5002, 5006), (5004, 5006, 5002))


@pytest.mark.parametrize("after", [5000, 5001, 4990, 5000 + 2 * MAX_WINDOW])
def test_two_samples_with_nothing_or_too_much_between_bound_nothing(after: int) -> None:
    """Neighbours, a count that went over its end and a far one give no guess."""
    assert between(Observation(5000, 0.0), Observation(after, 0.03), 1) == ()


def test_a_shared_target_is_reached_by_the_burst() -> None:
    """The sockets of a burst reach the target with some to spare, at any rate and distance in time."""
    for ports in (range(5000, 5008), range(5000, 5200, 25)):
        found = sequence(*ports, ports[-1] + 1)
        for ahead in (0.0, 0.1, 1.0, 60.0):
            target = found.shared_target(found.last.at + ahead)
            assert target.sockets <= MAX_BURST
            assert target.port == found.port(target.sockets - TARGET_SPARE)


# --- the pool -------------------------------------------------------------------------------------------


def test_a_block_is_recognised_by_its_range() -> None:
    """Eight ports of a block of 2,048 look like a block of about its size, those of all ports do not."""
    dice = random.Random(2)
    blocks = [pool_of([dice.randrange(4096, 6144) for _ in range(8)]) for _ in range(200)]
    assert all(pool.is_block and pool.size <= MAX_BLOCK for pool in blocks)
    sizes = sorted(pool.size * pool.step for pool in blocks)
    assert 1800 < sizes[100] < 2500
    whole = [pool_of([dice.randrange(1024, 65_536) for _ in range(8)]) for _ in range(200)]
    assert sum(pool.is_block for pool in whole) <= 2


def test_guesses_begin_between_the_ports_that_were_seen() -> None:
    """First all that must be in the pool, in random order, then those outside, nearest first."""
    pool = pool_of([5000, 5009, 5004])
    ports = pool.ports(16, random.Random(3).randbytes)
    assert sorted(ports[:10]) == list(range(5000, 5010)) and list(ports[:10]) != sorted(ports[:10])
    assert [max(5000 - port, port - 5009) for port in ports[10:]] == [1, 1, 2, 2, 3, 3]


def test_guesses_are_different_and_in_range() -> None:
    """At either end of the range, and for a single port seen, no guess comes twice or is no port."""
    for observed in ([1024, 1030], [65_530, 65_535], [40_000], list(range(1024, 1040, 2))):
        ports = pool_of(observed).ports(1040, random.Random(4).randbytes)
        assert len(set(ports)) == len(ports) == 1040
        assert min(ports) >= LOWEST_PORT and max(ports) <= HIGHEST_PORT


def test_a_pool_of_one_parity_is_guessed_in_that_parity() -> None:
    """Eight even ports make all guesses even; seven are not enough to believe it."""
    even = [5000, 5020, 5006, 5100, 5080, 5044, 5062, 5008]
    assert {port % 2 for port in pool_of(even).ports(200, random.Random(5).randbytes)} == {0}
    assert {port % 2 for port in pool_of(even[:7]).ports(200, random.Random(5).randbytes)} == {0, 1}
    odd = [port + 1 for port in even]
    assert {port % 2 for port in pool_of(odd).ports(200, random.Random(5).randbytes)} == {1}


def test_ports_are_as_many_as_there_are() -> None:
    """More guesses than ports exist give each port once."""
    ports = pool_of([1024, 65_535]).ports(100_000, random.Random(6).randbytes)
    assert sorted(ports) == list(range(LOWEST_PORT, HIGHEST_PORT + 1))
