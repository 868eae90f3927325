"""When something is due, for any number of things, without going through all of them."""

from __future__ import annotations

import heapq
from collections.abc import Hashable
from typing import Generic, TypeVar

MAX_DEAD = 256  # alarms that were cancelled or moved, before they are swept together

K = TypeVar("K", bound=Hashable)


class Alarms(Generic[K]):
    """At most one time for each key; setting, moving and cancelling cost a logarithm at most."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, K]] = []
        # The alarm of a key that counts is the one whose serial stands here.
        self._current: dict[K, tuple[float, int]] = {}
        self._serial = 0

    def __len__(self) -> int:
        """Alarms in memory, those that no longer count among them."""
        return len(self._heap)

    def set(self, key: K, time: float) -> None:
        """`key` is due at `time`, and at no other time."""
        self._serial += 1
        self._current[key] = (time, self._serial)
        heapq.heappush(self._heap, (time, self._serial, key))
        self._sweep()

    def cancel(self, key: K) -> None:
        if self._current.pop(key, None) is not None:
            self._sweep()

    def time_of(self, key: K) -> float:
        """When a key that has an alarm is due."""
        return self._current[key][0]

    def next(self) -> float | None:
        """When the next key is due."""
        return self._heap[0][0] if self._heap else None

    def is_due(self, now: float) -> bool:
        """Whether `take_due` has something."""
        return bool(self._heap) and self._heap[0][0] <= now

    def take_due(self, now: float) -> list[K]:
        """The keys that are due, in order; their alarms are gone."""
        due = []
        while self.is_due(now):
            key = heapq.heappop(self._heap)[2]
            del self._current[key]
            due.append(key)
            self._sweep()
        return due

    def _sweep(self) -> None:
        """Keep the heap small, and what no longer counts from its top."""
        if len(self._heap) > 2 * len(self._current) + MAX_DEAD:
            self._heap = [(time, serial, key) for key, (time, serial) in self._current.items()]
            heapq.heapify(self._heap)
        while self._heap and self._current.get(self._heap[0][2]) != self._heap[0][:2]:
            heapq.heappop(self._heap)
