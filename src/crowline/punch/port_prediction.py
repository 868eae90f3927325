"""Which port a NAT that counts will give next, from the ports that it gave.

Such a NAT gives each new mapping the port of the one before plus a step. Others behind it take ports too:
between two of ours lie as many as came up meanwhile, which is a Poisson count of a rate λ that nobody knows.
A handful of ports tells little of λ, so that the window is not reckoned from the measured rate but from the
distribution of the next count given the counts so far (Jeffreys' prior; a negative binomial): a short watch
makes a wide window, a long quiet one a narrow window.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import ceil, gcd

from msgspec import Struct

from crowline.punch.port_pool import HIGHEST_PORT, LOWEST_PORT

MIN_OBSERVATIONS = 4  # ports to see before a step is believed
OBSERVATIONS = 8  # ports worth asking for, 10 to 20 ms apart: eight random ones rise once in 40,320 times
# Steps farther than this between two ports are no count of others' mappings: 1,000 a second make 20 in 20 ms,
# of a step of up to 8.
MAX_STEP = 256

MIN_WINDOW, MAX_WINDOW = 10, 64  # ports guessed at a time
MISS = 0.001  # the chance that the next port is beyond the window, while the window is not the largest
# The chance that others take more ports than a shared target has room for, until the burst begins. Every port
# of room costs a socket on both sides.
TARGET_MISS = 0.01
TARGET_SPARE = 5  # sockets beyond the target: it is passed even when nobody else takes a port
MIN_DISTANCE = 10  # mappings from the last port seen to a shared target, at least
MAX_BURST = 50  # sockets that one burst opens


class Observation(Struct, frozen=True):
    """The outside port of a new mapping, and when its first packet left: seconds."""

    port: int
    at: float


class SharedTarget(Struct, frozen=True):
    """The one port that all sockets of the other side's burst send to.

    `sockets` is how many this side opens in its own burst, so that one of them gets `port`.
    """

    port: int
    sockets: int


class PortSequence(Struct, frozen=True):
    """A NAT that adds `step` for each mapping; `last` is the latest that was seen.

    In `watched` seconds others took `others` ports. `low` is where the count goes on after the highest port.
    """

    last: Observation
    step: int
    others: int
    watched: float
    low: int = LOWEST_PORT

    @property
    def rate(self) -> float:
        """λ: mappings of others each second, as measured."""
        return self.others / self.watched

    def port(self, count: int) -> int:
        """The port of the mapping `count` after the last that was seen; 1 is the next."""
        return self.low + (self.last.port + self.step * count - self.low) % (HIGHEST_PORT + 1 - self.low)

    def window(self, at: float) -> tuple[int, ...]:
        """The ports that a mapping made at `at` may have, the likeliest first."""
        size = min(MAX_WINDOW, max(MIN_WINDOW, 1 + self._most_others(at, MISS)))
        chances = self._chances(at)
        counts = sorted(range(size), key=lambda count: -chances[count])
        return tuple(self.port(count + 1) for count in counts)

    def shared_target(self, at: float) -> SharedTarget:
        """The target for two sides that both count, whose bursts begin at `at`.

        Each sends the whole burst to the other's target: the socket that gets this side's target and the one
        that gets the other's meet.
        """
        room = self._most_others(at, TARGET_MISS)
        distance = min(MAX_BURST - TARGET_SPARE, max(MIN_DISTANCE, room + 1))
        return SharedTarget(self.port(distance), distance + TARGET_SPARE)

    def _most_others(self, at: float, miss: float) -> int:
        """The count that others exceed until `at` with that chance only; bounded by the largest window."""
        total = 0.0
        for count, chance in enumerate(self._chances(at)):
            total += chance
            if total >= 1.0 - miss:
                return count
        return MAX_WINDOW

    def _chances(self, at: float) -> list[float]:
        """How likely it is that others take 0, 1, 2… ports from the last that was seen until `at`."""
        shape = self.others + 0.5
        ahead = max(0.0, at - self.last.at)
        share = ahead / (self.watched + ahead)
        terms = [(1.0 - share) ** shape]
        for count in range(1, MAX_WINDOW):
            terms.append(terms[-1] * share * (shape + count - 1) / count)
        return terms


def sequence_of(observations: Sequence[Observation]) -> PortSequence | None:
    """The sequence that these follow; ``None`` when there are too few of them, or they follow none.

    All steps but one have one direction; their greatest common divisor is the step of the NAT, a parity that
    it keeps included. The one leads over the end of the count: back, and farther than all others together.
    """
    seen = sorted(observations, key=lambda observation: observation.at)
    if len(seen) < MIN_OBSERVATIONS:
        return None
    differences = [(after.port - before.port, before, after) for before, after in pairwise(seen)]
    rising = sum(0 < difference <= MAX_STEP for difference, _, _ in differences)
    falling = sum(-MAX_STEP <= difference < 0 for difference, _, _ in differences)
    direction = 1 if rising >= falling else -1
    steps = [d for d, _, _ in differences if 0 < d * direction <= MAX_STEP]
    breaks = [(d, before, after) for d, before, after in differences if not 0 < d * direction <= MAX_STEP]
    if any(-d * direction <= 2 * abs(sum(steps)) for d, _, _ in breaks):
        return None
    if len(breaks) > 1 or len(steps) < MIN_OBSERVATIONS - 1 - len(breaks) or len(steps) < 2:
        return None
    step = direction * gcd(*steps)
    over_an_end = sum(after.at - before.at for _, before, after in breaks)
    watched = seen[-1].at - seen[0].at - over_an_end
    if watched <= 0:
        return None
    return PortSequence(
        last=seen[-1],
        step=step,
        others=sum(difference // step - 1 for difference in steps),
        watched=watched,
        low=min(LOWEST_PORT, *(observation.port for observation in seen)),
    )


def between(before: Observation, after: Observation, step: int) -> tuple[int, ...]:
    """The ports that a mapping made between two that were seen can have, the middle ones first.

    Whoever sends the opener between two samples needs no guess of λ. Empty when the count went over its end
    in between, or too many ports lie there.
    """
    count = (after.port - before.port) // step
    if not 1 < count <= MAX_WINDOW or (after.port - before.port) % step:
        return ()
    middle = ceil(count / 2)
    counts = sorted(range(1, count), key=lambda index: abs(index - middle))
    return tuple(before.port + step * index for index in counts)
