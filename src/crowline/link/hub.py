"""Link zero: the WebSocket to the hub as a link, sealed end to end, within the hub's budget.

Frames are sealed with a key that the hub does not have; it can drop them and delay them, nothing else. The
hub counts both directions of a meeting together and drops what goes beyond the budget, so bulk data stops
`RESERVE` short of it: what is left carries acknowledgements and the words that end a session.
"""

from __future__ import annotations

from collections import deque

from crowline.base.machine import Buffer
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp
from crowline.rendezvous.seal import Opener, SealBroken, Sealer

# Bytes of one sealed frame's contents; a hub takes messages of 64 KiB.
MAX_FRAME = 48 * 1024
# Bytes of the budget that bulk data leaves alone.
RESERVE = 128 * 1024
# Bytes that may wait for the WebSocket before bulk data pauses.
BACKLOG_LIMIT = 256 * 1024


class HubLink:
    """A machine whose `receive` takes one binary message and whose transmits are binary messages.

    The driver tells `queued`, the bytes that still wait in its WebSocket.
    """

    def __init__(self, sealer: Sealer, opener: Opener, budget: int) -> None:
        self.unanswered_since: float | None = None
        self.queued = 0
        self._sealer = sealer
        self._opener = opener
        self._budget = budget
        self._used = 0
        self._down = False
        self._transmits: deque[bytes] = deque()
        self._events: deque[LinkEvent] = deque([LinkUp()])

    @property
    def is_exhausted(self) -> bool:
        """Whether the budget has nothing left for stream bytes."""
        return self._used + RESERVE >= self._budget

    def room(self) -> int:
        """Stream bytes that may be sent now."""
        if self._down or self.is_exhausted:
            return 0
        return max(0, min(self._budget - RESERVE - self._used, BACKLOG_LIMIT - self.queued))

    def send(self, data: Buffer, now: float) -> None:
        """Seal `data` in frames; what the budget does not hold is not sent, and the link ends."""
        view = memoryview(data)
        for start in range(0, len(view), MAX_FRAME):
            frame = self._sealer.seal(bytes(view[start : start + MAX_FRAME]))
            if self._down or self._used + len(frame) > self._budget:
                self.close("the server's budget for this meeting is used up")
                return
            self._used += len(frame)
            self.queued += len(frame)
            self._transmits.append(frame)

    def receive(self, data: Buffer, source: None, now: float, local: None = None) -> None:
        """One binary message. One that does not open ends the link: the hub tampered or lost another."""
        if self._down:
            return
        self._used += len(data)
        try:
            opened = self._opener.open(bytes(data))
        except SealBroken:
            self.close("the server altered or lost a frame")
            return
        self._events.append(LinkData(opened))

    def close(self, reason: str) -> None:
        """End the link with `LinkDown`."""
        if not self._down:
            self._down = True
            self._events.append(LinkDown(reason))

    def handle_timeout(self, now: float) -> None:
        """Nothing here depends on time."""

    def next_timeout(self) -> None:
        return None

    def next_transmit(self) -> bytes | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> LinkEvent | None:
        return self._events.popleft() if self._events else None
