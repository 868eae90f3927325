"""How often a meeting's ICE session may begin anew: each time costs signals, of which a hub takes few."""

from __future__ import annotations

# Restarts at once: a machine that is carried from one network to another changes several times in a row.
BURST = 8
# Seconds for one more. A restart has 10 kB of signals, and a hub takes 1 kB/s in the long run.
INTERVAL = 10.0


class RestartPace:
    """A bucket of restarts; times are seconds of one clock."""

    def __init__(self, burst: int = BURST, interval: float = INTERVAL) -> None:
        """`burst` at once, then one more each `interval` seconds."""
        self._burst = burst
        self._interval = interval
        # When the bucket would be full again.
        self._full_at = 0.0

    def wait(self, now: float) -> float:
        """Seconds until the next restart may be."""
        return max(self._full_at - now - (self._burst - 1) * self._interval, 0.0)

    def take(self, now: float) -> None:
        """A restart has been made."""
        self._full_at = max(self._full_at, now) + self._interval
