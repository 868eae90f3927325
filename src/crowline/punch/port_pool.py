"""From which ports a NAT draws at random, guessed from the ports that it gave.

Carriers give each subscriber a block of 512 to 4,096 ports (RFC 7422); others draw from their whole range, or
keep the parity of the inside port (RFC 4787 §4.2.2). Every port between the lowest and the highest that were
seen is in the pool for certain, whatever its size: these come first, and what lies farther out later.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from msgspec import Struct

LOWEST_PORT, HIGHEST_PORT = 1024, 65535  # below are ports that translators leave to services
# Ports seen before the same parity in all of them is taken for a rule: chance does it once in 128 times.
PARITY_EVIDENCE = 8
# A pool of more ports than this is no subscriber's block: the largest in use have 4,096 (RFC 7422 §2).
MAX_BLOCK = 8192


class PortPool(Struct, frozen=True):
    """Ports that were seen lie from `low` to `high`; `size` is how many the pool has, by the best guess.

    `step` is 2 where the NAT keeps parity: then only every second port from `low` on is in the pool.
    """

    low: int
    high: int
    size: int
    step: int = 1

    @property
    def is_block(self) -> bool:
        """Whether it looks like the block of one subscriber."""
        return self.size <= MAX_BLOCK

    def ports(self, count: int, entropy: Callable[[int], bytes]) -> tuple[int, ...]:
        """At most `count` different ports, the likeliest first.

        Those that lie between the seen ones are all as likely, and come in random order; outside, the nearer
        are likelier.
        """
        inside = _sample(range(self.low, self.high + 1, self.step), count, entropy)
        missing = count - len(inside)
        if missing <= 0:
            return tuple(inside)
        below = range(self.low - self.step, LOWEST_PORT - 1, -self.step)[:missing]
        above = range(
            self.high + (self.step - (self.high - self.low) % self.step), HIGHEST_PORT + 1, self.step
        )
        outside = sorted([*below, *above[:missing]], key=self._distance)
        return (*inside, *outside[:missing])

    def _distance(self, port: int) -> int:
        return max(self.low - port, port - self.high)


def pool_of(ports: Sequence[int]) -> PortPool:
    """The pool that these ports, at least one, were drawn from.

    The range of k ports of a pool is (k - 1) / (k + 1) of the pool on average. All of one parity show a NAT
    that keeps parity, provided that the inside ports were of one parity too, as those to come must be.
    """
    low, high, count = min(ports), max(ports), len(ports)
    is_even = count >= PARITY_EVIDENCE and len({port % 2 for port in ports}) == 1
    whole = HIGHEST_PORT - LOWEST_PORT + 1
    size = whole if count < 2 else min(whole, round((high - low + 1) * (count + 1) / (count - 1)))
    return PortPool(low, high, max(1, size // 2) if is_even else size, 2 if is_even else 1)


def _sample(ports: range, count: int, entropy: Callable[[int], bytes]) -> list[int]:
    """At most `count` different ones in random order: the first steps of a Fisher-Yates shuffle."""
    moved: dict[int, int] = {}
    chosen = []
    for index in range(min(count, len(ports))):
        other = index + int.from_bytes(entropy(4), "big") % (len(ports) - index)
        chosen.append(ports[moved.get(other, other)])
        moved[other] = moved.get(index, index)
    return chosen
