"""Link zero: the WebSocket to the hub as a link, sealed end to end, as far as the hub gives credit.

Frames are sealed with a key that the hub does not have; it can drop them and delay them, nothing else. The
hub tells each side how many bytes it may send in all, and more in time; it drops what goes beyond that. Bulk
data stops `RESERVE` short of it: what is left carries acknowledgements and the words that end a session.
"""

from __future__ import annotations

from collections import deque

from crowline.base.machine import Buffer
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp
from crowline.rendezvous.seal import Opener, SealBroken, Sealer

# Bytes of one sealed frame's contents; a hub takes messages of 64 KiB.
MAX_FRAME = 48 * 1024
# Bytes of a side's credit that bulk data leaves alone.
RESERVE = 64 * 1024
# Bytes that may wait for the WebSocket before bulk data pauses.
BACKLOG_LIMIT = 256 * 1024


class HubLink:
    """A machine whose `receive` takes one binary message and whose transmits are binary messages.

    The driver tells `queued`, the bytes that still wait in its WebSocket.
    """

    def __init__(self, sealer: Sealer, opener: Opener, credit: int) -> None:
        """`credit`: bytes that this side may send before the hub has granted any."""
        self.unanswered_since: float | None = None
        self.queued = 0
        self._sealer = sealer
        self._opener = opener
        self._credit = credit
        self._is_final = False
        self._sent = 0
        self._down = False
        # Acknowledgements and pings that wait for credit; bulk data waits in the session.
        self._waiting: deque[bytes] = deque()
        self._transmits: deque[bytes] = deque()
        self._events: deque[LinkEvent] = deque([LinkUp()])

    @property
    def is_exhausted(self) -> bool:
        """Whether this side has no credit left for stream bytes, and gets no more."""
        return self._is_final and self._sent + RESERVE >= self._credit

    def grant(self, limit: int, *, final: bool) -> None:
        """The hub lets this side send `limit` bytes in all; if `final`, it gives no more."""
        self._credit = max(self._credit, limit)
        self._is_final = self._is_final or final
        self._release()

    def room(self) -> int:
        """Stream bytes that may be sent now."""
        if self._down or self._waiting:
            return 0
        return max(0, min(self._credit - RESERVE - self._sent, BACKLOG_LIMIT - self.queued))

    def send(self, data: Buffer, now: float) -> None:
        """Seal `data` in frames. Those without credit wait for it; if no more comes, the link ends."""
        if self._down:
            return
        view = memoryview(data)
        for start in range(0, len(view), MAX_FRAME):
            self._waiting.append(self._sealer.seal(bytes(view[start : start + MAX_FRAME])))
        self._release()

    def receive(self, data: Buffer, source: None, now: float, local: None = None) -> None:
        """One binary message. One that does not open ends the link: the hub tampered or lost another."""
        if self._down:
            return
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

    def _release(self) -> None:
        """Send what the credit holds."""
        while self._waiting and self._sent + len(self._waiting[0]) <= self._credit:
            frame = self._waiting.popleft()
            self._sent += len(frame)
            self.queued += len(frame)
            self._transmits.append(frame)
        if self._waiting and self._is_final:
            self._waiting.clear()
            self.close("the server's budget for this meeting is used up")

    def handle_timeout(self, now: float) -> None:
        """Nothing here depends on time."""

    def next_timeout(self) -> None:
        return None

    def next_transmit(self) -> bytes | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> LinkEvent | None:
        return self._events.popleft() if self._events else None
