"""A link over one datagram pair: a QUIC connection (RFC 9000) with one stream, driven in batches.

The server is authenticated by the fingerprint that came in the sealed signals, the client by the first
bytes of stream 0 (`client_auth.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import ParamSpec, TypeVar

from qh3.quic.events import (
    ConnectionIdIssued,
    ConnectionIdRetired,
    ConnectionTerminated,
    DatagramFrameReceived,
    HandshakeCompleted,
    QuicEvent,
    StreamDataReceived,
    StreamReset,
)

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.link.client_auth import AUTHENTICATION_LIMIT, LINK_ID_LENGTH, ClientGate, preamble
from crowline.link.events import LinkData, LinkDatagram, LinkDown, LinkEvent, LinkUp
from crowline.link.identity import Identity
from crowline.link.quic_connection import (
    ALPN,
    DATAGRAM_OVERHEAD,
    PSEUDO_ADDRESS,
    LinkConnection,
    warm_up,
)
from crowline.link.quic_packets import DATAGRAM_SIZE, MAX_DATAGRAM_SIZE, is_initial
from crowline.link.size_proof import FOR_SESSION, PROBE, SEEN, SizeProof

__all__ = [
    "ALPN",
    "AUTHENTICATION_LIMIT",
    "BACKLOG_LIMIT",
    "DATAGRAMS_WAITING",
    "DATAGRAM_SIZE",
    "LINK_ID_LENGTH",
    "MAX_DATAGRAM_SIZE",
    "QuicLink",
    "is_initial",
    "warm_up",
]

P = ParamSpec("P")
T = TypeVar("T")

# Bytes given to QUIC and not yet sent, above which the session keeps the rest to itself.
BACKLOG_LIMIT = 1 << 20
# The same with control frames, which are always taken: a peer may cause more of them than it takes.
_HARD_LIMIT = 2 * BACKLOG_LIMIT
# Datagrams that wait for congestion control, beyond which new ones are lost: bulk fills the window, and what
# waits longer than a few round trips is of no use to those who send datagrams.
DATAGRAMS_WAITING = 64
_STREAM = 0


class QuicLink:
    """One QUIC connection on one pair; a machine of the five verbs whose events are `LinkEvent`.

    Build it with `connect` (the TLS client) or `accept` (the TLS server, on the first datagram).
    """

    def __init__(
        self,
        connection: LinkConnection,
        *,
        destination: Address,
        local: Address,
        deadline: float,
        size: int = DATAGRAM_SIZE,
        first: bytes = b"",
        gate: ClientGate | None = None,
        proves_size: bool = False,
    ) -> None:
        """`first`: what a client sends before all else; `gate`: what a server has its client go through."""
        self.destination = destination
        self.local = local
        self.size = self.asked_size = size
        self.proves_size = proves_size
        self.is_too_large = False  # found by a proof: packets of that size do not come through
        self._connection = connection
        self._deadline: float | None = deadline
        self._first = first
        self._gate = gate
        self._proof = SizeProof() if proves_size else None
        self._ids = {connection.host_cid, connection.original_destination_connection_id}
        self._is_authentic = False
        self._up = False
        self._down = False
        self._events: deque[LinkEvent] = deque()
        self._transmits: deque[Transmit] = deque()
        self._datagrams: deque[bytes] = deque()
        self._now = 0.0
        self._dirty = True
        self.unanswered_since: float | None = None

    @classmethod
    def connect(
        cls,
        *,
        destination: Address,
        local: Address,
        peer_fingerprint: bytes,
        client_key: Secret,
        link_id: bytes,
        now: float,
        rtt: float | None = None,
        size: int = DATAGRAM_SIZE,
    ) -> QuicLink:
        """Begin as the TLS client. `link_id` is `LINK_ID_LENGTH` fresh random bytes.

        Datagrams have at most `size` bytes. Where that is more than `DATAGRAM_SIZE`, the link comes up when
        such datagrams came through in both directions, and ends when they do not.
        """
        connection = LinkConnection.client(peer_fingerprint, size, rtt)
        connection.connect(PSEUDO_ADDRESS, now)
        link = cls(
            connection,
            destination=destination,
            local=local,
            deadline=now + AUTHENTICATION_LIMIT,
            size=size,
            first=preamble(client_key, peer_fingerprint, link_id),
            proves_size=size > DATAGRAM_SIZE,
        )
        link._now = now
        return link

    @classmethod
    def accept(
        cls,
        first: Buffer,
        *,
        destination: Address,
        local: Address,
        identity: Identity,
        client_key: Secret,
        now: float,
        size: int = DATAGRAM_SIZE,
    ) -> QuicLink:
        """Begin as the TLS server on a datagram for which `is_initial` holds; hand it to `receive` next.

        `size`: as of `connect`; each side has its own. A client that has something to prove sends a first
        datagram that is larger than `DATAGRAM_SIZE`.
        """
        proves_size = len(first) > DATAGRAM_SIZE
        size = size if proves_size else DATAGRAM_SIZE
        connection = LinkConnection.server(first, identity, size)
        link = cls(
            connection,
            destination=destination,
            local=local,
            deadline=now + AUTHENTICATION_LIMIT,
            size=size,
            gate=ClientGate(client_key, identity.fingerprint),
            proves_size=proves_size,
        )
        link._now = now
        return link

    @property
    def is_up(self) -> bool:
        return self._up and not self._down

    @property
    def least_rtt(self) -> float:
        """Seconds; a long time until it was measured."""
        return self._connection.least_rtt

    def owns(self, connection_id: bytes) -> bool:
        """Whether a datagram with that destination is for this link."""
        return connection_id in self._ids

    def room(self) -> int:
        """Bytes that `send` takes now without its queue growing past `BACKLOG_LIMIT`.

        None while more is in flight than the path can hold.
        """
        if not self.is_up or self._connection.is_path_full:
            return 0
        return max(0, BACKLOG_LIMIT - self._connection.get_send_buffer_size(_STREAM))

    def send(self, data: Buffer, now: float) -> None:
        """Append bytes to the link's stream."""
        if not self.is_up:
            return
        self._now = now
        self._guarded(self._connection.send_stream_data, _STREAM, data)
        self._dirty = True
        if self.unanswered_since is None:
            self.unanswered_since = now
        if self._connection.get_send_buffer_size(_STREAM) > _HARD_LIMIT:
            self._fail("the other side does not take what it asks for")

    @property
    def max_datagram_size(self) -> int:
        """Bytes that `send_datagram` takes at most; 0 where the other side takes none, or nothing yet."""
        if not self.is_up or not self._connection.takes_datagrams:
            return 0
        return self._connection.largest_datagram - DATAGRAM_OVERHEAD - len(FOR_SESSION)

    def send_datagram(self, data: Buffer, now: float) -> bool:
        """Send bytes that may be lost, in a packet of their own (RFC 9221); False where they are lost here.

        One that does not fit into a packet would end the connection, so it never gets there.
        """
        if len(data) > self.max_datagram_size:
            return False
        self._now = now
        if len(self._datagrams) >= DATAGRAMS_WAITING and not self._has_made_room():
            return False
        self._datagrams.append(b"".join((FOR_SESSION, data)))
        self._dirty = True
        if self.unanswered_since is None:
            self.unanswered_since = now
        return True

    def nudge(self, now: float) -> None:
        """The path works although nothing comes: ask now, and not when the timer says so."""
        if self.is_up:
            self._now = now
            self._guarded(self._connection.send_ping, 0)
            self._dirty = True

    def close(self, now: float) -> None:
        """Tell the other end and end the link; no event follows."""
        if not self._down:
            self._down = True
            self._deadline = None
            self._now = now
            self._guarded(self._connection.close)
            self._dirty = True

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        self.receive_run(data, len(data), now)

    def receive_run(self, data: Buffer, segment_size: int, now: float) -> None:
        """A run of datagrams of `segment_size` bytes each, the last of which may be shorter."""
        self._now = now
        self._guarded(self._connection.receive_gro_buffer, bytes(data), segment_size, PSEUDO_ADDRESS, now)
        self.unanswered_since = None
        self._after(now)
        if self.is_up and self._connection.is_backing_off:
            # The path works again: waiting for the timer would cost as long as the outage did.
            self.nudge(now)

    def handle_timeout(self, now: float) -> None:
        self._now = now
        if self._down:
            return
        if self._deadline is not None and now >= self._deadline:
            self._fail("the other side did not prove itself in time")
        timer = self._connection.get_timer()
        if timer is not None and now >= timer:
            self._guarded(self._connection.handle_timer, now)
        self._prove_size(now)
        self._after(now)

    def next_timeout(self) -> float | None:
        if self._down:
            return None
        proof = self._proof.next_timeout() if self._proof is not None and not self._up else None
        times = [t for t in (self._connection.get_timer(), self._deadline, proof) if t is not None]
        return min(times, default=None)

    def next_transmit(self) -> Transmit | None:
        if self._dirty:
            self._dirty = False
            self._collect()
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> LinkEvent | None:
        return self._events.popleft() if self._events else None

    def _has_made_room(self) -> bool:
        """Let those go that may leave: one turn of the event loop may bring more than are to wait."""
        if self._connection.window_left >= len(self._datagrams[0]):
            self._collect()
        return len(self._datagrams) < DATAGRAMS_WAITING

    def _after(self, now: float) -> None:
        self._dirty = True
        while (event := self._connection.next_event()) is not None:
            self._handle(event, now)
        if self._connection.is_closed_by_peer:
            self._sink("the connection ended")

    def _handle(self, event: QuicEvent, now: float) -> None:
        if isinstance(event, HandshakeCompleted):
            if self._first:
                self._guarded(self._connection.send_stream_data, _STREAM, self._first)
                self._authenticated(now)
        elif isinstance(event, StreamDataReceived):
            self._take(event, now)
        elif isinstance(event, DatagramFrameReceived):
            self._take_datagram(event.data, now)
        elif isinstance(event, ConnectionIdIssued):
            self._ids.add(event.connection_id)
        elif isinstance(event, ConnectionIdRetired):
            self._ids.discard(event.connection_id)
        elif isinstance(event, ConnectionTerminated):
            # The phrase in it may be the other side's, and reasons are shown on screens.
            self._sink("the connection ended")
        elif isinstance(event, StreamReset):
            self._fail("the other side reset the link's stream")

    def _take(self, event: StreamDataReceived, now: float) -> None:
        if self._down:
            return
        if event.stream_id != _STREAM:
            self._fail("the other side opened a stream that a link does not have")
            return
        data = event.data
        if self._gate is not None:
            data = self._pass(event.data, self._gate, now)
        if len(data) and not self._up and self._proof is not None:
            self._proof.heard_stream()
            self._rise()
        if len(data) and self.is_up:
            self._events.append(LinkData(data))
        if event.end_stream:
            self._sink("the other side ended the link")

    def _take_datagram(self, data: bytes, now: float) -> None:
        """Nothing of one who has not proven itself, and nothing of a kind that is not known."""
        if not self._is_authentic or self._down:
            return
        if data[:1] == FOR_SESSION:
            if self._up:
                self._events.append(LinkDatagram(memoryview(data)[1:]))
        elif self._proof is not None:
            if data[:1] == PROBE:
                self._guarded(self._connection.send_datagram_frame, SEEN)
            self._proof.hear(data)
            if not self._up:
                self._rise()

    def _pass(self, data: bytes, gate: ClientGate, now: float) -> bytes:
        """What the gate lets through, now that `data` has come."""
        data = gate.feed(data)
        if gate.is_refused:
            self._fail("the other side could not prove itself")
        elif gate.is_open:
            self._gate = None
            self._authenticated(now)
        return data

    def _authenticated(self, now: float) -> None:
        """The other side is the right one; what is left is the path."""
        self._is_authentic = True
        # The library falls back to the least size where the handshake lost packets.
        self.size = min(self.size, self._connection.largest_datagram)
        if self._proof is not None:
            if self._first and self.size < self.asked_size:
                self._fail("the handshake lost packets")
                return
            self._proof.begin(self.size - DATAGRAM_OVERHEAD, self._connection.smoothed_rtt, now)
            self._prove_size(now)
        self._rise()

    def _prove_size(self, now: float) -> None:
        """Send a packet of full size, past the congestion window: there is nothing else on this link yet."""
        if self._proof is None or self._up or self._down:
            return
        if (probe := self._proof.due(now)) is not None and self._connection.takes_datagrams:
            self._guarded(self._connection.send_datagram_frame, probe)
            self._dirty = True
        if self._proof.has_failed(now):
            self.is_too_large = True
            self._fail("the path does not carry packets of that size")

    def _rise(self) -> None:
        """Be up, if all is proven."""
        if self._proof is not None and not self._proof.is_done:
            return
        self._up = True
        self._deadline = None
        self._events.append(LinkUp())

    def _fail(self, reason: str) -> None:
        if not self._down:
            self._sink(reason)
            self._guarded(self._connection.close, error_code=1, reason_phrase="refused")
            self._dirty = True

    def _guarded(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T | None:
        """The one border to the QUIC library: whatever it raises ends this link, and nothing else."""
        try:
            return call(*args, **kwargs)
        except Exception as error:
            self._sink(f"QUIC failed: {type(error).__name__}")
            return None

    def _sink(self, reason: str) -> None:
        if not self._down:
            self._down = True
            self._deadline = None
            self._events.append(LinkDown(reason))

    def _collect(self) -> None:
        """Turn what QUIC has to send into transmits, datagrams before streams."""
        left = self._connection.window_left if self._datagrams else 0
        while self._datagrams and left >= len(self._datagrams[0]):
            data = self._datagrams.popleft()
            left -= self.size
            self._guarded(self._connection.send_datagram_frame, data)
        is_whole = self.size > DATAGRAM_SIZE and not self._up
        for run in self._guarded(self._connection.runs_to_send, self._now) or ():
            segment = len(run[0]) if len(run) > 1 else None
            data = run[0] if segment is None else b"".join(run)
            self._transmits.append(
                Transmit(data, self.destination, self.local, segment, dont_fragment=is_whole)
            )
