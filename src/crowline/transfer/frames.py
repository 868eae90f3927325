"""Cuts an ordered byte stream into frames, whatever the pieces it comes in."""

from __future__ import annotations

from msgspec import Struct

from crowline.base.errors import UsageError
from crowline.base.machine import Buffer
from crowline.transfer.messages import (
    HEADER_BYTES,
    MAX_CONTROL_FRAME,
    MAX_DATA_FRAME,
    FrameType,
    MalformedTransfer,
    Message,
    decode,
)

_NOTHING = memoryview(b"")

# What the first line of every application stream begins with.
_SERVICE = b"crowline/"


class DataPiece(Struct, frozen=True):
    """Some bytes of a DATA frame: a view into what was fed, not a copy."""

    data: memoryview


class FrameReader:
    """Frames from bytes, made when asked for: what is waiting costs no object.

    A control frame is buffered until it is whole, once its length has been found to be within
    `MAX_CONTROL_FRAME`; the payload of a data frame is never buffered.
    """

    def __init__(self, greeting: bytes = b"") -> None:
        """`greeting` is the line that must come first."""
        self._greeting = greeting
        self._line = bytearray()
        self._view = _NOTHING
        self._control = bytearray()
        self._header = bytearray()
        self._type = FrameType.DATA
        self._remaining = 0
        self._in_frame = False

    def feed(self, data: Buffer) -> None:
        """Take the next bytes of the stream; call `next` until ``None`` before the next `feed`."""
        if self._view:
            raise UsageError("the bytes given before have not been read")
        self._view = memoryview(data).cast("B")

    def next(self) -> Message | DataPiece | None:
        """The next message or piece of data; ``None``: more bytes are needed. Raises `MalformedTransfer`."""
        if self._greeting and not self._read_greeting():
            return None
        if not self._in_frame and not self._begin_frame():
            return None
        if self._type is FrameType.DATA:
            return self._next_piece()
        return self._next_message()

    def _read_greeting(self) -> bool:
        """Whether the whole line has come."""
        self._line += self._take(len(self._greeting) - len(self._line))
        if not self._greeting.startswith(self._line):
            raise MalformedTransfer(_not_a_transfer(bytes(self._line)))
        if len(self._line) < len(self._greeting):
            return False
        self._greeting = b""
        return True

    def _begin_frame(self) -> bool:
        self._header += self._take(HEADER_BYTES - len(self._header))
        if len(self._header) < HEADER_BYTES:
            return False
        try:
            self._type = FrameType(self._header[0])
        except ValueError:
            if _SERVICE.startswith(self._header):
                raise MalformedTransfer(_not_a_transfer(bytes(self._header))) from None
            raise MalformedTransfer("The other side sent a message of an unknown type.") from None
        self._remaining = int.from_bytes(self._header[1:], "big")
        limit = MAX_DATA_FRAME if self._type is FrameType.DATA else MAX_CONTROL_FRAME
        if not 1 <= self._remaining <= limit:
            raise MalformedTransfer("The other side sent a message of an impossible length.")
        self._header.clear()
        self._in_frame = True
        return True

    def _next_piece(self) -> DataPiece | None:
        piece = self._take(self._remaining)
        if not piece:
            return None
        self._remaining -= len(piece)
        self._in_frame = self._remaining > 0
        return DataPiece(piece)

    def _next_message(self) -> Message | None:
        piece = self._take(self._remaining)
        self._remaining -= len(piece)
        if self._remaining:
            self._control += piece
            return None
        self._in_frame = False
        if not self._control:
            return decode(self._type, piece)
        payload, self._control = self._control + piece, bytearray()
        return decode(self._type, payload)

    def _take(self, count: int) -> memoryview:
        piece, rest = self._view[:count], self._view[count:]
        # An empty view would keep the caller's buffer alive.
        self._view = rest if rest else _NOTHING
        return piece


def _not_a_transfer(line: bytes) -> str:
    """What to say of a stream that begins with `line`, or with as much of it as has been read."""
    if not line.startswith(_SERVICE[:HEADER_BYTES]):
        return "The other side does not send files."
    service = line.removeprefix(_SERVICE).split(b" ")[0]
    if service.isalpha() and service != b"send" and b" " in line:
        return f"The other side runs `crowline {service.decode()}`."
    return "The other side runs another command, or another version of Crowline."
