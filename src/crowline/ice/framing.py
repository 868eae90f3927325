"""Packets on a stream: two bytes of length before each (RFC 4571 §2), STUN included (RFC 6544 §3)."""

from __future__ import annotations

from crowline.base.errors import MalformedMessage, UsageError
from crowline.base.machine import Buffer

LENGTH_SIZE = 2  # bytes, in network byte order
MAX_PACKET = 0xFFFF  # bytes; the length field can say no more

# Bytes of the first packet of a stranger: a check of ICE has about 100, and 700 with the longest ufrags.
# Until it is here nobody knows whose connection this is, so it costs no more memory than that.
FIRST_LIMIT = 1500
# Bytes that may wait to be taken: what one read of a socket brings, behind the beginning of a packet.
MAX_WAITING = 512 * 1024
# Packets without a byte that may follow each other. They say nothing, so a stream of them is no conversation;
# as a keepalive every 15 s (RFC 8445 §11) they last an hour, in which ICE has long asked for consent.
MAX_EMPTY_RUN = 256


class MalformedFraming(MalformedMessage):
    """The other side's stream is not one of framed packets."""


def frame(packet: Buffer) -> bytes:
    """The packet as it stands on a stream. Raises `UsageError` for one of more than `MAX_PACKET` bytes."""
    if len(packet) > MAX_PACKET:
        raise UsageError(f"a packet of {len(packet)} bytes cannot be framed")
    return len(packet).to_bytes(LENGTH_SIZE, "big") + packet


class Deframer:
    """Cuts a stream into packets. Empty ones, which mean nothing (RFC 4571 §2), are left out."""

    def __init__(self, first_limit: int = MAX_PACKET) -> None:
        """`first_limit`: bytes of the largest first packet; `FIRST_LIMIT` for whoever accepts connections.

        A first packet that is empty is refused too: it would buy a stranger more time for nothing.
        """
        self._buffer = bytearray()
        self._limit = first_limit
        self._is_first = True
        self._empty_run = 0
        self._fault = ""

    def __len__(self) -> int:
        """Bytes that wait."""
        return len(self._buffer)

    def feed(self, data: Buffer) -> None:
        """Add what came; to a lost stream, nothing. Raises `UsageError` beyond `MAX_WAITING` bytes."""
        if self._fault:
            return
        if len(self._buffer) + len(data) > MAX_WAITING:
            raise UsageError("take the packets before feeding more")
        self._buffer += data

    def next_packet(self) -> bytes | None:
        """One whole packet of at least a byte, or ``None`` while there is none.

        Raises `MalformedFraming` for a stream that breaks a limit, then and ever after: it is lost.
        """
        if self._fault:
            raise MalformedFraming(self._fault)
        buffer = self._buffer
        self._skip_empty()
        if len(buffer) < LENGTH_SIZE:
            return None
        size = buffer[0] << 8 | buffer[1]
        if size > self._limit:
            self._fail(f"a first packet of {size} bytes")
        end = LENGTH_SIZE + size
        if len(buffer) < end:
            return None
        packet = bytes(memoryview(buffer)[LENGTH_SIZE:end])
        del buffer[:end]
        self._is_first, self._limit, self._empty_run = False, MAX_PACKET, 0
        return packet

    def rest(self) -> bytes:
        """What came after the last packet taken, for a stream that carries something else from there."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _skip_empty(self) -> None:
        buffer, at = self._buffer, 0
        while len(buffer) - at >= LENGTH_SIZE and not (buffer[at] or buffer[at + 1]):
            at += LENGTH_SIZE
        if not at:
            return
        del buffer[:at]
        self._empty_run += at // LENGTH_SIZE
        if self._is_first:
            self._fail("an empty first packet")
        if self._empty_run > MAX_EMPTY_RUN:
            self._fail(f"more than {MAX_EMPTY_RUN} empty packets on end")

    def _fail(self, fault: str) -> None:
        self._fault = fault
        self._buffer.clear()
        raise MalformedFraming(fault)
