"""A link for simulations, in the place of QUIC, whose library draws its own randomness.

It has QUIC's shape: one round trip until the client may send, half a one more until the server may; every
datagram authenticated with a key that only the two sides have; bytes in order, sent again until they are
acknowledged; an end that is told. It does not encrypt, pace or measure congestion.

A datagram is ``kind u8 · link id 8 · offset u64 · bytes · tag 8``; the kinds are numbers that neither STUN
nor ChannelData begins with (RFC 9443 §2).
"""

from __future__ import annotations

import hmac
import struct
from collections import deque
from enum import IntEnum

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp

LINK_ID_LENGTH = 8
DATAGRAM_SIZE = 1200  # bytes, what the QUIC link sends until larger ones are proven
# Seconds from the first datagram until the other end must have proven itself, as with QUIC.
AUTHENTICATION_LIMIT = 5.0
IDLE_TIMEOUT = 30.0  # seconds without a datagram after which the link is gone, as with QUIC
BACKLOG_LIMIT = 1 << 20  # bytes given to the link and not acknowledged, above which the session waits

_HEADER = struct.Struct("!B8sQ")
_TAG_LENGTH = 8  # nobody forges in a simulation; this keeps strays and wrong keys out
_CHUNK = DATAGRAM_SIZE - _HEADER.size - _TAG_LENGTH
_MIN_RTO = 0.05  # seconds: no retransmission within a short path's jitter
_DEFAULT_RTT = 0.333  # RFC 9002 §6.2.2
_MAX_BACKOFF = 32  # times the first retransmission time


class _Kind(IntEnum):
    HELLO = 0xC0
    WELCOME = 0xC1
    DATA = 0xC2
    ACK = 0xC3
    CLOSE = 0xC4


def is_hello(data: Buffer) -> bool:
    """Whether a datagram could begin a link."""
    return len(data) == _HEADER.size + _TAG_LENGTH and data[0] == _Kind.HELLO


class StandInLink:
    """One end; a machine of the five verbs whose events are `LinkEvent`.

    Build it with `connect` (the client), or with `accept` on a datagram for which `is_hello` holds, and hand
    that to `receive` next.
    """

    def __init__(
        self,
        *,
        is_client: bool,
        link_id: bytes,
        destination: Address,
        local: Address,
        key: Secret,
        now: float,
        rtt: float | None,
    ) -> None:
        self.destination = destination
        self.local = local
        self.unanswered_since: float | None = None
        self._is_client = is_client
        self._link_id = link_id
        self._own_key = hmac.digest(key.reveal(), b"client" if is_client else b"server", "sha256")
        self._peer_key = hmac.digest(key.reveal(), b"server" if is_client else b"client", "sha256")
        self._rto = max(_MIN_RTO, 2 * (_DEFAULT_RTT if rtt is None else rtt))
        self._backoff = 1
        self._resend_at: float | None = None
        self._give_up_at = now + AUTHENTICATION_LIMIT
        self._up = False
        self._down = False
        self._greeted = False
        self._sent = 0  # offset after the last byte that was sent
        self._acknowledged = 0
        self._received = 0
        self._unacknowledged: deque[tuple[int, bytes]] = deque()
        self._early: dict[int, bytes] = {}
        self._transmits: deque[Transmit] = deque()
        self._events: deque[LinkEvent] = deque()

    @classmethod
    def connect(
        cls,
        *,
        destination: Address,
        local: Address,
        key: Secret,
        link_id: bytes,
        now: float,
        rtt: float | None = None,
    ) -> StandInLink:
        """Begin as the client. `link_id` is `LINK_ID_LENGTH` fresh random bytes; `key` both sides know."""
        link = cls(
            is_client=True,
            link_id=link_id,
            destination=destination,
            local=local,
            key=key,
            now=now,
            rtt=rtt,
        )
        link._greet(now)
        return link

    @classmethod
    def accept(
        cls, first: Buffer, *, destination: Address, local: Address, key: Secret, now: float
    ) -> StandInLink:
        """Begin as the server on a datagram for which `is_hello` holds."""
        return cls(
            is_client=False,
            link_id=_HEADER.unpack_from(first)[1],
            destination=destination,
            local=local,
            key=key,
            now=now,
            rtt=None,
        )

    @property
    def is_up(self) -> bool:
        return self._up and not self._down

    def room(self) -> int:
        """Bytes that `send` takes now."""
        if not self.is_up:
            return 0
        return max(0, BACKLOG_LIMIT - (self._sent - self._acknowledged))

    def send(self, data: Buffer, now: float) -> None:
        """Append bytes."""
        if not self.is_up:
            return
        view = memoryview(data)
        for start in range(0, len(view), _CHUNK):
            chunk = bytes(view[start : start + _CHUNK])
            self._unacknowledged.append((self._sent, chunk))
            self._emit(_Kind.DATA, self._sent, chunk)
            self._sent += len(chunk)
        if self.unanswered_since is None:
            self.unanswered_since = now
        if self._resend_at is None:
            self._resend_at = now + self._rto

    def close(self, now: float) -> None:
        """Tell the other end and end the link; no event follows."""
        if not self._down:
            self._down = True
            self._emit(_Kind.CLOSE, 0)

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        parsed = self._open(data)
        if parsed is None or self._down:
            return
        kind, offset, payload = parsed
        self.unanswered_since = None
        self._give_up_at = max(self._give_up_at, now + IDLE_TIMEOUT) if self._up else self._give_up_at
        if kind is _Kind.HELLO:
            self._on_hello(now)
        elif kind is _Kind.CLOSE:
            self._sink("the other side ended the link")
        elif self._is_greeting(kind):
            self._rise(now)
            if kind is _Kind.WELCOME:
                self._emit(_Kind.ACK, self._received)
        if self._up and kind is _Kind.DATA:
            self._on_data(offset, payload)
        elif self._up and kind is _Kind.ACK:
            self._on_ack(offset, now)

    def handle_timeout(self, now: float) -> None:
        if self._down:
            return
        if now >= self._give_up_at:
            silent = (
                "the other side fell silent" if self._up else "the other side did not prove itself in time"
            )
            self._sink(silent)
        elif self._resend_at is not None and now >= self._resend_at:
            self._resend(now)

    def next_timeout(self) -> float | None:
        if self._down:
            return None
        return self._give_up_at if self._resend_at is None else min(self._resend_at, self._give_up_at)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> LinkEvent | None:
        return self._events.popleft() if self._events else None

    # --- the greeting -----------------------------------------------------------------------------------

    def _greet(self, now: float) -> None:
        """Greet until the other end has proven itself; the client answers each WELCOME with its proof."""
        self._emit(_Kind.HELLO if self._is_client else _Kind.WELCOME, 0)
        if not self._up:
            self._resend_at = now + self._rto * self._backoff

    def _on_hello(self, now: float) -> None:
        if not self._is_client:
            self._greeted = True
            self._greet(now)

    def _is_greeting(self, kind: _Kind) -> bool:
        """Whether this datagram proves the other end: WELCOME to the client, what follows to the server."""
        if self._is_client:
            return kind is _Kind.WELCOME
        return self._greeted and not self._up

    def _rise(self, now: float) -> None:
        if self._up:
            return
        self._up = True
        self._resend_at = None
        self._backoff = 1
        self._give_up_at = now + IDLE_TIMEOUT
        self._events.append(LinkUp())

    # --- bytes ------------------------------------------------------------------------------------------

    def _on_data(self, offset: int, payload: bytes) -> None:
        if offset >= self._received:
            self._early[offset] = payload
        while (ready := self._early.pop(self._received, None)) is not None:
            self._received += len(ready)
            self._events.append(LinkData(ready))
        self._emit(_Kind.ACK, self._received)

    def _on_ack(self, offset: int, now: float) -> None:
        if not self._acknowledged < offset <= self._sent:
            return
        self._acknowledged = offset
        while self._unacknowledged and self._unacknowledged[0][0] < offset:
            self._unacknowledged.popleft()
        self._backoff = 1
        self._resend_at = now + self._rto if self._unacknowledged else None

    def _resend(self, now: float) -> None:
        self._backoff = min(2 * self._backoff, _MAX_BACKOFF)
        if not self._up:
            self._greet(now)
            return
        for offset, chunk in self._unacknowledged:
            self._emit(_Kind.DATA, offset, chunk)
        self._resend_at = now + self._rto * self._backoff

    def _sink(self, reason: str) -> None:
        self._down = True
        self._events.append(LinkDown(reason))

    # --- datagrams --------------------------------------------------------------------------------------

    def _emit(self, kind: _Kind, offset: int, payload: bytes = b"") -> None:
        body = _HEADER.pack(kind, self._link_id, offset) + payload
        tag = hmac.digest(self._own_key, body, "sha256")[:_TAG_LENGTH]
        self._transmits.append(Transmit(body + tag, self.destination, self.local))

    def _open(self, data: Buffer) -> tuple[_Kind, int, bytes] | None:
        """Parse and verify; ``None`` for what is not of the other end."""
        raw = bytes(data)
        if len(raw) < _HEADER.size + _TAG_LENGTH or raw[0] not in _KINDS:
            return None
        body, tag = raw[:-_TAG_LENGTH], raw[-_TAG_LENGTH:]
        kind, link_id, offset = _HEADER.unpack_from(body)
        expected = hmac.digest(self._peer_key, body, "sha256")[:_TAG_LENGTH]
        if link_id != self._link_id or not hmac.compare_digest(tag, expected):
            return None
        return _KINDS[kind], offset, body[_HEADER.size :]


_KINDS = {int(kind): kind for kind in _Kind}
