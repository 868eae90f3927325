"""How sure and how quick a TCP simultaneous open is, against NATs that drop or refuse what comes too early.

In virtual time, packet by packet, with the NATs and kernels of the tests. The second side begins up to five
one-way delays after the first; times count from the first side's start. To reach, where NATs refuse: 99 %
within 5 s, and a median of 250 ms.
"""

from __future__ import annotations

import random
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crowline.punch.tcp_schedule import PATIENCE
from punching_nats import Run, Temper, World

RUNS = 2000
MAX_SKEW = 5  # one-way delays
WITHIN = 0.99
MEDIAN_MS = 250

PAIRS = (
    (Temper.DROP, Temper.DROP),
    (Temper.DROP, Temper.RESET),
    (Temper.RESET, Temper.RESET),
    (Temper.RESET_ALWAYS, Temper.RESET_ALWAYS),
)
DELAYS = (0.005, 0.010, 0.020, 0.040)  # seconds one way
LOSSES = (0.0, 0.01)


def met(tempers: tuple[Temper, Temper], delay: float, loss: float) -> list[float]:
    """Milliseconds until both sides were connected, of those that were within the patience."""
    dice = random.Random(f"{tempers} {delay} {loss}")
    times = []
    for seed in range(RUNS):
        world = World(tempers, delay, MAX_SKEW * delay * dice.random(), dice.random() < 0.5, loss)
        at = Run(world, seed).go().connected_at
        if at is not None and at <= PATIENCE:
            times.append(1000 * at)
    return times


def main() -> None:
    print(f"{RUNS} runs each, skew up to {MAX_SKEW} one-way delays; half of the routers tell of dead packets")
    print(f"{'NATs':29} {'one way':>8} {'loss':>5} {'within 5 s':>10} {'median':>8} {'p90':>8} {'p99':>8}")
    all_reached = True
    for tempers in PAIRS:
        for delay in DELAYS:
            for loss in LOSSES:
                times = met(tempers, delay, loss)
                cuts = statistics.quantiles(times, n=100)
                share, median = len(times) / RUNS, statistics.median(times)
                reached = share >= WITHIN and median <= MEDIAN_MS
                all_reached &= reached
                print(
                    f"{' × '.join(temper.name for temper in tempers):29} {1000 * delay:5.0f} ms {loss:5.0%}"
                    f" {share:10.2%} {median:5.0f} ms {cuts[89]:5.0f} ms {cuts[98]:5.0f} ms"
                    f"{'' if reached else '  short of the reach'}"
                )
    print("all within reach" if all_reached else "not all within reach")


if __name__ == "__main__":
    main()
