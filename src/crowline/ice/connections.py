"""The TCP connections of an agent, as far as its driver has told (RFC 6544 §7.1, §11.1)."""

from __future__ import annotations

from collections.abc import Callable

from crowline.ice.pair import Way
from crowline.stun.transaction import RELIABLE

# Seconds that a connection may take: what a check over TCP is given (RFC 8489 §6.2.2). Drivers give up
# sooner; this is for one that never says so.
CONNECT_PATIENCE = RELIABLE.patience


class Connections:
    """One connection a way at most, asked for or accepted.

    An accepted one that no pair has claimed yet is the driver's: it knows how long strangers may stay.
    """

    def __init__(self) -> None:
        self._wanted: dict[Way, float] = {}  # the end of patience with each
        self._open: dict[Way, bool] = {}  # whether a pair has claimed it
        self._handed_over: set[Way] = set()

    def is_open(self, way: Way) -> bool:
        return way in self._open or way in self._handed_over

    def is_handed_over(self, way: Way) -> bool:
        """Whether it carries something else than ICE."""
        return way in self._handed_over

    def hand_over(self, way: Way) -> None:
        """It is somebody else's until it ends."""
        if self._open.pop(way, None) is not None:
            self._handed_over.add(way)

    def is_wanted(self, way: Way) -> bool:
        """Whether it was asked for, and neither came nor failed."""
        return way in self._wanted

    def want(self, way: Way, now: float) -> None:
        """The driver is asked for a connection."""
        self._wanted[way] = now + CONNECT_PATIENCE

    def opened(self, way: Way) -> bool:
        """There is a connection. Gives whether it had been asked for."""
        wanted = self._wanted.pop(way, None) is not None
        if way not in self._handed_over:
            self._open.setdefault(way, False)
        return wanted

    def ended(self, way: Way) -> None:
        """There is no connection, nor an attempt at one."""
        self._wanted.pop(way, None)
        self._open.pop(way, None)
        self._handed_over.discard(way)

    def forget(self, serves: Callable[[Way], bool]) -> list[Way]:
        """Forget those that served a pair, or should have, and `serves` none any more; which these are."""
        for way, claimed in self._open.items():
            if not claimed:
                self._open[way] = serves(way)
        mine = [*self._wanted, *(way for way, claimed in self._open.items() if claimed)]
        useless = [way for way in mine if not serves(way)]
        for way in useless:
            self.ended(way)
        return useless

    def next_timeout(self) -> float | None:
        return min(self._wanted.values(), default=None)

    def postpone(self, seconds: float) -> None:
        """So much time has passed that does not count."""
        for way in self._wanted:
            self._wanted[way] += seconds

    def overdue(self, now: float) -> list[Way]:
        """Those whose driver has said nothing for too long."""
        return [way for way, end in self._wanted.items() if end <= now]
