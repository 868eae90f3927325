"""How fast stream bytes may leave: a token bucket, and the slower of two wishes."""

from __future__ import annotations

# Seconds of the rate that may be saved up: what a timer that fires late takes from the rate is given back.
_SAVED = 0.1
# Seconds of the rate that are worth waking up for: less costs more turns than it smooths.
_WORTH = 0.01
# Bytes that are worth it whatever the rate: about one datagram.
_LEAST = 1200
MAX_RATE = (1 << 64) - 1
"""Bytes a second, as far as a frame can say."""


class Pace:
    """At most `rate` bytes a second, from `now` on."""

    def __init__(self, rate: int, now: float) -> None:
        self.rate = max(rate, 1)
        self._worth = max(self.rate * _WORTH, _LEAST)
        self._most = max(self.rate * _SAVED, 2 * self._worth)
        self._tokens = 0.0
        self._filled_at = now

    def room(self, now: float) -> int:
        """Bytes that may leave now: none, or enough to be worth it."""
        if now > self._filled_at:
            self._tokens = min(self._most, self._tokens + (now - self._filled_at) * self.rate)
            self._filled_at = now
        return int(self._tokens) if self._tokens >= self._worth else 0

    def spend(self, count: int) -> None:
        """`count` bytes left. Those that were not there are owed."""
        self._tokens -= count

    def ready_at(self) -> float:
        """When `room` gives something again."""
        # Half a byte later: rounding must not make anybody wake up in vain.
        return self._filled_at + max(0.0, self._worth - self._tokens + 0.5) / self.rate


class Pacing:
    """The pace of one side, which both sides may wish to be slower; without a wish there is none.

    `wish` is this side's own, in bytes a second.
    """

    def __init__(self) -> None:
        self.wish: int | None = None
        self._asked: int | None = None
        self._pace: Pace | None = None
        self._held = False

    def limit(self, rate: int, now: float) -> None:
        """This side's wish."""
        self.wish = min(rate, MAX_RATE)
        self._settle(now)

    def asked(self, rate: int, now: float) -> None:
        """The other side's wish."""
        self._asked = rate
        self._settle(now)

    def room(self, room: int, now: float) -> int:
        """As much of `room` as may be used now."""
        if self._pace is None:
            return room
        allowed = self._pace.room(now)
        self._held = not allowed
        return min(room, allowed)

    def spend(self, count: int) -> None:
        if self._pace is not None:
            self._pace.spend(count)

    def handle_timeout(self, now: float) -> None:
        """Whoever holds bytes back asks again."""
        if (at := self.next_timeout()) is not None and now >= at:
            self._held = False

    def next_timeout(self) -> float | None:
        """When bytes that were held back may leave."""
        return self._pace.ready_at() if self._pace is not None and self._held else None

    def _settle(self, now: float) -> None:
        rate = min(rate for rate in (self.wish, self._asked) if rate is not None)
        if self._pace is None or self._pace.rate != max(rate, 1):
            self._pace = Pace(rate, now)
