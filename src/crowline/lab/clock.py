"""Virtual time: a queue of calls, each at its time; the clock jumps from one to the next."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from typing import Any, TypeAlias

from crowline.base.errors import UsageError

MAX_STEPS_AT_ONE_TIME = 10_000  # more means that a machine asks for the present again and again


class Timer:
    """One call to come. `cancel` takes it back."""

    __slots__ = ("is_cancelled", "time")

    def __init__(self, time: float) -> None:
        self.time = time
        self.is_cancelled = False

    def cancel(self) -> None:
        self.is_cancelled = True


_Entry: TypeAlias = tuple[float, int, Timer | None, Callable[..., None], tuple[Any, ...]]


class VirtualClock:
    """`now` is in seconds and starts at 0. Calls for one time happen in the order of asking."""

    def __init__(self) -> None:
        self.now = 0.0
        self._queue: list[_Entry] = []
        self._sequence = 0
        self._steps_now = 0

    def call_at(self, time: float, call: Callable[..., None], *arguments: Any) -> Timer:
        """Do something at a time, unless it is taken back; what lies in the past is done next."""
        timer = Timer(max(time, self.now))
        self._push(timer.time, timer, call, arguments)
        return timer

    def post(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Do something at a time that is not in the past, and cannot be taken back: packets on their way."""
        self._push(time, None, call, arguments)

    def step(self) -> bool:
        """Jump to the next call. False when nothing will ever happen again."""
        queue = self._queue
        while queue:
            time, _, timer, call, arguments = heapq.heappop(queue)
            if timer is not None and timer.is_cancelled:
                continue
            if time != self.now:
                self._steps_now = 0
                self.now = time
            elif self._steps_now >= MAX_STEPS_AT_ONE_TIME:
                raise UsageError("the clock stands still: a machine asks for the present again and again")
            self._steps_now += 1
            call(*arguments)
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

    def _push(
        self, time: float, timer: Timer | None, call: Callable[..., None], arguments: tuple[Any, ...]
    ) -> None:
        self._sequence += 1
        heapq.heappush(self._queue, (time, self._sequence, timer, call, arguments))

    def _next_time(self) -> float | None:
        queue = self._queue
        while queue:
            timer = queue[0][2]
            if timer is None or not timer.is_cancelled:
                return queue[0][0]
            heapq.heappop(queue)
        return None
