"""What each side does in a round of each way: what it measures, tells and sends. Nothing here keeps state.

All packets leave from fresh sockets, on both sides: what the first checks have left in the NATs on the way,
which some of them answer to for half a minute, is of other ports.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.punch.plan_choice import Way
from crowline.punch.port_pool import PortPool, pool_of
from crowline.punch.port_prediction import (
    MIN_OBSERVATIONS,
    OBSERVATIONS,
    SharedTarget,
    between,
    sequence_of,
)
from crowline.punch.punch_signals import MAX_PORTS, PunchReady
from crowline.punch.samples import SPACING, Seen
from crowline.punch.spray import (
    PATIENCE,
    Probe,
    at_pool,
    at_ports,
    from_many_sockets,
    sockets_for,
)

# Hop limits of the packets that are to die on their way, by how often the plan was tried: five pass two
# layers of NAT and do not reach the other side's; eight are for longer ways through a carrier.
HOP_LIMITS = (5, 8)
# Those of sprays. An opener that reaches a NAT that keeps stray packets spoils the port that it is for: no
# such spray ever meets. One that dies on its way loses the guesses that come before it, which is dearer where
# NATs drop what is unasked, as nearly all do.
SPRAY_HOP_LIMITS = (None, 5, None, 8)

# Seconds after the start at which a side that sends to few ports repeats itself: the first packets of both
# sides may have passed each other before a NAT was open, and any may be lost.
REPEATS = (0.1, 0.25, 0.5)
DIALLER_DELAY = 0.05  # seconds for which the side that dials lets the opener go first
SHORT_PATIENCE = 1.2  # seconds for a way of few packets: its repeats and a long round trip
OPENERS = 3  # sockets between the two questions that fence in the ports of the openers
# Seconds from the first burst to the second, with the ordinary hop limit: by then the other side has begun.
SECOND_BURST = 0.12
# Seconds that a side expects between what it tells and the begin of its burst: about one way over the hub.
TELLING = 0.05


@dataclass(frozen=True, slots=True)
class Told:
    """What the other side has to know: ports, the likeliest first, or a pool. `target`: see PREDICT_BOTH."""

    ports: tuple[int, ...] = ()
    pool: PortPool | None = None
    target: SharedTarget | None = None


@dataclass(frozen=True, slots=True)
class Salvo:
    """What to send, as `SprayPlan` takes it."""

    probes: tuple[Probe, ...]
    later: tuple[tuple[float, Probe], ...] = ()
    is_burst: bool = False
    patience: float = SHORT_PATIENCE


@dataclass(frozen=True, slots=True)
class Means:
    """What a side has at hand: socket numbers from `first` on, a low hop limit, randomness.

    `spray_hops` is the hop limit of sprays, ``None`` for the ordinary one.
    """

    first: int
    hops: int
    spray_hops: int | None
    entropy: Callable[[int], bytes] = field(repr=False)

    @classmethod
    def of_try(cls, times: int, first: int, entropy: Callable[[int], bytes]) -> Means:
        """Those of a plan that was begun so many times before."""
        hops = HOP_LIMITS[times % len(HOP_LIMITS)]
        return cls(first, hops, SPRAY_HOP_LIMITS[times % len(SPRAY_HOP_LIMITS)], entropy)


class Part(ABC):
    """One side's part. `questions` are the ports to ask for, `spacing` seconds apart.

    `is_answer`: it begins when the other side has told its port. `is_fenced`: it sends before its last
    question.
    """

    questions = 1
    spacing = SPACING
    is_answer = False
    is_fenced = False

    @abstractmethod
    def tell(self, seen: Sequence[Seen], now: float) -> Told | None:
        """What follows from the answers; ``None`` when nothing does. `seen` may be empty."""

    @abstractmethod
    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        """What to send; ``None`` when the other side has not told what that takes."""


class HalfWay(Part):
    """One socket whose port is known: the first packet dies on its way, having opened this side's NAT."""

    def tell(self, seen: Sequence[Seen], now: float) -> Told | None:
        return Told((seen[0].mapped.port,)) if seen else None

    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        if not theirs.ports:
            return None
        target = Address(theirs.host, theirs.ports[0])
        later = tuple((at, Probe(means.first, target)) for at in REPEATS)
        return Salvo((Probe(means.first, target, means.hops),), later)


class SamePort(HalfWay):
    """As half-way, from a NAT that may keep the inside port for the other side, though not for the server."""

    def tell(self, seen: Sequence[Seen], now: float) -> Told | None:
        if not seen:
            return None
        inside = () if seen[0].local is None else (seen[0].local.port,)
        return Told(tuple(dict.fromkeys((*inside, seen[0].mapped.port))))


class Dialler(HalfWay):
    """Sends to the few ports that the other side told, a little later than that opens its NAT."""

    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        if not theirs.ports:
            return None
        probes = at_ports(theirs.host, theirs.ports[:2], socket=means.first)
        times = [DIALLER_DELAY + at for at in (0.0, *REPEATS)]
        return Salvo(probes[:1], tuple((at, probe) for at in times for probe in probes))


class Predicted(Part):
    """Opens a mapping between two questions, so that the ports that it can have got are known."""

    questions = OBSERVATIONS + 1
    is_answer = True
    is_fenced = True

    def tell(self, seen: Sequence[Seen], now: float) -> Told | None:
        observations = [each.observation for each in seen]
        if len(observations) < MIN_OBSERVATIONS + 1:
            return None
        *before, after = observations
        sequence = sequence_of(before)
        if sequence is None:
            return None
        ports = between(before[-1], after, sequence.step) or sequence.window(after.at)
        return Told(ports[:MAX_PORTS])

    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        if not theirs.ports:
            return None
        target, first = Address(theirs.host, theirs.ports[0]), means.first + self.questions
        openers = from_many_sockets(target, OPENERS, means.hops, first=first)
        again = from_many_sockets(target, OPENERS, first=first)
        later = tuple((at, probe) for at in (*REPEATS, 1.0) for probe in again)
        return Salvo(openers, later, is_burst=True, patience=PATIENCE / 2)


class Predictor(HalfWay):
    """Sends to each port of a window, often as long as it is small."""

    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        if not theirs.ports:
            return None
        window = at_ports(theirs.host, theirs.ports, socket=means.first)
        repeats = tuple((at, probe) for at in REPEATS for probe in window[:10])
        return Salvo(window, repeats, patience=SHORT_PATIENCE)


class SharedTargets(Part):
    """A burst of sockets towards one port of the other side, in which one gets the port that it aims at."""

    questions = OBSERVATIONS

    def tell(self, seen: Sequence[Seen], now: float) -> Told | None:
        sequence = sequence_of([each.observation for each in seen])
        if sequence is None:
            return None
        target = sequence.shared_target(now + TELLING)
        return Told((target.port,), target=target)

    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        if not theirs.ports or told is None or told.target is None:
            return None
        there, first = Address(theirs.host, theirs.ports[0]), means.first + self.questions
        burst = from_many_sockets(there, told.target.sockets, means.hops, first=first)
        again = from_many_sockets(there, told.target.sockets, first=first)
        return Salvo(burst, tuple((SECOND_BURST, probe) for probe in again), is_burst=True)


class ManySockets(Part):
    """Opens as many sockets as its NAT's pool of ports asks for, each with one packet to the known port."""

    questions = OBSERVATIONS
    spacing = 0.0  # their order does not matter

    def tell(self, seen: Sequence[Seen], now: float) -> Told | None:
        return Told(pool=pool_of([each.mapped.port for each in seen])) if seen else None

    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        if not theirs.ports or told is None or told.pool is None:
            return None
        there, first = Address(theirs.host, theirs.ports[0]), means.first + self.questions
        probes = from_many_sockets(there, sockets_for(told.pool), means.spray_hops, first=first)
        return Salvo(probes, patience=PATIENCE)


class ManyPorts(HalfWay):
    """Tries ports of the other side's pool from one socket."""

    def salvo(self, told: Told | None, theirs: PunchReady, means: Means) -> Salvo | None:
        if theirs.pool is None:
            return None
        probes = at_pool(theirs.host, theirs.pool.pool, means.entropy, socket=means.first)
        return Salvo(probes, patience=PATIENCE)


_OPENERS: dict[Way, Part] = {
    Way.LOW_TTL: HalfWay(),
    Way.PEER_FIRST: HalfWay(),
    Way.SAME_PORT: SamePort(),
    Way.PREDICT_ONE: Predicted(),
    Way.PREDICT_BOTH: SharedTargets(),
    Way.SPRAY: ManySockets(),
}
_OTHERS: dict[Way, Part] = {
    Way.LOW_TTL: HalfWay(),
    Way.PEER_FIRST: Dialler(),
    Way.SAME_PORT: Dialler(),
    Way.PREDICT_ONE: Predictor(),
    Way.PREDICT_BOTH: SharedTargets(),
    Way.SPRAY: ManyPorts(),
}
PUNCHED = tuple(_OPENERS)  # ways that are rounds; TCP goes beside them, and a relay needs none


def part_of(way: Way, *, opens: bool) -> Part:
    """The part of the side that opens, or of the other; both sides of a mutual way open."""
    return (_OPENERS if opens else _OTHERS)[way]
