"""How sure and how quick a TCP simultaneous open is, against NATs that drop or refuse what comes too early.

In virtual time, packet by packet, with the NATs and kernels of the tests. The second side begins up to five
one-way delays after the first; times count from the first side's start. To reach, where NATs refuse: 99 %
within 5 s, and a median of 250 ms.

With `--kernel N` as root, also N times through nftables, by the sockets of the product (`net/tcp_pairs.py`):
two hosts 20 ms apart, until a packet has gone each way.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import statistics
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from threading import Barrier

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.lab.namespaces import HOST_DELAY, Internet
from crowline.net.tcp_pairs import TcpHandlers, TcpPairs
from crowline.punch.syn_budget import SynBudget
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


def line(name: str, delay: float, loss: float, runs: int, times: list[float]) -> bool:
    """Print the figures of one kind; whether they are within reach."""
    cuts = statistics.quantiles(times, n=100)
    share, median = len(times) / runs, statistics.median(times)
    reached = share >= WITHIN and median <= MEDIAN_MS
    print(
        f"{name:31} {1000 * delay:5.0f} ms {loss:5.0%} {share:10.2%} {median:5.0f} ms"
        f" {cuts[89]:5.0f} ms {cuts[98]:5.0f} ms{'' if reached else '  short of the reach'}"
    )
    return reached


def virtual() -> bool:
    reached = [
        line(" × ".join(temper.name for temper in tempers), delay, loss, RUNS, met(tempers, delay, loss))
        for tempers in PAIRS
        for delay in DELAYS
        for loss in LOSSES
    ]
    return all(reached)


class Puncher:
    """One side on its host, for one run."""

    def __init__(self, local: Address, remote: Address, skew: float, barrier: Barrier) -> None:
        self._local, self._remote, self._skew, self._barrier = local, remote, skew, barrier

    async def run(self) -> tuple[float, float | None]:
        """When both sides were told to begin, and when this one heard the other; seconds."""
        self._heard = asyncio.Event()
        budget = SynBudget(1)
        budget.prove_host(self._remote.host)
        handlers = TcpHandlers(self._packet, self._opened, lambda *_: None, lambda _: None, lambda: None)
        self._pairs = TcpPairs(handlers, budget, entropy=os.urandom)
        self._pairs.bind(self._local)
        self._barrier.wait()
        begun = time.monotonic()
        await asyncio.sleep(self._skew)
        self._pairs.want(self._local, self._remote, simultaneous=True)
        try:
            async with asyncio.timeout(PATIENCE):
                await self._heard.wait()
            return begun, time.monotonic()
        except TimeoutError:
            return begun, None
        finally:
            await asyncio.to_thread(self._barrier.wait)
            self._pairs.close()

    def _opened(self, local: Address, remote: Address) -> None:
        self._pairs.send(Transmit(b"hello", remote, local, transport=Transport.TCP))

    def _packet(self, _: bytes, source: Address, local: Address) -> None:
        self._pairs.authenticated(local, source)
        self._heard.set()


def kernel(kind: str, runs: int) -> bool:
    """Punch so often between two new ports of two hosts behind such NATs, which keep the ports' numbers."""
    dice = random.Random(kind)
    times = []
    with Internet(translator="kernel") as net, ThreadPoolExecutor(2) as threads:
        sites = [net.site(kind), net.site(kind)]
        for number in range(runs):
            barrier = Barrier(2)
            insides = [Address(site.hosts[0].addresses[0], 20_000 + number) for site in sites]
            outsides = [Address(site.outside[0], 20_000 + number) for site in sites]
            skews = (0.0, MAX_SKEW * 2 * HOST_DELAY * dice.random())
            punchers = [Puncher(insides[i], outsides[1 - i], skews[i], barrier) for i in (0, 1)]
            sides = [
                threads.submit(net.inside, site.hosts[0], partial(asyncio.run, puncher.run()))
                for site, puncher in zip(sites, punchers, strict=True)
            ]
            (begun, first), (_, second) = (side.result() for side in sides)
            if first is not None and second is not None:
                times.append(1000 * (max(first, second) - begun))
    return line(f"{kind} × {kind}, kernel", 2 * HOST_DELAY, 0.0, runs, times)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kernel", type=int, metavar="N", help="also N times through nftables, as root")
    runs = parser.parse_args().kernel
    print(f"{RUNS} runs each, skew up to {MAX_SKEW} one-way delays; half of the routers tell of dead packets")
    print(f"{'NATs':31} {'one way':>8} {'loss':>5} {'within 5 s':>10} {'median':>8} {'p90':>8} {'p99':>8}")
    reached = virtual()
    if runs:
        reached = all([reached, kernel("home", runs), kernel("rst-sender", runs)])
    print("all within reach" if reached else "not all within reach")


if __name__ == "__main__":
    main()
