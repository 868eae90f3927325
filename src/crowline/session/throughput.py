"""How fast stream bytes arrive while more of them wait than their link takes."""

from __future__ import annotations

from collections import deque

# Seconds, and round trips, that a rate is measured over: long enough for the sawtooth of a window that is
# halved by losses.
WINDOW = 1.0
_WINDOW_ROUND_TRIPS = 10
# Seconds after which something can be said of bulk between near machines at all.
_LEAST_TIME = 0.05
# Seconds between two moments at which the link was full that bulk is still going on for.
LONGEST_GAP = 0.5
# Seconds between two marks, and how many are kept: those of ten round trips to the moon.
_MARK_INTERVAL = 0.01
_MAX_MARKS = 2600


class Throughput:
    """Measured by the other side's acknowledgements. What the user or the other side is slow with is no
    measure of a link: then the link is not full, and there is no rate."""

    def __init__(self) -> None:
        self._is_full = False
        self._began: float | None = None
        self._last_full = float("-inf")
        self._total = 0
        # What had arrived, in all, at times since the beginning; the first is the window's or before it.
        self._marks: deque[tuple[float, int]] = deque(maxlen=_MAX_MARKS)

    @property
    def last_full(self) -> float:
        """When bytes last waited for room."""
        return self._last_full

    def restart(self, now: float) -> None:
        """Forget what was measured: another link carries from now on."""
        self._began = now if self._began is not None else None
        self._total = 0
        self._marks.clear()
        self._marks.append((now, 0))

    def full(self) -> None:
        """Bytes wait, and the link has no room."""
        self._is_full = True

    def look(self, now: float) -> None:
        """Note what has been said since the last look, as of now."""
        if not self._is_full:
            return
        self._is_full = False
        if self._began is None or now - self._last_full > LONGEST_GAP:
            self._began = now
            self.restart(now)
        self._last_full = now

    def arrived(self, size: int, now: float) -> None:
        """The other side has acknowledged so many bytes more."""
        if not self.busy_for(now):
            return
        self._total += size
        if now - self._marks[-1][0] >= _MARK_INTERVAL:
            self._marks.append((now, self._total))

    def busy_for(self, now: float) -> float:
        """Seconds for which bytes have waited for the link without a pause."""
        if self._began is None or now - self._last_full > LONGEST_GAP:
            return 0.0
        return now - self._began

    def so_far(self, now: float) -> float | None:
        """Bytes a second since the bulk began, for which less time is enough; None before that."""
        busy = self.busy_for(now)
        return self._total / busy if busy >= _LEAST_TIME else None

    def rate(self, now: float, rtt: float) -> float | None:
        """Bytes a second of late; None while it has not been measured for long enough."""
        window = max(WINDOW, _WINDOW_ROUND_TRIPS * rtt)
        if self.busy_for(now) < window:
            return None
        while len(self._marks) > 1 and self._marks[1][0] <= now - window:
            self._marks.popleft()
        since, total = self._marks[0]
        return (self._total - total) / (now - since)
