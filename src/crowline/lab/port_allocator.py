"""Which outside port a new mapping gets (RFC 4787 §4.2), by kind, entropy and what is free."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from math import gcd

from crowline.base.addresses import Address
from crowline.lab.behaviour import Allocation, AllocationKind

RANDOM_TRIES = 16  # random ports tried before the next free one above is searched for


class PortAllocator:
    """Gives out the ports of one translator. `ports` are the lowest and the highest.

    Protocols have port spaces of their own and count by themselves; a block belongs to an inside host in all
    of them, until `release` has been called as often as `allocate` gave it a port.
    """

    def __init__(self, ports: tuple[int, int], entropy: Callable[[int], bytes]) -> None:
        self._low, self._high = ports
        self._entropy = entropy
        self._last: dict[int, int] = {}
        self._blocks: dict[tuple[str, int], int] = {}
        self._taken_blocks: set[tuple[int, int]] = set()
        self._in_use: dict[str, int] = {}

    def allocate(
        self, allocation: Allocation, protocol: int, inside: Address, is_free: Callable[[int], bool]
    ) -> int | None:
        """A port for which `is_free` holds; ``None`` when this host can have no more.

        `is_free` may release ports, also of the same host.
        """
        self._in_use[inside.host] = self._in_use.get(inside.host, 0) + 1
        port = self._choose(allocation, protocol, inside, is_free)
        if port is None:
            self.release(inside.host)
        return port

    def pass_over(self, protocol: int, ports: int) -> None:
        """Others got so many of the next ports of a sequence; negative where it counts down."""
        if (last := self._last.get(protocol)) is not None:
            self._last[protocol] = self._low + (last - self._low + ports) % (self._high - self._low + 1)

    def release(self, host: str) -> None:
        """A port of that inside host is given back; with the last one goes its block."""
        left = self._in_use[host] - 1
        if left:
            self._in_use[host] = left
            return
        del self._in_use[host]
        for owner, size in [key for key in self._blocks if key[0] == host]:
            self._taken_blocks.discard((self._blocks.pop((owner, size)), size))

    def _choose(
        self, allocation: Allocation, protocol: int, inside: Address, is_free: Callable[[int], bool]
    ) -> int | None:
        kind = allocation.kind
        if kind is AllocationKind.SEQUENTIAL:
            return self._next(protocol, allocation.step, is_free)
        if kind is AllocationKind.BLOCK:
            block = self._block(inside.host, allocation.size)
            return None if block is None else self._random(block, is_free)
        if kind is AllocationKind.PARITY:
            first = self._low + (self._low ^ inside.port) % 2
            return self._random(range(first, self._high + 1, 2), is_free)
        if kind is AllocationKind.PRESERVING and is_free(inside.port):
            return inside.port
        return self._random(range(self._low, self._high + 1), is_free)

    def _next(self, protocol: int, step: int, is_free: Callable[[int], bool]) -> int | None:
        """Walk on by steps, over the end to the other one; then take whatever no step leads to."""
        span = self._high - self._low + 1
        last = self._last.get(protocol)
        if last is None:  # a box that was not switched on just now stands anywhere
            last = self._draw(range(self._low, self._high + 1))
        offset = last - self._low
        walk = (self._low + (offset + step * count) % span for count in range(1, span // gcd(span, step) + 1))
        port = _first(chain(walk, range(self._low, self._high + 1)), is_free)
        if port is not None:
            self._last[protocol] = port
        return port

    def _block(self, host: str, size: int) -> range | None:
        """The ports of this host: a free one of the blocks that the range divides into."""
        start = self._blocks.get((host, size))
        if start is None:
            starts = range(self._low, self._high + 2 - size, size)
            start = self._random(starts, lambda port: not self._overlaps(port, size)) if starts else None
            if start is None:
                return None
            self._blocks[host, size] = start
            self._taken_blocks.add((start, size))
        return range(start, start + size)

    def _overlaps(self, start: int, size: int) -> bool:
        if (start, size) in self._taken_blocks:
            return True
        return any(
            other < start + size and start < other + length
            for other, length in self._taken_blocks
            if length != size
        )

    def _random(self, ports: range, is_free: Callable[[int], bool]) -> int | None:
        if not ports:
            return None
        for _ in range(RANDOM_TRIES):
            port = self._draw(ports)
            if is_free(port):
                return port
        start = ports.index(self._draw(ports))
        return _first(chain(ports[start:], ports[:start]), is_free)

    def _draw(self, ports: range) -> int:
        return ports[int.from_bytes(self._entropy(4), "big") % len(ports)]


def _first(ports: Iterable[int], is_free: Callable[[int], bool]) -> int | None:
    return next((port for port in ports if is_free(port)), None)
