"""A link over one TCP pair: a TLS 1.3 connection (RFC 8446) whose driver owns the socket.

Both ends show the certificate that came in the sealed signals and accept no other (`tls_trust.py`); the
client then proves itself as on QUIC (`client_auth.py`). Every further byte in either direction is framed
(`tls_frames.py`). Consent (RFC 7675) cannot be asked for by STUN any more; the session's pings take its
place, and a link on which nothing authentic has come for `IDLE_TIMEOUT` ends.
"""

from __future__ import annotations

import ssl
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import cast

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.link.client_auth import AUTHENTICATION_LIMIT, ClientGate, preamble
from crowline.link.events import LinkData, LinkDown, LinkEvent, LinkUp
from crowline.link.tls_frames import ANSWER, ANSWER_DELAY, HEADER, FrameReader
from crowline.link.tls_trust import TlsTrust

# Seconds without anything authentic after which sending stops (RFC 7675 §5.1); the session pings every 5.
IDLE_TIMEOUT = 30.0
# Bytes given to TLS and not yet to the kernel, above which the session keeps the rest to itself: two of its
# largest frames, so that the kernel has something to send while the next is made.
BACKLOG_LIMIT = 512 * 1024
# The same with control frames and TLS's own answers, which a peer may cause more of than it takes.
_HARD_LIMIT = 2 * BACKLOG_LIMIT
# Bytes from the other side in which nothing was for the session: a handshake has 2 KiB, a record 16. What
# goes on longer without content is a flood of key updates, tickets or nonsense.
MAX_BARREN = 32 * 1024
# Plaintext bytes of one record (RFC 8446 §5.1).
_RECORD = 16 * 1024
# Records that one key may protect: below the 2^24.5 of RFC 8446 §5.5 for AES-GCM. They hold 256 GiB.
RECORD_LIMIT = 1 << 24

# The reasons that tell apart how a connection came to its end.
ENDED = "the other side ended the link"
BROKEN_OFF = "the connection broke off"


class TlsLink:
    """One TLS connection on one TCP pair; a machine of the five verbs whose events are `LinkEvent`.

    Build it with `connect` (the TLS client) or `accept` (the TLS server); who dialled does not matter. The
    driver writes the transmits to the TCP connection in their order, keeps `queued` at the number of their
    bytes that have not reached the kernel, and says `disconnected` when the connection is gone.
    """

    def __init__(
        self,
        trust: TlsTrust,
        *,
        destination: Address,
        local: Address,
        deadline: float,
        first: bytes = b"",
        gate: ClientGate | None = None,
    ) -> None:
        """`first`: what a client sends before all else; `gate`: what a server has its client go through."""
        self.destination = destination
        self.local = local
        self.queued = 0
        self.unanswered_since: float | None = None
        self._trust = trust
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = trust.wrap(self._incoming, self._outgoing)
        self._reader = FrameReader()
        self._deadline = deadline
        self._answer_at: float | None = None
        self._heard = 0.0
        self._first = first
        self._gate = gate
        self._barren = 0
        self._records = 0
        self._is_secure = False
        self._up = False
        self._down = False
        self._events: deque[LinkEvent] = deque()

    @classmethod
    def connect(
        cls,
        *,
        destination: Address,
        local: Address,
        trust: TlsTrust,
        client_key: Secret,
        link_id: bytes,
        now: float,
    ) -> TlsLink:
        """Begin as the TLS client. `link_id` is `LINK_ID_LENGTH` fresh random bytes."""
        if not trust.is_client:
            raise UsageError("A TLS client needs the trust of a client.")
        first = preamble(client_key, trust.peer_fingerprint, link_id)
        deadline = now + AUTHENTICATION_LIMIT
        link = cls(trust, destination=destination, local=local, deadline=deadline, first=first)
        link._take(b"", now)
        return link

    @classmethod
    def accept(
        cls, *, destination: Address, local: Address, trust: TlsTrust, client_key: Secret, now: float
    ) -> TlsLink:
        """Begin as the TLS server; the first bytes of the other side go to `receive`."""
        if trust.is_client:
            raise UsageError("A TLS server needs the trust of a server.")
        gate = ClientGate(client_key, trust.own_fingerprint)
        return cls(
            trust, destination=destination, local=local, deadline=now + AUTHENTICATION_LIMIT, gate=gate
        )

    @property
    def is_up(self) -> bool:
        return self._up and not self._down

    def room(self) -> int:
        """Bytes that `send` takes now without the backlog growing past `BACKLOG_LIMIT`."""
        return max(0, BACKLOG_LIMIT - self._backlog) if self.is_up else 0

    def send(self, data: Buffer, now: float) -> None:
        """Append bytes to the link."""
        view = memoryview(data)
        if not self.is_up or not len(view):
            return
        if self.unanswered_since is None:
            self.unanswered_since = now
        self._answer_at = None
        first = view[: _RECORD - HEADER.size]
        self._write(b"".join((HEADER.pack(len(view)), first)))
        self._write(view[len(first) :])
        self._check_limits()

    def close(self, now: float) -> None:
        """Tell the other end and end the link; no event follows."""
        if not self._down:
            self._down = True
            self._say_goodbye()

    def disconnected(self) -> None:
        """The TCP connection is gone, orderly or not. TLS has not said goodbye, so it was cut short."""
        self._sink(BROKEN_OFF)

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        """The next bytes of the TCP connection, as many as there are."""
        if not self._down:
            self.unanswered_since = None
            self._take(data, now)

    def handle_timeout(self, now: float) -> None:
        if self._down:
            return
        if self._answer_at is not None and now >= self._answer_at:
            self._answer_at = None
            self._write(ANSWER)
            self._check_limits()
        if now >= self._deadline:
            self._expire(now)

    def next_timeout(self) -> float | None:
        """May be early: what arrives does not move the end of a silence, so that timers may stay."""
        if self._down:
            return None
        return self._deadline if self._answer_at is None else min(self._deadline, self._answer_at)

    def next_transmit(self) -> Transmit | None:
        """All that there is to write, also after the end: an alert or a goodbye."""
        data = self._outgoing.read() if self._outgoing.pending else b""
        return Transmit(data, self.destination, self.local, transport=Transport.TCP) if data else None

    def next_event(self) -> LinkEvent | None:
        return self._events.popleft() if self._events else None

    @property
    def _backlog(self) -> int:
        return self._outgoing.pending + self.queued

    def _expire(self, now: float) -> None:
        if not self._up:
            self._fail("the other side did not prove itself in time")
        elif now < self._heard + IDLE_TIMEOUT:
            self._deadline = self._heard + IDLE_TIMEOUT
        else:
            self._fail("the other side fell silent")

    def _take(self, piece: Buffer, now: float) -> None:
        """The one border to OpenSSL's reading side: whatever it raises ends this link, and nothing else."""
        self._barren += len(piece)
        try:
            self._incoming.write(piece)
            if self._is_secure or self._shake_hands(now):
                self._read(len(piece), now)
        except ssl.SSLWantReadError:
            pass
        except Exception as error:
            self._sink(_explain(error))
        self._check_limits()

    def _shake_hands(self, now: float) -> bool:
        """Whether the handshake is over, and with the right side. Raises `SSLWantReadError` until then."""
        self._tls.do_handshake()
        if not self._trust.accepts(self._tls):
            self._fail("the other side is not the one announced, or speaks another protocol")
            return False
        self._is_secure = True
        if self._first:
            self._write(self._first)
            self._rise(now)
        return True

    def _read(self, size: int, now: float) -> None:
        """Decrypt what is there. Raises `SSLWantReadError` when that is done."""
        # There may be most of a record from before. It never gets full: what encrypts a byte takes more.
        buffer = memoryview(bytearray(size + _RECORD))
        read = cast("Callable[[int, memoryview], int]", self._tls.read)
        filled = 0
        try:
            while count := read(_RECORD, buffer[filled:]):
                filled += count
        finally:
            if filled:
                self._deliver(buffer, filled, now)
        if not self._down:
            self._sink(ENDED)
            self._say_goodbye()

    def _deliver(self, buffer: memoryview, filled: int, now: float) -> None:
        """Hand the session's bytes on. A small part is copied, so that it does not keep the buffer alive."""
        self._heard = now
        data = buffer[:filled]
        if self._gate is not None:
            data = memoryview(self._pass(bytes(data), self._gate, now))
        for piece in self._reader.feed(data):
            self._barren = 0
            if self._answer_at is None:
                self._answer_at = now + ANSWER_DELAY
            self._events.append(LinkData(piece if 4 * len(piece) >= len(buffer) else bytes(piece)))

    def _pass(self, data: bytes, gate: ClientGate, now: float) -> bytes:
        """What the gate lets through, now that `data` has come."""
        data = gate.feed(data)
        if gate.is_refused:
            self._fail("the other side could not prove itself")
        elif gate.is_open:
            self._gate = None
            self._rise(now)
        return data

    def _rise(self, now: float) -> None:
        self._up = True
        self._heard = now
        self._deadline = now + IDLE_TIMEOUT
        self._events.append(LinkUp())

    def _write(self, data: Buffer) -> None:
        """OpenSSL makes full records of it and one of the rest. The border to its writing side."""
        view = memoryview(data)
        try:
            while len(view):
                written = self._tls.write(view)
                view = view[written:]
                self._records += -(-written // _RECORD)
        except Exception as error:
            self._sink(_explain(error))

    def _check_limits(self) -> None:
        if self._barren > MAX_BARREN:
            self._fail("the other side sends nothing that the link is for")
        elif self._backlog > _HARD_LIMIT:
            self._fail("the other side does not take what it asks for")
        elif self._records > RECORD_LIMIT:
            self._fail("the link has carried all that one key may protect")

    def _fail(self, reason: str) -> None:
        if not self._down:
            self._sink(reason)
            self._say_goodbye()

    def _sink(self, reason: str) -> None:
        if not self._down:
            self._down = True
            self._events.append(LinkDown(reason))

    def _say_goodbye(self) -> None:
        """close_notify (RFC 8446 §6.1), where the handshake has come far enough for it."""
        with suppress(ssl.SSLError):  # the other side's own has not come, or there is nobody to say it to
            self._tls.unwrap()


def _explain(error: Exception) -> str:
    """For people. The words are OpenSSL's own, never the other side's."""
    if isinstance(error, ssl.SSLCertVerificationError):
        return "the other side shows another certificate than the one announced"
    reason = getattr(error, "reason", None)
    return f"TLS failed: {reason.lower().replace('_', ' ') if reason else type(error).__name__}"
