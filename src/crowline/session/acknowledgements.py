"""When the other side hears what has arrived: at once after much, after a moment otherwise."""

from __future__ import annotations

from crowline.session.streams import StreamState

# Received bytes of one stream after which an acknowledgement does not wait.
_EVERY = 512 * 1024
# Seconds that an acknowledgement may wait for more bytes to acknowledge (the delay QUIC allows itself).
_DELAY = 0.025


class Acknowledgements:
    """The streams of which the other side has not been told everything."""

    def __init__(self) -> None:
        self._waiting: set[int] = set()
        self._at: float | None = None

    def arrived(self, stream: int, known: StreamState, now: float) -> bool:
        """Bytes of `stream` came; whether that is to be told at once."""
        if known.receiving.contiguous - known.told_contiguous >= _EVERY:
            return True
        self._waiting.add(stream)
        self.wait(now)
        return False

    def wait(self, now: float) -> None:
        """There is something to tell, after a moment."""
        if self._at is None:
            self._at = now + _DELAY

    def told(self, stream: int) -> None:
        """The other side knows all of that stream, or it is over."""
        self._waiting.discard(stream)

    def due(self, now: float) -> list[int] | None:
        """The streams to tell now; None while the time has not come."""
        if self._at is None or now < self._at:
            return None
        self._at = None
        due = list(self._waiting)
        self._waiting.clear()
        return due

    def next_timeout(self) -> float | None:
        return self._at
