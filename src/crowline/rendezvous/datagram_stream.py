"""Whole messages, in order, over UDP between two sides that have named each other's host and one port.

Each packet:

    "\\x1cCL1" | kind u8 | sender's id 8 | receiver's id 8 (zeros: not known yet)
    | offset u32 | acknowledged u32 | data

The first byte belongs neither to STUN nor to QUIC (RFC 9443), so that all three share a socket. Until a
packet repeats this side's id nothing is believed but that somebody may be there: openers go out, again and
again, to the addresses named and nowhere else. The bytes of all messages, each behind its length, are one
stream that is acknowledged and sent again.

Openers with a low hop limit open this side's translators and die on the way: a stray packet that arrives may
make the other side's translator choose another port. The joining side sends ones that arrive as well, for it
comes second as a rule; the hosting side seldom does, in case that its own port is not the one expected.
"""

from __future__ import annotations

import struct
from collections import Counter, deque
from collections.abc import Callable, Sequence
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit

MAGIC = b"\x1cCL1"
ID_SIZE = 8
MAX_MESSAGE = 80 * 1024
"""Bytes of one message; a hub's are smaller."""

SEGMENT = 1000
"""Bytes of the stream in one packet: with all headers it fits into 1,200, which every path takes."""
WINDOW = 16
"""Packets on their way at a time: signals are small, and nothing else is carried."""

OPENER_INTERVAL = 0.5
"""Seconds between two rounds of openers: a person waits for them."""
OPENER_HOPS = (4, 7)
"""In turn: past a home's translator, and past a carrier's."""
FULL_AFTER, FULL_INTERVAL = 20.0, 120.0
"""Seconds until the hosting side first sends an opener that may arrive, and between these: a translator that
kept a stray one has forgotten it after 30 s."""

FIRST_REPEAT, LONGEST_REPEAT = 0.3, 3.0
"""Seconds until what was not acknowledged is sent again; doubled each time."""
KEEPALIVE = 10.0
"""Seconds of own silence after which a packet goes out: translators forget a flow after 30."""
SILENCE_LIMIT = 45.0
"""Seconds without a packet after which the other side is gone."""
MAX_HELD = 4 * WINDOW
"""Packets that came too early and are kept."""
MAX_QUEUED = 2 * 1024 * 1024
"""Bytes that wait for a side that acknowledges nothing; all that a meeting keeps for one has half of that."""
MAX_STREAM = 2**32 - 1
"""Bytes of a stream in one direction: offsets have four. Signals never have so many."""

_HEAD = struct.Struct(f"!4sB{ID_SIZE}s{ID_SIZE}sII")
_LENGTH = struct.Struct("!I")
_IS_BINARY = 1 << 31
_DATA, _CLOSED = 0, 1
_UNKNOWN = bytes(ID_SIZE)


class StreamOpened(Struct, frozen=True):
    """The other side is at `remote`, and hears this one; `local` is where it came in."""

    local: Address
    remote: Address


class MessageArrived(Struct, frozen=True):
    """The next message: text or bytes, as it was sent."""

    message: str | bytes


class StreamOver(Struct, frozen=True):
    """No message comes any more."""

    is_clean: bool


StreamEvent: TypeAlias = StreamOpened | MessageArrived | StreamOver


class Way(Struct, frozen=True):
    """From one of this side's sockets to one of the addresses that were named."""

    local: Address
    remote: Address


class DatagramStream:
    """A five-verb machine. `ways`: where to look for the other side; `knocks`: openers arrive, see above.

    `counters`: what was dropped, by reason.
    """

    def __init__(
        self, ways: Sequence[Way], *, knocks: bool, entropy: Callable[[int], bytes], now: float
    ) -> None:
        self.counters: Counter[str] = Counter()
        self._ways = list(ways)
        self._hosts = {(way.local, way.remote.host) for way in ways}
        self._knocks = knocks
        self._id = entropy(ID_SIZE)
        self._peer_id = _UNKNOWN
        self._way: Way | None = None
        self._round = 0
        self._next_opener: float | None = now
        self._next_full = now if knocks else now + FULL_AFTER
        self._heard_at = self._said_at = now
        # What is to be sent from `_acknowledged` on; up to `_sent` it is on its way.
        self._out = bytearray()
        self._acknowledged = 0
        self._sent = 0
        self._repeat_at: float | None = None
        self._repeat = FIRST_REPEAT
        self._expected = 0
        self._held: dict[int, bytes] = {}
        self._in = bytearray()
        self._is_over = False
        self._transmits: deque[Transmit] = deque()
        self._events: deque[StreamEvent] = deque()

    @property
    def is_open(self) -> bool:
        return self._way is not None and not self._is_over

    @property
    def unacknowledged(self) -> int:
        """Bytes that the other side has not said to have."""
        return len(self._out)

    def send(self, message: str | bytes, now: float) -> None:
        """Queue a message, also before the other side is there; it is given up where too much waits."""
        if self._is_over:
            return
        data = message.encode() if isinstance(message, str) else message
        flag = 0 if isinstance(message, str) else _IS_BINARY
        self._out += _LENGTH.pack(len(data) | flag) + data
        if len(self._out) > min(MAX_QUEUED, MAX_STREAM - self._acknowledged):
            self._end(is_clean=False)
        self._fill(now)

    def close(self, now: float) -> None:
        """Tell the other side, and end."""
        if self.is_open:
            for _ in range(2):
                self._say(_CLOSED, 0, b"", now)
        self._end()

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> bool:
        """Take a packet; False when it is none of this stream's kind, and somebody else's to read."""
        if bytes(data[: len(MAGIC)]) != MAGIC:
            return False
        if not _HEAD.size <= len(data) <= _HEAD.size + SEGMENT or self._is_over or local is None:
            self.counters["malformed"] += 1
            return True
        if (local, source.host) not in self._hosts:
            self.counters["stranger"] += 1
            return True
        _, kind, theirs, ours, offset, acknowledged = _HEAD.unpack_from(data)
        if theirs in (_UNKNOWN, self._id) or ours not in (_UNKNOWN, self._id):
            self.counters["unknown id"] += 1
            return True
        way, is_heard = Way(local, source), ours == self._id
        if self._way is None or (theirs == self._peer_id and not is_heard):
            self._on_opener(way, theirs, is_heard=is_heard, now=now)
        if self._way is not None and theirs == self._peer_id and is_heard:
            self._on_packet(kind, way, offset, acknowledged, bytes(data[_HEAD.size :]), now)
        return True

    def handle_timeout(self, now: float) -> None:
        if self._is_over:
            return
        if self._way is None:
            if self._next_opener is not None and now >= self._next_opener:
                self._open_ways(now)
            return
        if now - self._heard_at >= SILENCE_LIMIT:
            self._end(is_clean=False)
            return
        if self._repeat_at is not None and now >= self._repeat_at:
            self._repeat = min(2 * self._repeat, LONGEST_REPEAT)
            self._sent = self._acknowledged
            self._repeat_at = None
            self._fill(now)
        if now - self._said_at >= KEEPALIVE:
            self._say(_DATA, self._sent, b"", now)

    def next_timeout(self) -> float | None:
        if self._is_over:
            return None
        if self._way is None:
            return self._next_opener
        times = [self._heard_at + SILENCE_LIMIT, self._said_at + KEEPALIVE]
        if self._repeat_at is not None:
            times.append(self._repeat_at)
        return min(times)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> StreamEvent | None:
        return self._events.popleft() if self._events else None

    # Finding each other -----------------------------------------------------------------------------

    def _open_ways(self, now: float) -> None:
        """A round of openers: one that dies on its way, and one that may arrive where it is time for that."""
        self._next_opener = now + OPENER_INTERVAL
        hops = OPENER_HOPS[self._round % len(OPENER_HOPS)]
        self._round += 1
        may_arrive = now >= self._next_full
        if may_arrive:
            self._next_full = now if self._knocks else now + FULL_INTERVAL
        for way in self._ways:
            data = self._packet(_DATA, 0, b"")
            self._transmits.append(Transmit(data, way.remote, way.local, hop_limit=hops))
            if may_arrive:
                self._transmits.append(Transmit(data, way.remote, way.local))

    def _on_opener(self, way: Way, theirs: bytes, *, is_heard: bool, now: float) -> None:
        """Somebody is there. One who repeats this side's id has had a packet of it: no forged source has."""
        if is_heard:
            self._peer_id = theirs
            self._way = way
            self._next_opener = None
            self._events.append(StreamOpened(way.local, way.remote))
            self._say(_DATA, 0, b"", now)
            self._fill(now)
            return
        # No more bytes than came, to where they came from.
        self._transmits.append(Transmit(self._packet(_DATA, 0, b"", theirs), way.remote, way.local))

    # The stream -------------------------------------------------------------------------------------

    def _on_packet(
        self, kind: int, way: Way, offset: int, acknowledged: int, data: bytes, now: float
    ) -> None:
        self._heard_at = now
        self._way = way
        if offset + len(data) > MAX_STREAM:
            self.counters["malformed"] += 1
            self._end(is_clean=False)
            return
        if self._acknowledged < acknowledged <= self._sent:
            del self._out[: acknowledged - self._acknowledged]
            self._acknowledged = acknowledged
            self._repeat = FIRST_REPEAT
            self._repeat_at = None
            self._fill(now)
        if data:
            self._on_data(offset, data)
            self._say(_DATA, self._sent, b"", now)
        if kind == _CLOSED:
            self._end(is_clean=True)

    def _on_data(self, offset: int, data: bytes) -> None:
        if offset > self._expected:
            if len(self._held) < MAX_HELD:
                self._held[offset] = data
            return
        self._take(offset, data)
        while held := [at for at in self._held if at <= self._expected]:
            for at in sorted(held):
                self._take(at, self._held.pop(at))
        self._deliver()

    def _take(self, offset: int, data: bytes) -> None:
        new = data[self._expected - offset :] if offset + len(data) > self._expected else b""
        self._in += new
        self._expected += len(new)

    def _deliver(self) -> None:
        while len(self._in) >= _LENGTH.size:
            [head] = _LENGTH.unpack_from(self._in)
            length = head & ~_IS_BINARY
            if length > MAX_MESSAGE:
                self.counters["malformed"] += 1
                self._end(is_clean=False)
                return
            if len(self._in) < _LENGTH.size + length:
                return
            data = bytes(self._in[_LENGTH.size : _LENGTH.size + length])
            del self._in[: _LENGTH.size + length]
            message = data if head & _IS_BINARY else data.decode(errors="replace")
            self._events.append(MessageArrived(message))

    def _fill(self, now: float) -> None:
        """Send what the window has room for."""
        if not self.is_open:
            return
        end = min(self._acknowledged + len(self._out), self._acknowledged + WINDOW * SEGMENT)
        while self._sent < end:
            start = self._sent - self._acknowledged
            part = bytes(self._out[start : start + min(SEGMENT, end - self._sent)])
            self._say(_DATA, self._sent, part, now)
            self._sent += len(part)
        if self._sent > self._acknowledged and self._repeat_at is None:
            self._repeat_at = now + self._repeat

    def _say(self, kind: int, offset: int, data: bytes, now: float) -> None:
        assert self._way is not None
        self._said_at = now
        packet = self._packet(kind, offset, data)
        self._transmits.append(Transmit(packet, self._way.remote, self._way.local))

    def _packet(self, kind: int, offset: int, data: bytes, receiver: bytes = b"") -> bytes:
        head = _HEAD.pack(MAGIC, kind, self._id, receiver or self._peer_id, offset, self._expected)
        return head + data

    def _end(self, *, is_clean: bool = True) -> None:
        if not self._is_over:
            self._is_over = True
            self._events.append(StreamOver(is_clean))
