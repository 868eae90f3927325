"""What is to be looked at later, soonest first."""

from __future__ import annotations

import heapq
from collections.abc import Callable

Check = Callable[[float], None]
"""Called with the time at which it is called."""


class Alarms:
    """There is no way to take one back: a check finds out for itself whether it still matters."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Check]] = []
        self._count = 0

    def at(self, time: float, check: Check) -> None:
        """Have `check` called at `time`; of those for the same time, the first one set goes first."""
        self._count += 1
        heapq.heappush(self._heap, (time, self._count, check))

    def next_time(self) -> float | None:
        return self._heap[0][0] if self._heap else None

    def ring(self, now: float) -> None:
        """Call what is due."""
        while self._heap and self._heap[0][0] <= now:
            _, _, check = heapq.heappop(self._heap)
            check(now)
