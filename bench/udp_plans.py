"""How sure and how quick the UDP plans for hard NATs are: spraying, and prediction on one side and on both.

In virtual time, packet by packet, through the lab's NATs, 40 ms round trip; times count from the moment when
both sides begin. Packets are those of both sides together.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Callable
from functools import partial
from math import inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crowline.lab.presets import SYMMETRIC
from crowline.punch.spray_budget import MAX_PACKETS
from guessing_nats import BLOCK, Result, predict_both, predict_one, spray

RUNS = 1000
# What to run, the share of meetings to reach, within so many seconds, and with which median.
KINDS: tuple[tuple[str, Callable[[str], Result], float, float, float], ...] = (
    ("port-restricted × random", partial(spray, SYMMETRIC), 0.98, 5.0, 1.0),
    ("port-restricted × block of 2,048", partial(spray, BLOCK), 0.99, 2.0, inf),
    ("port-restricted × sequential, 1/s", partial(predict_one, 1.0), 0.99, 5.0, inf),
    ("port-restricted × sequential, 10/s", partial(predict_one, 10.0), 0.99, 5.0, inf),
    ("port-restricted × sequential, 50/s", partial(predict_one, 50.0), 0.0, 5.0, inf),
    ("sequential × sequential, 10/s", partial(predict_both, 10.0, 3), 0.95, 5.0, inf),
    ("sequential × sequential, 50/s", partial(predict_both, 50.0, 3), 0.95, 5.0, inf),
    ("  the same in a single round", partial(predict_both, 50.0, 1), 0.0, 5.0, inf),
)


def line(
    name: str, run: Callable[[str], Result], share: float, within: float, median: float, runs: int
) -> bool:
    """Print the figures of one kind; whether they are within reach."""
    results = [run(f"{name} {number}") for number in range(runs)]
    times = [result.at for result in results if result.at is not None and result.at <= within]
    met, middle = len(times) / runs, statistics.median(times)
    packets = max(result.packets for result in results)
    sockets = max(result.sockets for result in results)
    reached = met >= share and middle <= median and packets <= MAX_PACKETS
    print(
        f"{name:36} {within:4.0f} s {met:8.1%} {middle:7.2f} s {max(times):7.2f} s {packets:8,} {sockets:8}"
        f"{'' if reached else '  short of the reach'}"
    )
    return reached


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=RUNS)
    runs = parser.parse_args().runs
    print(f"{runs} runs each")
    print(f"{'NATs':36} {'within':>6} {'met':>8} {'median':>9} {'longest':>9} {'packets':>8} {'sockets':>8}")
    reached = [line(*kind, runs) for kind in KINDS]
    print("all within reach" if all(reached) else "not all within reach")


if __name__ == "__main__":
    main()
