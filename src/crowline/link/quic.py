"""A link over one datagram pair: a QUIC connection (RFC 9000) with one stream, driven in batches.

The server is authenticated by the fingerprint that came in the sealed signals, the client by the first
bytes of stream 0 (`client_auth.py`). What else is proven before the link is up: `admission.py`.
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
from crowline.link.admission import STREAM, Admission
from crowline.link.client_auth import AUTHENTICATION_LIMIT, LINK_ID_LENGTH, ClientGate, preamble
from crowline.link.events import LinkData, LinkDatagram, LinkDown, LinkEvent, LinkUp
from crowline.link.identity import Identity
from crowline.link.quic_connection import ALPN, PSEUDO_ADDRESS, LinkConnection, warm_up
from crowline.link.quic_packets import DATAGRAM_SIZE, MAX_DATAGRAM_SIZE, is_initial
from crowline.link.size_proof import FOR_SESSION

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


class QuicLink:
    """One QUIC connection on one pair; a machine of the five verbs whose events are `LinkEvent`.

    Build it with `connect` (the TLS client) or `accept` (the TLS server, on the first datagram).
    """

    def __init__(
        self,
        connection: LinkConnection,
        admission: Admission,
        *,
        destination: Address,
        local: Address,
        now: float,
    ) -> None:
        self.destination = destination
        self.local = local
        self.asked_size = admission.asked_size
        self.proves_size = admission.proves_size
        self._connection = connection
        self._admission = admission
        self._deadline: float | None = now + AUTHENTICATION_LIMIT
        self._ids = {connection.host_cid, connection.original_destination_connection_id}
        self._up = False
        self._down = False
        self._events: deque[LinkEvent] = deque()
        self._transmits: deque[Transmit] = deque()
        self._datagrams: deque[bytes] = deque()
        self._now = now
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
        first = preamble(client_key, peer_fingerprint, link_id)
        admission = Admission(connection, size, proves_size=size > DATAGRAM_SIZE, first=first)
        return cls(connection, admission, destination=destination, local=local, now=now)

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
        gate = ClientGate(client_key, identity.fingerprint)
        admission = Admission(connection, size, proves_size=proves_size, gate=gate)
        return cls(connection, admission, destination=destination, local=local, now=now)

    @property
    def is_up(self) -> bool:
        return self._up and not self._down

    @property
    def size(self) -> int:
        """Bytes of its largest datagrams."""
        return self._admission.size

    @property
    def is_too_large(self) -> bool:
        """Whether it was found that packets of its size do not come through."""
        return self._admission.is_too_large

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
        return max(0, BACKLOG_LIMIT - self._connection.get_send_buffer_size(STREAM))

    def send(self, data: Buffer, now: float) -> None:
        """Append bytes to the link's stream."""
        if not self.is_up:
            return
        self._now = now
        self._guarded(self._connection.send_stream_data, STREAM, data)
        self._dirty = True
        if self.unanswered_since is None:
            self.unanswered_since = now
        if self._connection.get_send_buffer_size(STREAM) > _HARD_LIMIT:
            self._fail("the other side does not take what it asks for")

    @property
    def max_datagram_size(self) -> int:
        """Bytes that `send_datagram` takes at most; 0 where the other side takes none, or nothing yet."""
        return max(0, self._connection.largest_data - len(FOR_SESSION)) if self.is_up else 0

    def send_datagram(self, data: Buffer, now: float) -> bool:
        """Send bytes that may be lost, in a packet of their own (RFC 9221); False where they are lost here.

        One that does not fit into a packet would end the connection, so it never gets there.
        """
        if not len(data) <= self.max_datagram_size > 0:
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
        if not self._up and not self._down:
            self._guarded(self._admission.prove_size, now)
            self._settle()
        self._after(now)

    def next_timeout(self) -> float | None:
        if self._down:
            return None
        proof = None if self._up else self._admission.next_timeout()
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
            self._guarded(self._admission.begin, now)
            self._settle()
        elif isinstance(event, StreamDataReceived):
            self._take(event, now)
        elif isinstance(event, DatagramFrameReceived):
            self._take_datagram(event.data)
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
        if event.stream_id != STREAM:
            self._fail("the other side opened a stream that a link does not have")
            return
        data = event.data
        if not self._up:
            data = self._guarded(self._admission.pass_on, data, now) or b""
            self._settle()
        if len(data) and self.is_up:
            self._events.append(LinkData(data))
        if event.end_stream:
            self._sink("the other side ended the link")

    def _take_datagram(self, data: bytes) -> None:
        """Nothing of one who has not proven itself, and nothing of a kind that is not known."""
        if not self._admission.is_authentic or self._down:
            return
        if data[:1] != FOR_SESSION:
            self._guarded(self._admission.hear, data)
            self._settle()
        elif self._up:
            self._events.append(LinkDatagram(memoryview(data)[1:]))

    def _settle(self) -> None:
        """Come up if all is proven, and end when it is known that this cannot be."""
        if self._up or self._down:
            return
        if self._admission.refusal:
            self._fail(self._admission.refusal)
        elif self._admission.is_done:
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
