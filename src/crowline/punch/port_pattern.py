"""How a translator gives out outside ports, read from those that fresh sockets got (RFC 4787 §4.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from itertools import pairwise
from math import gcd

from crowline.stun.nat_findings import Mapping, Reason, Sample

LEAST_SAMPLES = 4  # fewer ports fit too many patterns by chance
LARGEST_GAP = 512  # between two samples of one sequence: beyond it nobody predicts anything
ENOUGH_STEPS = 8  # of nine random ports all but one step rise, or fall, once in 400 times
LARGEST_BLOCK = 8192  # estimated ports; ten random ones out of 32,768 stay within it once in 100,000 times


class AllocationPattern(Enum):
    """The kinds."""

    PRESERVING = "preserving"
    SEQUENTIAL = "sequential"
    PARITY = "parity"
    BLOCK = "block"
    RANDOM = "random"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class PortPattern:
    """How ports were given to sockets that asked one after the other.

    `delta` is the step of a sequence, and `cross_traffic` the mappings a second that others made meanwhile;
    `pool` an estimate of how many ports there are to draw from. Each is ``None`` where it means nothing.
    `preserved` and `parity` are the shares of samples that kept the port, and its parity.
    """

    kind: AllocationPattern
    delta: int | None = None
    cross_traffic: float | None = None
    pool: int | None = None
    preserved: float = 0.0
    parity: float = 0.0

    def __str__(self) -> str:
        if self.kind is AllocationPattern.SEQUENTIAL:
            return f"sequential {self.delta:+d}"
        if self.kind is AllocationPattern.BLOCK:
            return f"block of about {self.pool}"
        return str(self.kind.value)


def judge_ports(mapping: Mapping, samples: Sequence[Sample]) -> tuple[PortPattern, Reason | None]:
    """The pattern, or why there is none."""
    if mapping is Mapping.NONE:
        return PortPattern(AllocationPattern.UNKNOWN), Reason.NO_TRANSLATION
    ports = read_ports(samples)
    if ports.kind is not AllocationPattern.UNKNOWN:
        return ports, None
    return ports, Reason.TOO_FEW_SAMPLES if samples else Reason.NO_ANSWER


def read_ports(samples: Sequence[Sample]) -> PortPattern:
    """The pattern in the outside ports of fresh sockets, in the order in which they asked."""
    count = len(samples)
    if count < LEAST_SAMPLES:
        return PortPattern(AllocationPattern.UNKNOWN)
    ports = [sample.mapped.port for sample in samples]
    preserved = sum(sample.mapped.port == sample.local.port for sample in samples) / count
    parity = sum(sample.mapped.port % 2 == sample.local.port % 2 for sample in samples) / count
    # The largest of k draws out of a range stands at k/(k+1) of it, the smallest at 1/(k+1).
    pool = min(65535, round((max(ports) - min(ports)) * (count + 1) / (count - 1)))
    if preserved >= 0.5:
        return PortPattern(AllocationPattern.PRESERVING, None, None, None, preserved, parity)
    steps = _steps(ports)
    if steps:
        delta = _delta(steps)
        seconds = samples[-1].sent_at - samples[0].sent_at
        traffic = _cross_traffic(steps, delta, seconds * len(steps) / (count - 1))
        return PortPattern(AllocationPattern.SEQUENTIAL, delta, traffic, None, preserved, parity)
    if pool <= LARGEST_BLOCK:
        kind = AllocationPattern.BLOCK
    else:
        kind = AllocationPattern.PARITY if parity == 1.0 else AllocationPattern.RANDOM
    return PortPattern(kind, None, None, pool, preserved, parity)


def _steps(ports: Sequence[int]) -> list[int]:
    """The differences of a sequence, without the one where it begins anew; empty where there is none."""
    steps = [after - before for before, after in pairwise(ports)]
    is_rising = sum(step > 0 for step in steps) * 2 > len(steps)
    fitting = [step for step in steps if 0 < (step if is_rising else -step) <= LARGEST_GAP]
    misfits = len(steps) - len(fitting)
    # Few ports of a small block rise by chance but for one step; a sequence that begins anew jumps far.
    is_long = len(steps) >= ENOUGH_STEPS or all(step in fitting or abs(step) > LARGEST_GAP for step in steps)
    return fitting if len(fitting) >= 2 and misfits <= (1 if is_long else 0) else []


def _delta(steps: Sequence[int]) -> int:
    """The step of the translator: the usual one, or, among much traffic of others, what divides them all."""
    usual, times = Counter(steps).most_common(1)[0]
    if times * 2 >= len(steps) and all(step % usual == 0 for step in steps):
        return usual
    return gcd(*steps) * (1 if usual > 0 else -1)


def _cross_traffic(steps: Sequence[int], delta: int, seconds: float) -> float | None:
    if seconds <= 0:
        return None
    return sum(step / delta - 1 for step in steps) / seconds
