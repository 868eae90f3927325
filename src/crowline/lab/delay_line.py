"""A process that is nothing but distance: two tunnel devices, and so many seconds between them each way.

    python -m crowline.lab.delay_line SECONDS RUNS NAMESPACE DEVICE NAMESPACE DEVICE

What comes out of one device goes into the other later, in order and unread, which is what lets it carry
gigabits. With RUNS (1 or 0) the kernels hand over whole segmentation runs; without, single packets. It says
"ready" on standard output, and ends with its input; the devices go with it.
"""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections import deque

from crowline.lab.tun import LARGEST_READ, Tun, open_tun

# Packets taken from one device before the other and the clock get their turn.
_READS_PER_TURN = 64
# Bytes on their way in one direction: 100 ms of 2.5 Gbit/s. A line has room for what is on it; queues are
# the business of what stands before it.
_ON_THE_WAY = 32 << 20
_BEFORE_OTHERS = -10  # nice value: delays are this process's product


class Direction:
    """From one device to another, `delay` seconds later."""

    def __init__(self, source: Tun, target: Tun, delay: float) -> None:
        self.source, self.target, self.delay = source.descriptor, target.descriptor, delay
        self._queue: deque[tuple[float, bytes]] = deque()
        self._size = 0

    @property
    def due(self) -> float | None:
        """When the next packet arrives."""
        return self._queue[0][0] if self._queue else None

    def take(self, now: float) -> None:
        """Take what the source has."""
        at = now + self.delay
        for _ in range(_READS_PER_TURN):
            try:
                packet = os.read(self.source, LARGEST_READ)
            except BlockingIOError:
                return
            if self._size + len(packet) <= _ON_THE_WAY:
                self._queue.append((at, packet))
                self._size += len(packet)

    def deliver(self, now: float) -> None:
        """Hand over what has arrived."""
        while self._queue and self._queue[0][0] <= now:
            _, packet = self._queue.popleft()
            self._size -= len(packet)
            with contextlib.suppress(OSError):  # the target is not up (yet): lost, as on any such line
                os.write(self.target, packet)


def carry(one: Tun, other: Tun, delay: float) -> None:
    """Carry packets until standard input ends. The devices' namespaces may go at any time."""
    directions = {line.source: line for line in (Direction(one, other, delay), Direction(other, one, delay))}
    stdin = sys.stdin.fileno()
    while True:
        dues = [line.due for line in directions.values() if line.due is not None]
        patience = max(0.0, min(dues) - time.monotonic()) if dues else None
        readable, _, _ = select.select([stdin, *directions], [], [], patience)
        now = time.monotonic()
        for descriptor in readable:
            if descriptor == stdin:
                return
            directions[descriptor].take(now)
        for line in directions.values():
            line.deliver(now)


def main() -> None:
    seconds, runs, *places = sys.argv[1:]
    with contextlib.suppress(OSError):
        os.nice(_BEFORE_OTHERS)
    one, other = open_tun(places[1], places[0]), open_tun(places[3], places[2])
    if runs == "0":
        one.refuse_runs()
        other.refuse_runs()
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    with contextlib.suppress(OSError):
        carry(one, other, float(seconds))


if __name__ == "__main__":
    main()
