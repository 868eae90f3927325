"""What is proven before a QUIC link is up: who the client is, and that the path carries its largest packets.

The server was authenticated by the handshake. A link that sends no more than the least proves nothing of its
path (`size_proof.py`).
"""

from __future__ import annotations

from crowline.link.client_auth import ClientGate
from crowline.link.quic_connection import LinkConnection
from crowline.link.size_proof import PROBE, SEEN, SizeProof

STREAM = 0
"""The stream of a link, on which the client proves itself first."""


class Admission:
    """One end's part. What the QUIC library raises about something that is sent comes through."""

    def __init__(
        self,
        connection: LinkConnection,
        size: int,
        *,
        proves_size: bool,
        first: bytes = b"",
        gate: ClientGate | None = None,
    ) -> None:
        """`size`: bytes of the largest packet that this end is to send; `first`: what a client sends before
        all else; `gate`: what a server has its client go through.
        """
        self.size = self.asked_size = size
        self.proves_size = proves_size
        # The other side is the right one.
        self.is_authentic = False
        # Why the link cannot come up; whether that is because packets of its size do not come through.
        self.refusal = ""
        self.is_too_large = False
        self._connection = connection
        self._first = first
        self._gate = gate
        self._proof = SizeProof() if proves_size else None

    @property
    def is_done(self) -> bool:
        """Whether all is proven that is to be."""
        return self.is_authentic and (self._proof is None or self._proof.is_done)

    def begin(self, now: float) -> None:
        """The handshake is over: to a client the other side has proven itself, and it does so in turn."""
        if self._first:
            self._connection.send_stream_data(STREAM, self._first)
            self._authenticated(now)

    def pass_on(self, data: bytes, now: float) -> bytes:
        """What of the stream's bytes is the session's."""
        if self._gate is not None:
            data = self._gate.feed(data)
            if self._gate.is_refused:
                self.refusal = "the other side could not prove itself"
            elif self._gate.is_open:
                self._gate = None
                self._authenticated(now)
        if data and self._proof is not None:
            self._proof.heard_stream()
        return data

    def hear(self, frame: bytes) -> None:
        """A DATAGRAM frame that is not the session's, of one who is authenticated."""
        if self._proof is not None:
            if frame[:1] == PROBE:
                self._connection.send_datagram_frame(SEEN)
            self._proof.hear(frame)
            if self._proof.is_seen and self._connection.has_lost:
                # A window that shrank as early takes many round trips to open.
                self.refusal = "the handshake lost packets"

    def prove_size(self, now: float) -> None:
        """Send packets of full size if it is time, past the congestion window: there is nothing else on this
        link yet.
        """
        if self._proof is None:
            return
        for frame in self._proof.due(now):
            self._connection.send_datagram_frame(frame)
        if self._proof.has_failed(now):
            self.is_too_large = True
            self.refusal = "the path does not carry packets of that size"

    def next_timeout(self) -> float | None:
        """When `prove_size` has something to do."""
        return None if self._proof is None else self._proof.next_timeout()

    def _authenticated(self, now: float) -> None:
        """What is left is the path."""
        self.is_authentic = True
        # The library falls back to the least size where the handshake lost packets.
        self.size = min(self.size, self._connection.largest_datagram)
        if self._proof is None:
            return
        if self._first and self.size < self.asked_size:
            self.refusal = "the handshake lost packets"
            return
        length = self.size - self._connection.datagram_overhead
        if self._connection.largest_data < length:
            self.refusal = "the other side takes no packets of that size"
            return
        # It is sent after this turn: what proves a client must arrive first.
        self._proof.begin(length, self._connection.smoothed_rtt, now)
