"""A link over one datagram pair: a QUIC connection (RFC 9000) with one stream, driven in batches.

The server is authenticated by the fingerprint that came in the sealed signals, the client by the first
bytes of stream 0 (`client_auth.py`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from ssl import CERT_NONE
from typing import Any, ParamSpec, TypeVar

from qh3.quic.configuration import QuicConfiguration
from qh3.quic.events import (
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
from crowline.link.quic_connection import DATAGRAM_OVERHEAD, LinkConnection

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

ALPN = "crowline/1"
# Every IPv6 path carries 1,232 bytes of UDP payload; a TURN channel header takes 4 of them (RFC 8656 §12.4).
DATAGRAM_SIZE = 1200
# What a run of two still fits into the largest UDP payload with, and what the library can take.
MAX_DATAGRAM_SIZE = 32000
# Seconds without any packet after which the connection is gone; the session pings far more often.
_IDLE_TIMEOUT = 30.0
# Bytes in flight: 170 MB/s over a round trip of 40 ms (windows are renewed when half of them is used),
# and a bound on what a fast local path lets the congestion window grow to.
_WINDOW = 16 << 20
# Bytes given to QUIC and not yet sent, above which the session keeps the rest to itself.
BACKLOG_LIMIT = 1 << 20
# The same with control frames, which are always taken: a peer may cause more of them than it takes.
_HARD_LIMIT = 2 * BACKLOG_LIMIT
# Datagrams that wait for congestion control, beyond which new ones are lost: bulk fills the window, and what
# waits longer than a few round trips is of no use to those who send datagrams.
DATAGRAMS_WAITING = 64
# The first byte of the data of a DATAGRAM frame: what follows is for the session.
_FOR_SESSION = b"\x00"
# Announced to the other side (RFC 9221 §3): any frame that fits into a packet.
_MAX_DATAGRAM_FRAME = 65535
# The first round-trip estimate without a measured one (RFC 9002 §6.2.2).
_DEFAULT_RTT = 0.333
# The connection sees one fixed address; which pair carries it is ICE's business.
_PSEUDO_ADDRESS = ("192.0.2.1", 443)
_STREAM = 0


def is_initial(data: Buffer) -> bool:
    """Whether a datagram could begin a connection of ours: a full-size Initial (RFC 9000 §14.1, §17.2.2)."""
    return (
        len(data) >= DATAGRAM_SIZE
        and data[0] & 0xF0 == 0xC0
        and bytes(data[1:5]) == b"\x00\x00\x00\x01"
        and 8 <= data[5] <= 20
    )


def warm_up() -> None:
    """Make the TLS library build its tables now: they cost 20 ms that a first link would wait for."""
    configuration = QuicConfiguration(alpn_protocols=[ALPN], verify_mode=CERT_NONE, **_options(None))
    LinkConnection(configuration=configuration).connect(_PSEUDO_ADDRESS, 0.0)


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
    ) -> None:
        """`first`: what a client sends before all else; `gate`: what a server has its client go through."""
        self.destination = destination
        self.local = local
        self.size = size
        self._connection = connection
        self._deadline: float | None = deadline
        self._first = first
        self._gate = gate
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

        Datagrams have at most `size` bytes; those of the handshake are padded to it in both directions and
        may not be cut on their way, so that a link that is up has proven it.
        """
        configuration = QuicConfiguration(
            alpn_protocols=[ALPN],
            is_client=True,
            verify_mode=CERT_NONE,
            assert_fingerprint=peer_fingerprint.hex(),
            server_name="crowline",
            **_options(rtt, size),
        )
        connection = LinkConnection(configuration=configuration)
        connection.connect(_PSEUDO_ADDRESS, now)
        link = cls(
            connection,
            destination=destination,
            local=local,
            deadline=now + AUTHENTICATION_LIMIT,
            size=size,
            first=preamble(client_key, peer_fingerprint, link_id),
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

        `size`: as of `connect`; each side has its own.
        """
        destination_id = bytes(first[6 : 6 + first[5]])
        options = _options(None, size)
        configuration = QuicConfiguration(alpn_protocols=[ALPN], is_client=False, **options)
        configuration.load_cert_chain(identity.certificate, identity.private_key)
        connection = LinkConnection(
            configuration=configuration, original_destination_connection_id=destination_id
        )
        link = cls(
            connection,
            destination=destination,
            local=local,
            deadline=now + AUTHENTICATION_LIMIT,
            size=size,
            gate=ClientGate(client_key, identity.fingerprint),
        )
        link._now = now
        return link

    @property
    def is_up(self) -> bool:
        return self._up and not self._down

    def room(self) -> int:
        """Bytes that `send` takes now without its queue growing past `BACKLOG_LIMIT`."""
        if not self.is_up:
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
        return self.size - DATAGRAM_OVERHEAD - len(_FOR_SESSION)

    def send_datagram(self, data: Buffer, now: float) -> bool:
        """Send bytes that may be lost, in a packet of their own (RFC 9221); False where they are lost here.

        One that does not fit into a packet would end the connection, so it never gets there.
        """
        if len(data) > self.max_datagram_size or len(self._datagrams) >= DATAGRAMS_WAITING:
            return False
        self._now = now
        self._datagrams.append(b"".join((_FOR_SESSION, data)))
        self._dirty = True
        if self.unanswered_since is None:
            self.unanswered_since = now
        return True

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
        self._guarded(self._connection.receive_gro_buffer, bytes(data), segment_size, _PSEUDO_ADDRESS, now)
        self.unanswered_since = None
        self._after(now)
        if self._up and not self._down and self._connection.is_backing_off:
            # The path works again: waiting for the timer would cost as long as the outage did.
            self._guarded(self._connection.send_ping, 0)

    def handle_timeout(self, now: float) -> None:
        self._now = now
        if self._down:
            return
        if self._deadline is not None and now >= self._deadline:
            self._fail("the other side did not prove itself in time")
        timer = self._connection.get_timer()
        if timer is not None and now >= timer:
            self._guarded(self._connection.handle_timer, now)
        self._after(now)

    def next_timeout(self) -> float | None:
        if self._down:
            return None
        timer = self._connection.get_timer()
        if self._deadline is None:
            return timer
        return self._deadline if timer is None else min(timer, self._deadline)

    def next_transmit(self) -> Transmit | None:
        if self._dirty:
            self._dirty = False
            self._collect()
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> LinkEvent | None:
        return self._events.popleft() if self._events else None

    def _after(self, now: float) -> None:
        self._dirty = True
        while (event := self._connection.next_event()) is not None:
            self._handle(event, now)

    def _handle(self, event: QuicEvent, now: float) -> None:
        if isinstance(event, HandshakeCompleted):
            if self._first:
                self._guarded(self._connection.send_stream_data, _STREAM, self._first)
                self._rise()
        elif isinstance(event, StreamDataReceived):
            self._take(event)
        elif isinstance(event, DatagramFrameReceived):
            self._take_datagram(event.data)
        elif isinstance(event, ConnectionTerminated):
            # The phrase in it may be the other side's, and reasons are shown on screens.
            self._sink("the connection ended")
        elif isinstance(event, StreamReset):
            self._fail("the other side reset the link's stream")

    def _take(self, event: StreamDataReceived) -> None:
        if self._down:
            return
        if event.stream_id != _STREAM:
            self._fail("the other side opened a stream that a link does not have")
            return
        data = event.data
        if self._gate is not None:
            data = self._pass(event.data, self._gate)
        if len(data) and not self._down:
            self._events.append(LinkData(data))
        if event.end_stream:
            self._sink("the other side ended the link")

    def _take_datagram(self, data: bytes) -> None:
        """Nothing of one who has not proven itself, and nothing of a kind that is not known."""
        if self.is_up and data[:1] == _FOR_SESSION:
            self._events.append(LinkDatagram(memoryview(data)[1:]))

    def _pass(self, data: bytes, gate: ClientGate) -> bytes:
        """What the gate lets through, now that `data` has come."""
        data = gate.feed(data)
        if gate.is_refused:
            self._fail("the other side could not prove itself")
        elif gate.is_open:
            self._gate = None
            self._rise()
        return data

    def _rise(self) -> None:
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


def _options(rtt: float | None, size: int = DATAGRAM_SIZE) -> dict[str, Any]:
    return {
        "idle_timeout": _IDLE_TIMEOUT,
        "max_data": _WINDOW,
        "max_stream_data": _WINDOW,
        "max_datagram_size": size,
        "max_datagram_frame_size": _MAX_DATAGRAM_FRAME,
        "probe_datagram_size": False,
        "initial_rtt": _DEFAULT_RTT if rtt is None else max(rtt, 0.001),
    }
