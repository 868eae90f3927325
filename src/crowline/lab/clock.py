"""Virtual time: a queue of calls, each at its time; the clock jumps from one to the next."""

from __future__ import annotations

import heapq
import math
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
        timer = Timer(time if time > self.now else self.now)
        self._sequence += 1
        heapq.heappush(self._queue, (timer.time, self._sequence, timer, call, arguments))
        return timer

    def post(self, time: float, call: Callable[..., None], *arguments: Any) -> None:
        """Do something at a time that is not in the past, and cannot be taken back: packets on their way."""
        self._sequence += 1
        heapq.heappush(self._queue, (time, self._sequence, None, call, arguments))

    def step(self) -> bool:
        """Jump to the next call. False when nothing will ever happen again."""
        return self._step(math.inf) is not None

    def run(self, until: Callable[[], bool] | None = None, *, limit: float = 60.0) -> bool:
        """Step until `until` holds, nothing is left to do or `limit` seconds are over; whether it holds."""
        end = self.now + limit
        while until is None or not until():
            over = self._step(end)
            if over is None:
                return False
            if over:
                self.now = max(self.now, end)
                return False
        return True

    def _step(self, end: float) -> bool | None:
        """Make the next call; True when it lies after `end` and has to wait, ``None`` when there is none."""
        queue = self._queue
        while queue:
            time, _, timer, call, arguments = queue[0]
            if timer is not None and timer.is_cancelled:
                heapq.heappop(queue)
                continue
            if time > end:
                return True
            heapq.heappop(queue)
            if time != self.now:
                self._steps_now = 0
                self.now = time
            elif self._steps_now >= MAX_STEPS_AT_ONE_TIME:
                raise UsageError("the clock stands still: a machine asks for the present again and again")
            self._steps_now += 1
            call(*arguments)
            return False
        return None
