"""Two sides behind NATs of the lab that guess each other's ports, packet by packet in virtual time."""

from __future__ import annotations

import heapq
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from math import inf

from crowline.base.addresses import Address
from crowline.lab.behaviour import UDP, Allocation, NatBehaviour
from crowline.lab.nat import Nat
from crowline.lab.presets import HOME, SYMMETRIC
from crowline.punch.port_pool import pool_of
from crowline.punch.port_prediction import OBSERVATIONS, Observation, PortSequence, sequence_of
from crowline.punch.spray import (
    PATIENCE,
    ROUND,
    Probe,
    SprayMet,
    SprayPlan,
    at_pool,
    at_ports,
    from_many_sockets,
    sockets_for,
)
from crowline.punch.spray_budget import SprayBudget

DELAY = 0.02  # seconds one way
SAMPLE_INTERVAL = 0.015  # seconds between two ports asked for
# Seconds from the last request for a port to the first guess: its answer comes, and goes over the relay.
AGREEMENT = 0.1
SENDING = 0.0002  # seconds that a machine takes for each packet of a burst
FIRST_PORT = 20_000
SERVER = Address("192.0.2.1", 3478)
SEQUENTIAL = replace(SYMMETRIC, allocation=Allocation.sequential(1))
BLOCK = replace(SYMMETRIC, allocation=Allocation.block(2048))


@dataclass(eq=False)
class Side:
    """A host and its NAT, with `rate` new mappings of others each second."""

    behaviour: NatBehaviour
    host: str
    dice: random.Random
    rate: float = 0.0
    met_at: float | None = None
    probes: list[tuple[float, Probe]] = field(default_factory=list)
    budget: SprayBudget = field(default_factory=SprayBudget)
    plan: SprayPlan = field(init=False)
    sockets: int = 0  # inside port of the plan's socket 0, above FIRST_PORT

    def __post_init__(self) -> None:
        self.nat = Nat(self.behaviour, self.host, self.dice.randbytes)
        self._strangers = 0
        self._next_stranger = -inf if self.rate else inf

    def send(self, socket: int, destination: Address, now: float) -> Address:
        """From which outside address a packet of that socket goes."""
        self._let_others_send(now)
        outside = self.nat.outbound(UDP, self.inside(socket), destination, now)
        assert outside is not None
        return outside

    def inside(self, socket: int) -> Address:
        return Address("10.0.0.2", FIRST_PORT + self.sockets + socket)

    def sample(self, now: float) -> list[Observation]:
        """Ask a server for the ports of new sockets, the last one just before AGREEMENT."""
        seen = []
        begin = now - AGREEMENT - (OBSERVATIONS - 1) * SAMPLE_INTERVAL
        for number in range(OBSERVATIONS):
            at = begin + number * SAMPLE_INTERVAL
            seen.append(Observation(self.send(number, SERVER, at).port, at))
        self.sockets += OBSERVATIONS
        return seen

    def _let_others_send(self, now: float) -> None:
        if self._next_stranger == -inf:
            self._next_stranger = now
        while self._next_stranger <= now:
            self._strangers += 1
            stranger = Address("10.0.0.9", 1024 + self._strangers % 60_000)
            self.nat.outbound(UDP, stranger, SERVER, self._next_stranger)
            self._next_stranger += self.dice.expovariate(self.rate)


@dataclass(frozen=True, slots=True)
class Result:
    """`at`: seconds until both sides had heard the other, `packets` of both sides together."""

    at: float | None
    packets: int
    sockets: int


class Meeting:
    """Runs the plans of two sides against each other, from `begin` on."""

    def __init__(self, sides: tuple[Side, Side]) -> None:
        self._sides = sides
        self._queue: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = 0

    def run(self, plans: Sequence[Sequence[Probe]], begin: float, *, is_burst: bool = False) -> Result:
        patience = ROUND if is_burst else PATIENCE
        for side, other, probes in zip(self._sides, reversed(self._sides), plans, strict=True):
            side.budget.prove_host(other.host)
            side.plan = SprayPlan(side.budget, probes, is_burst=is_burst, patience=patience)
            side.met_at = None
            skew = side.dice.uniform(0.0, DELAY)
            self._later(begin + skew, lambda now, side=side: self._start(side, now))  # type: ignore[misc]
        sent = [len(side.probes) for side in self._sides]
        while self._queue and not all(side.met_at is not None for side in self._sides):
            now, _, action = heapq.heappop(self._queue)
            action(now)
        for side in self._sides:
            side.plan.stop()
        times = [side.met_at for side in self._sides if side.met_at is not None]
        mine = [side.probes[count:] for side, count in zip(self._sides, sent, strict=True)]
        return Result(
            at=max(times) - begin if len(times) == 2 else None,
            packets=sum(map(len, mine)),
            sockets=max((1 + probe.socket for probes in mine for _, probe in probes), default=0),
        )

    def _start(self, side: Side, now: float) -> None:
        side.plan.start(now)
        self._drain(side, now)

    def _wake(self, side: Side, now: float) -> None:
        side.plan.handle_timeout(now)
        self._drain(side, now)

    def _drain(self, side: Side, now: float) -> None:
        count = 0
        while (probe := side.plan.next_transmit()) is not None:
            at = now + count * SENDING
            self._later(at, lambda now, probe=probe: self._probe(side, probe, now))  # type: ignore[misc]
            count += 1
        when = side.plan.next_timeout()
        if when is not None:
            self._later(when, lambda now: self._wake(side, now))

    def _probe(self, side: Side, probe: Probe, now: float) -> None:
        side.probes.append((now, probe))
        self._packet(side, probe.socket, probe.destination, now)

    def _packet(self, side: Side, socket: int, destination: Address, now: float) -> None:
        source = side.send(socket, destination, now)
        self._later(now + DELAY, lambda now: self._arrive(side, source, destination, now))

    def _arrive(self, sender: Side, source: Address, destination: Address, now: float) -> None:
        side = next(side for side in self._sides if side is not sender)
        inside = side.nat.inbound(UDP, destination, source, now)
        if inside is None or side.met_at is not None:
            return
        socket = inside.port - FIRST_PORT - side.sockets
        side.plan.authenticated(socket, source)
        event = side.plan.next_event()
        assert event is None or isinstance(event, SprayMet)
        side.met_at = now
        self._packet(side, socket, source, now)

    def _later(self, at: float, action: Callable[[float], None]) -> None:
        self._numbers += 1
        heapq.heappush(self._queue, (at, self._numbers, action))


def _pair(hard: NatBehaviour, easy: NatBehaviour, seed: str, rate: float = 0.0) -> tuple[Side, Side]:
    dice = random.Random(seed)
    return Side(hard, "203.0.113.1", dice, rate), Side(easy, "198.51.100.1", dice, rate)


def spray(hard: NatBehaviour, seed: str) -> Result:
    """A port-restricted side against one whose NAT draws its ports at random."""
    sides = many, one = _pair(hard, HOME, seed)
    pool = pool_of([seen.port for seen in many.sample(0.0)])
    target = one.send(0, SERVER, -AGREEMENT)
    guesses = at_pool(many.host, pool, one.dice.randbytes)
    return Meeting(sides).run((from_many_sockets(target, sockets_for(pool)), guesses), 0.0)


def predict_one(rate: float, seed: str) -> Result:
    """A port-restricted side against one whose NAT counts, in a single round."""
    sides = counting, one = _pair(SEQUENTIAL, HOME, seed, rate)
    target = one.send(0, SERVER, -AGREEMENT)
    sequence = _sequence(counting, 0.0)
    # The opener leaves up to DELAY later than agreed, and the window is for the latest time.
    window = at_ports(counting.host, sequence.window(DELAY))
    return Meeting(sides).run((from_many_sockets(target, 1), window), 0.0)


def predict_both(rate: float, rounds: int, seed: str) -> Result:
    """Two sides whose NATs count; each round asks for the ports anew. `at` counts from the first round."""
    sides = _pair(SEQUENTIAL, SEQUENTIAL, seed, rate)
    packets = sockets = 0
    for number in range(rounds):
        begin = number * 2 * ROUND
        targets = [_sequence(side, begin).shared_target(begin + DELAY / 2) for side in sides]
        bursts = [
            from_many_sockets(Address(other.host, theirs.port), ours.sockets)
            for other, theirs, ours in zip(reversed(sides), reversed(targets), targets, strict=True)
        ]
        result = Meeting(sides).run(bursts, begin, is_burst=True)
        packets, sockets = packets + result.packets, max(sockets, result.sockets)
        if result.at is not None:
            return Result(begin + result.at, packets, sockets)
        for side, target in zip(sides, targets, strict=True):
            side.sockets += target.sockets
    return Result(None, packets, sockets)


def _sequence(side: Side, now: float) -> PortSequence:
    sequence = sequence_of(side.sample(now))
    assert sequence is not None
    return sequence
