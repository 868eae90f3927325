"""What a line does to packets, one property at a time and from the seed."""

from __future__ import annotations

import random
from collections import Counter
from itertools import groupby, pairwise

import pytest

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.impairment import GilbertElliott, Impairment, Line
from crowline.lab.network import Packet


def line(impairment: Impairment, seed: int = 1) -> tuple[Line, Counter[str]]:
    counters: Counter[str] = Counter()
    return Line(impairment, random.Random(seed), counters), counters


def send(
    impairment: Impairment, count: int, *, gap: float = 0.001, size: int = 100
) -> list[tuple[float, ...]]:
    """Arrival times of packets that leave `gap` seconds apart."""
    carrier, _ = line(impairment)
    return [carrier.carry(size, number * gap) for number in range(count)]


def test_a_plain_line_only_delays() -> None:
    """No chance, no change: every packet arrives its delay later."""
    assert send(Impairment(delay=0.05), 3) == [(pytest.approx(0.05 + n * 0.001),) for n in range(3)]


def test_jitter_spreads_and_keeps_the_order() -> None:
    """Between the delay and the delay with jitter, never before the packet ahead."""
    arrivals = [times[0] for times in send(Impairment(delay=0.05, jitter=0.02), 500)]
    late = [arrival - number * 0.001 - 0.05 for number, arrival in enumerate(arrivals)]
    assert arrivals == sorted(arrivals)
    assert min(late) >= -1e-12
    assert max(late) <= 0.02
    assert max(late) - min(late) > 0.005


def test_reordering_holds_single_packets_back() -> None:
    """About the wanted share comes later than packets that left after it."""
    arrivals = [times[0] for times in send(Impairment(reorder=0.1, reorder_delay=0.01), 2000)]
    overtaken = sum(later < earlier for earlier, later in pairwise(arrivals))
    assert 140 < overtaken < 220


def test_duplicates_come_twice() -> None:
    """About the wanted share, at the same time."""
    arrivals = send(Impairment(duplicate=0.2), 2000)
    twice = [times for times in arrivals if len(times) == 2]
    assert 330 < len(twice) < 470
    assert all(first == second for first, second in twice)


@pytest.mark.parametrize("share", [0.0, 0.02, 0.3, 1.0])
def test_independent_loss_has_its_share(share: float) -> None:
    """Of 5,000 packets, within four standard deviations."""
    lost = sum(not times for times in send(Impairment(loss=share), 5000))
    assert lost == pytest.approx(5000 * share, abs=4 * (5000 * share * (1 - share)) ** 0.5 + 1e-9)


def test_bursty_loss_has_its_share_and_its_bursts() -> None:
    """A tenth lost in bursts of five on average; independent loss would give bursts of 1.1."""
    model = GilbertElliott.of_bursts(0.1, 5)
    assert model.mean == pytest.approx(0.1)
    arrived = [bool(times) for times in send(Impairment(loss=model), 40_000)]
    bursts = [len(list(group)) for ok, group in groupby(arrived) if not ok]
    assert arrived.count(False) / len(arrived) == pytest.approx(0.1, abs=0.02)
    assert sum(bursts) / len(bursts) == pytest.approx(5, rel=0.15)


def test_each_state_has_its_own_loss() -> None:
    """Elliott's model: some is lost in the good state, not all in the bad one."""
    model = GilbertElliott(enter=0.05, leave=0.15, good=0.01, bad=0.5)
    assert model.mean == pytest.approx(0.25 * 0.5 + 0.75 * 0.01)
    lost = sum(not times for times in send(Impairment(loss=model), 40_000))
    assert lost / 40_000 == pytest.approx(model.mean, abs=0.015)


def test_a_state_that_is_never_left_or_entered_is_counted_right() -> None:
    """Both probabilities 0: the line stays good."""
    assert GilbertElliott(0, 0, good=0.25).mean == 0.25


def test_what_is_too_big_vanishes() -> None:
    """The largest size passes, one byte more does not."""
    carrier, counters = line(Impairment(mtu=1280))
    assert carrier.carry(1280, 0.0) == (0.0,)
    assert carrier.carry(1281, 0.0) == ()
    assert counters == {"too big": 1}


def test_a_rate_makes_packets_wait_for_each_other() -> None:
    """100 bytes at 10,000 bytes/s take 10 ms; a pause lets the queue run empty."""
    carrier, _ = line(Impairment(delay=0.005, rate=10_000))
    times = [carrier.carry(100, now)[0] for now in (0.0, 0.0, 0.0, 1.0)]
    assert times == [pytest.approx(t) for t in (0.015, 0.025, 0.035, 1.015)]


def test_a_full_queue_drops_what_comes() -> None:
    """Room for two packets beside none; later there is room again."""
    carrier, counters = line(Impairment(rate=1000, queue=250))
    assert [bool(carrier.carry(100, 0.0)) for _ in range(4)] == [True, True, False, False]
    assert counters == {"queue full": 2}
    assert carrier.carry(100, 0.1) == (pytest.approx(0.3),)


def test_a_packet_larger_than_the_queue_passes_an_idle_line() -> None:
    """A queue bounds what waits, not what is sent."""
    carrier, _ = line(Impairment(rate=1000, queue=50))
    assert carrier.carry(100, 0.0) == (pytest.approx(0.1),)
    assert carrier.carry(100, 0.05) == ()


def test_the_seed_decides() -> None:
    """The same seed loses the same packets, another one others."""
    how = Impairment(loss=0.3, jitter=0.01, reorder=0.1, duplicate=0.1)

    def story(seed: int) -> list[tuple[float, ...]]:
        carrier, _ = line(how, seed)
        return [carrier.carry(100, n * 0.001) for n in range(200)]

    assert story(7) == story(7) != story(8)


def test_sizes_count_the_headers() -> None:
    """RFC 791, RFC 768 and RFC 8200: 20 or 40 bytes and 8."""
    ipv4, ipv6 = Address("203.0.113.1", 1), Address("2001:db8::1", 1)
    sizes = [Packet.udp(source, source, bytes(100)).size for source in (ipv4, ipv6)]
    assert sizes == [128, 148]


@pytest.mark.parametrize(
    "build",
    [
        lambda: Impairment(delay=-1),
        lambda: Impairment(jitter=-0.1),
        lambda: Impairment(loss=1.5),
        lambda: Impairment(reorder=-0.1),
        lambda: Impairment(duplicate=2),
        lambda: Impairment(rate=0),
        lambda: GilbertElliott(enter=2, leave=0.1),
        lambda: GilbertElliott.of_bursts(0.1, 0.5),
        lambda: GilbertElliott.of_bursts(0.9, 1),
        lambda: GilbertElliott.of_bursts(1.0, 5),
    ],
)
def test_what_no_line_does_is_refused(build: object) -> None:
    """The caller's mistake, told at once."""
    with pytest.raises(UsageError):
        build()  # type: ignore[operator]
