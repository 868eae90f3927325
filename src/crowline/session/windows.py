"""How far ahead of its reader each stream may be sent: windows that grow with use, out of one budget.

What a session keeps for its readers is never more than all windows together: `BASE` for each stream that may
be open, and `SPARE` for those whose readers keep up.
"""

from __future__ import annotations

from crowline.session.buffers import ReceiveBuffer

# Bytes of one stream that may be on the way or unread at first. Both sides count with it before the first
# WINDOW frame. The first flights of a connection are less (RFC 6928: 15 KB, then twice that).
BASE = 64 << 10
# The same at most: 16 MiB fill 100 MB/s over a round trip of 160 ms.
LARGEST = 16 << 20
# Bytes by which all windows of a session together may have grown.
SPARE = 32 << 20
# A reader that takes half a window in so many round trips is kept waiting by the window.
_QUICK_ROUND_TRIPS = 2
# Seconds that a round trip counts for at least: between two busy programs of one machine, a byte that is
# read and the credit for it wait for their turns about as long.
_SHORTEST_ROUND_TRIP = 0.005


class Reading:
    """How fast one stream is read: the time when the last half of its window began."""

    def __init__(self, now: float) -> None:
        self.since = now
        self.consumed = 0


class Windows:
    """The budget of one session. `largest` bounds each window."""

    def __init__(self, largest: int = LARGEST) -> None:
        self.base = min(BASE, largest)
        self.largest = largest
        self.spare = SPARE

    def consumed(self, receiving: ReceiveBuffer, reading: Reading, now: float, rtt: float | None) -> None:
        """Something was read; double the window of a reader that it keeps waiting, while there is room."""
        if receiving.consumed - reading.consumed < receiving.window // 2:
            return
        took = now - reading.since
        reading.since, reading.consumed = now, receiving.consumed
        if rtt is not None and took >= _QUICK_ROUND_TRIPS * max(rtt, _SHORTEST_ROUND_TRIP):
            return
        step = min(receiving.window, self.largest - receiving.window, self.spare)
        receiving.window += step
        self.spare -= step

    def give_back(self, receiving: ReceiveBuffer) -> None:
        """The stream is over; what its window had grown by is for others."""
        self.spare += receiving.window - self.base
