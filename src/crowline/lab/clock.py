"""Virtual time: a queue of calls, each at its time; the clock jumps from one to the next."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from crowline.base.errors import UsageError

MAX_STEPS_AT_ONE_TIME = 10_000  # more means that a machine asks for the present again and again


class Timer:
    """One call to come. `cancel` takes it back."""

    __slots__ = ("call", "time")

    def __init__(self, time: float, call: Callable[[], None]) -> None:
        self.time = time
        self.call: Callable[[], None] | None = call

    def cancel(self) -> None:
        self.call = None


class VirtualClock:
    """`now` is in seconds and starts at 0. Calls for one time happen in the order of asking."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[tuple[float, int, Timer]] = []
        self._sequence = 0
        self._steps_now = 0

    def call_at(self, time: float, call: Callable[[], None]) -> Timer:
        """Do something at a time; what lies in the past is done next."""
        self._sequence += 1
        timer = Timer(time if time > self.now else self.now, call)
        heapq.heappush(self._queue, (timer.time, self._sequence, timer))
        return timer

    def step(self) -> bool:
        """Jump to the next call. False when nothing will ever happen again."""
        queue = self._queue
        while queue:
            time, _, timer = heapq.heappop(queue)
            if timer.call is None:
                continue
            self._steps_now = self._steps_now + 1 if time == self.now else 0
            if self._steps_now > MAX_STEPS_AT_ONE_TIME:
                raise UsageError("the clock stands still: a machine asks for the present again and again")
            self.now = time
            timer.call()
            return True
        return False

    def run(self, until: Callable[[], bool] | None = None, *, limit: float = 60.0) -> bool:
        """Step until `until` holds, nothing is left to do or `limit` seconds are over; whether it holds."""
        end = self.now + limit
        while until is None or not until():
            at = self._next_time()
            if at is None:
                return False
            if at > end:
                self.now = max(self.now, end)
                return False
            self.step()
        return True

    def _next_time(self) -> float | None:
        while self._queue and self._queue[0][2].call is None:
            heapq.heappop(self._queue)
        return self._queue[0][0] if self._queue else None
