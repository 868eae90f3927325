"""Frames of a session on a link: one fixed header, then `length` bytes.

    kind u8 · stream u32 · offset u64 · length u32, network byte order

| kind | offset | payload |
| --- | --- | --- |
| DATA | of the first payload byte | stream bytes |
| FIN | of the first payload byte | the last stream bytes; the end itself counts as one more |
| WINDOW | every byte below it has arrived | u64: bytes at or above it may not be sent yet |
| RESET | error code | – |
| RESET_ACK | 0 | – |
| STREAMS | streams that the other side may have opened in all | – |
| DATAGRAM | 0 | one datagram |
| PACE | bytes of streams and datagrams that the other side is asked to send in a second at most | – |
| PING, PONG | token, returned as it came | filling, returned as it came |
| SEEK | 0 | – |
| CLOSE | error code | UTF-8 sentence for the person on the other side |
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from enum import IntEnum

from crowline.base.errors import MalformedMessage
from crowline.base.machine import Buffer

HEADER = struct.Struct("!BIQI")
CREDIT = struct.Struct("!Q")
# Payload of one DATA frame: small enough that control frames do not wait long behind it.
MAX_DATA = 256 * 1024
# What makes a ping larger than any datagram of a link, so that it needs one that is full.
MAX_FILLING = 1500
# A datagram may be as large as one of UDP (RFC 768: 16 bits of length).
MAX_DATAGRAM = 65_535
# A sentence for a person.
MAX_SENTENCE = 1024


class Kind(IntEnum):
    DATA = 0
    FIN = 1
    WINDOW = 2
    RESET = 3
    PING = 4
    PONG = 5
    CLOSE = 6
    RESET_ACK = 7
    STREAMS = 8
    DATAGRAM = 9
    PACE = 12
    SEEK = 13


_MAX_LENGTH = {
    Kind.DATA: MAX_DATA,
    Kind.FIN: MAX_DATA,
    Kind.WINDOW: CREDIT.size,
    Kind.RESET: 0,
    Kind.PING: MAX_FILLING,
    Kind.PONG: MAX_FILLING,
    Kind.CLOSE: MAX_SENTENCE,
    Kind.RESET_ACK: 0,
    Kind.SEEK: 0,
    Kind.STREAMS: 0,
    Kind.DATAGRAM: MAX_DATAGRAM,
    Kind.PACE: 0,
}


class MalformedFrame(MalformedMessage):
    """A session frame cannot be read."""


def header(kind: Kind, stream: int, offset: int, length: int = 0) -> bytes:
    return HEADER.pack(kind, stream, offset, length)


def ping_frames(token: int, *, is_full: bool) -> tuple[bytes, ...]:
    """A ping; with `is_full`, one whose answer shows that full-size packets pass in both directions."""
    if is_full:
        return (header(Kind.PING, 0, token, MAX_FILLING), bytes(MAX_FILLING))
    return (header(Kind.PING, 0, token),)


def close_frame(code: int, sentence: bytes) -> bytes:
    return header(Kind.CLOSE, 0, code, len(sentence)) + sentence


# kind, stream, offset, payload
Handler = Callable[[Kind, int, int, memoryview], None]


class FrameParser:
    """Splits one link's bytes into frames.

    DATA and FIN payloads are handed on as they come, piece by piece with the offset of each piece, so that
    nothing large is put together first; a FIN's earlier pieces are handed on as DATA. Other frames are
    handed on whole. The memoryview is valid as long as the bytes given to `feed` are.
    """

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self._pending = b""
        self._kind = Kind.DATA
        self._stream = 0
        self._offset = 0
        self._left = 0

    def feed(self, data: Buffer) -> None:
        """Raises `MalformedFrame` on an unknown kind or a length beyond the kind's limit."""
        view = memoryview(data)
        while len(view):
            view = self._continue(view) if self._left else self._begin(view)

    def _continue(self, view: memoryview) -> memoryview:
        """More of a payload of stream bytes."""
        piece = view[: self._left]
        self._left -= len(piece)
        kind = self._kind if self._left == 0 else Kind.DATA
        self._handler(kind, self._stream, self._offset, piece)
        self._offset += len(piece)
        return view[len(piece) :]

    def _begin(self, view: memoryview) -> memoryview:
        wanted = self._wanted()
        taken = view[: wanted - len(self._pending)]
        self._pending += taken
        rest = view[len(taken) :]
        if len(self._pending) < HEADER.size:
            return rest
        code, stream, offset, length = HEADER.unpack_from(self._pending)
        try:
            kind = Kind(code)
        except ValueError:
            raise MalformedFrame(f"Unknown session frame {code}.") from None
        if length > _MAX_LENGTH[kind]:
            raise MalformedFrame(f"A {kind.name} frame claims {length} bytes.")
        if kind in (Kind.DATA, Kind.FIN) and length:
            self._kind, self._stream, self._offset, self._left = kind, stream, offset, length
            self._pending = b""
            return rest
        if len(self._pending) < HEADER.size + length:
            return rest
        payload = memoryview(self._pending)[HEADER.size :]
        self._pending = b""
        self._handler(kind, stream, offset, payload)
        return rest

    def _wanted(self) -> int:
        """Bytes the pending frame needs, as far as its header tells."""
        if len(self._pending) < HEADER.size:
            return HEADER.size
        return HEADER.size + int(HEADER.unpack_from(self._pending)[3])
