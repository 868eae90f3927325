"""What becomes of pairs behind NATs that are hard, helpful or closed: figures, and what is to be reached.

Each attempt is a complete meeting: hub, PAKE, candidates, checks, measured NATs, plans, links. Times count
from the moment when both sides are there, so that measuring the NATs is in them; in the column "planned"
from the first packet that the two exchange when the first plan has begun. Round trip of the hosts: 40 ms.

In virtual time (`--runs`, 1,000 of each row, spread over its pairs), and with `--kernel N` as root also N
times with real processes behind the kernel lab's NATs: there 19 of 20 do where 98 % or more are asked for.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import inf

from crowline.lab.behaviour import UDP, Allocation, Mapping, NatBehaviour
from crowline.lab.kernel_attempt import kernel_attempt
from crowline.lab.network import Packet
from crowline.lab.outcome import Outcome
from crowline.lab.population import load_population
from crowline.lab.population_run import run_population
from crowline.lab.presets import HOME, PRESETS, SYMMETRIC, SYMMETRIC_SEQUENTIAL
from crowline.lab.profile import PortMapping, Profile
from crowline.lab.virtual_attempt import VirtualAttempt
from crowline.lab.workers import run_all
from crowline.punch.spray import MAX_SOCKETS
from crowline.punch.spray_budget import MAX_PACKETS

RUNS = 1000
PAIRS = 5000
# Packets between the two that are no plan's: checks of ICE, and what is sent on the pair that was found; and
# sockets that are no plan's.
CHECKS, OTHERS = 60, 4


def site(name: str, *nats: NatBehaviour, **more: PortMapping) -> Profile:
    return Profile(name, nats, **more)  # type: ignore[arg-type]


def counting(rate: float) -> Profile:
    """A NAT that counts its ports, with so many mappings of others a second."""
    return site(f"sequential {rate:g}/s", replace(SYMMETRIC_SEQUENTIAL, cross_traffic=rate))


def mapping(kind: PortMapping, behaviour: NatBehaviour = HOME) -> Profile:
    return site(kind.value, behaviour, port_mapping=kind)


BLOCK = site("block of 2,048", replace(SYMMETRIC, allocation=Allocation.block(2048)))
TCP_EASY = site(
    "symmetric, TCP not",
    replace(SYMMETRIC, tcp_mapping=Mapping.ENDPOINT_INDEPENDENT, tcp_allocation=Allocation.PRESERVING),
)

EASY = [PRESETS[name] for name in ("public", "full-cone", "address-restricted", "home", "parity", "cgn")]
OPEN = [PRESETS[name] for name in ("public", "full-cone", "address-restricted")]
HARD = [
    PRESETS[name]
    for name in (
        "symmetric",
        "symmetric-sequential",
        "symmetric-block",
        "address-dependent",
        "cgn-symmetric",
        "mobile",
    )
]
HELPED = [
    mapping(kind, behaviour)
    for kind in (PortMapping.UPNP, PortMapping.NAT_PMP, PortMapping.PCP)
    for behaviour in (HOME, SYMMETRIC)
]
BLOCKED = [PRESETS[name] for name in ("udp-blocked", "https-only", "proxy-only")]
ANY = [
    PRESETS[name]
    for name in ("public", "home", "symmetric", "symmetric-sequential", "cgn-symmetric", "udp-blocked")
]
# iroh's four kinds (iroh/tests/patchbay/nat.rs): no NAT; EIM/EIF; EIM/APDF; EDM with random ports/APDF.
IROH = {"none": "public", "open": "full-cone", "moderate": "home", "strict": "symmetric"}

Pair = tuple[Profile, Profile]


def each(some: Sequence[Profile], others: Sequence[Profile]) -> tuple[Pair, ...]:
    return tuple((a, b) for a in some for b in others)


@dataclass(frozen=True)
class Row:
    """What to reach: the share of attempts that end as one of `kinds`, within so many seconds, and the median
    of those that plans take. `without` names techniques that must not be needed.
    """

    name: str
    pairs: tuple[Pair, ...]
    share: float
    within: float = inf
    median: float = inf
    kinds: tuple[str, ...] = ("direct", "lan")
    without: tuple[str, ...] = ()


HOME_SITE, RANDOM_SITE = PRESETS["home"], PRESETS["symmetric"]
ROWS = (
    Row(
        "endpoint-independent × endpoint-independent",
        each(EASY, EASY),
        1.0,
        1.0,
        without=("spray", "prediction"),
    ),
    Row("open or address-only filter × hard", each(OPEN, HARD), 1.0, 3.0, without=("spray",)),
    Row("port-restricted × sequential, λ 0", ((HOME_SITE, counting(0)),), 0.99, 5.0),
    Row("port-restricted × sequential, λ 1/s", ((HOME_SITE, counting(1)),), 0.99, 5.0),
    Row("port-restricted × sequential, λ 10/s", ((HOME_SITE, counting(10)),), 0.99, 5.0),
    Row("port-restricted × random", ((HOME_SITE, RANDOM_SITE),), 0.98, 5.0, 1.0),
    Row("port-restricted × block of 2,048", ((HOME_SITE, BLOCK),), 0.99, 2.0),
    Row("sequential × sequential, λ 10/s", ((counting(10), counting(10)),), 0.95),
    Row("sequential × sequential, λ 50/s", ((counting(50), counting(50)),), 0.95),
    Row("symmetric × symmetric, TCP easy", ((TCP_EASY, TCP_EASY),), 1.0),
    Row("random × random", ((RANDOM_SITE, RANDOM_SITE),), 1.0, kinds=("relay",)),
    Row("a router that maps ports × any", each(HELPED, ANY), 1.0, without=("spray", "prediction")),
    Row(
        "UDP blocked × any",
        each(BLOCKED, [*ANY, *BLOCKED]),
        1.0,
        kinds=("direct", "lan", "relay", "hub"),
    ),
)


@dataclass(frozen=True)
class Shot:
    """One attempt of a pair."""

    a: Profile
    b: Profile
    number: int


@dataclass(frozen=True)
class Result:
    """`packets` went between the two hosts, checks included; `sockets` of one side sent some. `planned`:
    seconds that plans took."""

    outcome: Outcome
    planned: float | None = None
    packets: int = 0
    sockets: int = 0

    @property
    def seconds(self) -> float | None:
        return None if self.outcome.direct_ms is None else self.outcome.direct_ms / 1000


def shoot(shot: Shot) -> Result:
    """In virtual time, counting what the two send each other by UDP before they have a direct path."""
    packets: list[tuple[float, str, int]] = []

    def observe(now: float, packet: Packet) -> None:
        is_servers = packet.source.host.startswith("44.1.")
        if packet.protocol == UDP and packet.destination.host.startswith("44.100.") and not is_servers:
            packets.append((now, packet.source.host, packet.source.port))

    attempt = VirtualAttempt(shot.a, shot.b, shot.number, observe=observe)
    attempt.run()
    begun = [at for peer in attempt.peers for at, _ in peer.punching.began]
    direct = [peer.direct for peer in attempt.peers if peer.direct is not None]
    planned = None
    if begun and len(direct) == 2:
        planned = max(direct) - min(now for now, *_ in packets if now >= min(begun))
    hosts = {host for _, host, _ in packets}
    sockets = [len({(host, port) for _, host, port in packets if host == each}) for each in hosts]
    return Result(attempt.outcome(), planned, len(packets), max(sockets, default=0))


def shoot_in_kernel(shot: Shot) -> Result:
    return Result(kernel_attempt(shot.a, shot.b))


def run(row: Row, runs: int, shooter: Callable[[Shot], Result], jobs: int) -> list[Result]:
    """So many attempts, spread over the pairs; each pair gets one at least."""
    shots = [
        Shot(*row.pairs[number % len(row.pairs)], number // len(row.pairs))
        for number in range(max(runs, len(row.pairs)))
    ]
    return [result for _, result in run_all(shooter, shots, jobs=jobs)]


def show(row: Row, results: list[Result], share: float, *, timed: bool) -> bool:
    """Print the figures of one row; whether they are within reach."""
    good = [result for result in results if is_good(row, result, row.within if timed else inf)]
    times = sorted(result.seconds for result in results if result.seconds is not None)
    reached = len(good) >= share * len(results)
    planned = [result.planned for result in results if result.planned is not None]
    if planned and statistics.median(planned) > row.median:
        reached = False
    packets = max(result.packets for result in results)
    sockets = max(result.sockets for result in results)
    if timed and (packets > MAX_PACKETS + CHECKS or sockets > MAX_SOCKETS + OTHERS):
        reached = False
    techniques = sorted({result.outcome.technique for result in results if result.outcome.technique})
    print(
        f"{row.name:44} {len(results):6} {len(good) / len(results):8.2%} {middle(times)} {middle(planned)}"
        f" {seconds(max(times, default=None))} {packets:8,} {sockets:8}  {', '.join(techniques)}"
        f"{'' if reached else '  SHORT OF THE REACH'}",
        flush=True,
    )
    return reached


def middle(times: Sequence[float]) -> str:
    return seconds(statistics.median(times) if times else None)


def seconds(value: float | None) -> str:
    return "       –" if value is None else f"{value:6.2f} s"


def is_good(row: Row, result: Result, within: float) -> bool:
    if result.outcome.kind not in row.kinds or result.outcome.technique in row.without:
        return False
    return "direct" not in row.kinds or len(row.kinds) > 2 or (result.seconds or inf) <= within


def iroh(runs: int, shooter: Callable[[Shot], Result], jobs: int, share: float) -> bool:
    """iroh's matrix, both ways: 16 pairs, 15 of them direct."""
    print(f"\niroh's matrix, {runs} runs of each pair: share that is direct (host: row, joining: column)")
    print(f"{'':10}" + "".join(f"{name:>10}" for name in IROH))
    direct = 0
    for row, place in IROH.items():
        cells = []
        for other in IROH.values():
            results = run(Row("", ((PRESETS[place], PRESETS[other]),), 1.0), runs, shooter, jobs)
            reached = sum(result.outcome.is_direct for result in results) / runs
            assert all(result.outcome.is_connected for result in results)
            direct += reached >= share
            cells.append(f"{reached:10.1%}")
        print(f"{row:10}" + "".join(cells), flush=True)
    print(f"16 ran, {direct} direct (to reach: 15; iroh: 13)")
    return direct >= 15


def population(pairs: int, jobs: int) -> bool:
    result = run_population(load_population(), pairs, jobs=jobs)
    direct, failed = result.share("direct"), result.share("failed")
    low, high = result.interval("direct")
    print(
        f"\npopulation, {pairs:,} pairs: {direct:.1%} direct ({low:.1%} to {high:.1%}), {failed:.2%} failed"
    )
    return direct >= 0.92 and not failed


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--runs", type=int, default=RUNS, help="attempts of each row in virtual time")
    parser.add_argument("--pairs", type=int, default=PAIRS, help="of the population")
    parser.add_argument(
        "--kernel", type=int, default=0, metavar="N", help="attempts of each pair in the kernel"
    )
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="rows whose name has it; “iroh”, “population”"
    )
    options = parser.parse_args()
    begun, reached = time.monotonic(), []
    rows = [row for row in ROWS if options.only in row.name]
    titles = ("median", "planned", "longest", "packets", "sockets")
    head = f"{'pair':44} {'runs':>6} {'reached':>8} " + " ".join(f"{title:>8}" for title in titles) + "  by"
    if options.runs:
        print(f"virtual time\n{head}")
        reached += [
            show(row, run(row, options.runs, shoot, options.jobs), row.share, timed=True) for row in rows
        ]
        if options.only in "iroh":
            reached.append(iroh(max(1, options.runs // 16), shoot, options.jobs, 0.98))
        if options.only in "population":
            reached.append(population(options.pairs, options.jobs))
    if options.kernel:
        print(f"\nkernel, {options.kernel} runs of the last pair of each row\n{head}")
        for row in rows:
            first = replace(row, pairs=row.pairs[-1:])
            results = run(first, options.kernel, shoot_in_kernel, options.jobs)
            reached.append(show(first, results, min(row.share, 0.95), timed=False))
        if options.only in "iroh":
            reached.append(iroh(options.kernel, shoot_in_kernel, options.jobs, 0.95))
    words = "all within reach" if all(reached) else "not all within reach"
    print(f"\n{words}, {time.monotonic() - begun:.0f} s")


if __name__ == "__main__":
    main()
