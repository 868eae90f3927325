"""How both ends of a link prove that the path carries its largest packets, each in its own direction.

A path that drops large packets does so in silence, and the QUIC library would send them again for ever. So an
end sends a packet of full size, and the other says that it came. The data of the DATAGRAM frames of a link:

    kind u8 · rest

| kind | rest |
| --- | --- |
| 0 | for the session |
| 1 | padding: answer with kind 2 |
| 2 | – |
| 3 | padding |

The first such packet has others before it. As these are acknowledged, the window of congestion control opens
before there is anything to carry, as it would with the first flight of bulk.
"""

from __future__ import annotations

from crowline.base.machine import Buffer

FOR_SESSION = b"\x00"
PROBE = b"\x01"
SEEN = b"\x02"
_PADDING = b"\x03"

# Bytes of the first packets together: what a fresh connection may send anyway (RFC 9002 §7.2), and half as
# much again.
_FIRST_FLIGHT = 24_000

# Packets of full size that may get lost before the path is held to be too narrow for them.
TRIES = 4
# Seconds between them: three round trips, and no less than that.
MIN_WAIT = 0.05
_ROUND_TRIPS = 3


class SizeProof:
    """One end's part. It begins when the other side is authenticated."""

    def __init__(self) -> None:
        self._probe = b""
        self._tries = 0
        self._wait = MIN_WAIT
        self._again_at: float | None = None
        # Whether the other side said that this side's packets come through, and sent its own.
        self.is_seen = self._has_heard = False

    @property
    def is_done(self) -> bool:
        """Whether packets of full size came through in both directions."""
        return self.is_seen and self._has_heard

    def begin(self, length: int, rtt: float | None, now: float) -> None:
        """`length`: bytes of a DATAGRAM frame's data that make a packet full."""
        self._probe = PROBE.ljust(length, b"\x00")
        self._wait = max(MIN_WAIT, _ROUND_TRIPS * (rtt or 0.0))
        self._again_at = now

    def hear(self, frame: Buffer) -> None:
        """What came in a DATAGRAM frame."""
        kind = bytes(frame[:1])
        self.is_seen |= kind == SEEN
        self._has_heard |= kind == PROBE

    def heard_stream(self) -> None:
        """The other side uses the link, so it was told that its packets come."""
        self.is_seen |= self._has_heard

    def next_timeout(self) -> float | None:
        return None if self.is_seen else self._again_at

    def due(self, now: float) -> list[bytes]:
        """What to send now."""
        if self.is_seen or self._again_at is None or now < self._again_at or self._tries >= TRIES:
            return []
        self._tries += 1
        self._again_at = now + self._wait
        if self._tries > 1:
            return [self._probe]
        padding = _PADDING + self._probe[1:]
        return [padding] * (_FIRST_FLIGHT // len(padding) - 1) + [self._probe]

    def has_failed(self, now: float) -> bool:
        """Whether none of the packets came through."""
        return not self.is_seen and self._tries >= TRIES and now >= (self._again_at or now)
