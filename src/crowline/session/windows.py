"""How far ahead of its reader each stream may be sent: windows that grow with use, out of one budget.

What a session keeps for its readers is never more than all windows together: `BASE` for each stream that may
be open, and `SPARE` for those whose readers keep up.
"""

from __future__ import annotations

from collections.abc import Callable

from crowline.session.buffers import ReceiveBuffer

# Bytes of one stream that may be on the way or unread at first. Both sides count with it before the first
# WINDOW frame. The first flights of a connection are less (RFC 6928: 15 KB, then twice that).
BASE = 64 << 10
# The same at most: 16 MiB fill 100 MB/s over a round trip of 160 ms.
LARGEST = 16 << 20
# Bytes by which all windows of a session together may have grown.
SPARE = 32 << 20
# Seconds that a round trip counts for at least: between two busy programs of one machine, a byte that is
# read and the credit for it wait for their turns. More is no faster there: what a wider window brings waits
# for the reader, on both sides.
_SHORTEST_ROUND_TRIP = 0.00125
# Bytes of a window that is enough for paths which are shorter than they seem, and seconds of a round trip
# that may have been two busy programs' own when it was measured.
_AMPLE = 4 << 20
_ANSWER_TIME = 0.002
# Round trips in which half a window is read that keeps its reader waiting: with full queues on the way, one
# takes a multiple of the shortest that was measured.
_ROUND_TRIPS = 2
# Seconds over which the reading of shorter round trips is looked at: a program that was held up reads what
# came meanwhile all at once.
_SHORTEST_PERIOD = 0.02


class Reading:
    """How fast one stream is read: since when, from which byte on."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.consumed = 0
        # Bytes after which it is looked at again.
        self.enough = 0.0


class Windows:
    """The budget of one session. `largest` bounds each window."""

    def __init__(self, largest: int = LARGEST) -> None:
        self.base = min(BASE, largest)
        self.largest = largest
        self.spare = SPARE

    def consumed(
        self, receiving: ReceiveBuffer, reading: Reading, now: float, idle_rtt: Callable[[], float | None]
    ) -> None:
        """Something was read. A window of which half is read in less than two round trips keeps its reader
        waiting: it is doubled, while there is room.
        """
        consumed, half = receiving.consumed - reading.consumed, receiving.window / 2
        if consumed < max(half, reading.enough):
            return
        rtt = idle_rtt()
        delay = _ANSWER_TIME if receiving.window >= _AMPLE else 0.0
        trip = _ROUND_TRIPS * max((rtt or 0.0) - delay, _SHORTEST_ROUND_TRIP)
        reading.enough = half * _SHORTEST_PERIOD / trip
        if consumed < reading.enough:
            return
        took = now - reading.since
        reading.since, reading.consumed, reading.enough = now, receiving.consumed, 0.0
        if rtt is not None and consumed * trip <= half * took:
            return
        step = min(receiving.window, self.largest - receiving.window)
        # No window is larger than what it leaves to others: windows do not shrink, and a stream that was fast
        # may be idle for hours beside new ones.
        if receiving.window + step <= self.spare - step:
            receiving.window += step
            self.spare -= step

    def give_back(self, receiving: ReceiveBuffer) -> None:
        """The stream is over; what its window had grown by is for others."""
        self.spare += receiving.window - self.base
