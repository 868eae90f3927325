"""Every message of a chat, and the bytes it is on the wire.

frame = length:u32 payload      big-endian, `length` counts the payload: a msgpack map, its kind in ``t``

Both sides say the same things at any time. Messages are numbered from 1 by the side that says them, without
gaps, so that one number marks all up to it as delivered, or as read.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from crowline.base.errors import MalformedMessage
from crowline.base.machine import Buffer

HEADER_BYTES = 4

MAX_TEXT = 16_384
"""Characters of one message: a page of a book has 3,000, a pasted log a few times that."""

MAX_NOTE = 200
"""Characters of what a person says of being away: one line of a screen."""

MAX_FRAME = 4 * MAX_TEXT + 64
"""Bytes of one frame: a character has at most 4 in UTF-8."""

Number = Annotated[int, msgspec.Meta(ge=1, le=2**53)]
Mark = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class MalformedChat(MalformedMessage):
    """The other side sent something that is not part of a chat."""


class Say(msgspec.Struct, frozen=True, tag_field="t", tag="say"):
    """A message. Its lines are separated by ``\\n``; escape it before you show it."""

    id: Number
    text: Annotated[str, msgspec.Meta(min_length=1, max_length=MAX_TEXT)]


class Marks(msgspec.Struct, frozen=True, tag_field="t", tag="marks"):
    """This side has the other's messages up to `delivered`, and its person has seen those up to `read`."""

    delivered: Mark
    read: Mark = 0


class Typing(msgspec.Struct, frozen=True, tag_field="t", tag="typing"):
    """This side's person is writing; said again while that lasts, as it ends by itself after a while."""

    on: bool


class Away(msgspec.Struct, frozen=True, tag_field="t", tag="away"):
    """This side's person is away (with a line about it) or back."""

    on: bool
    note: Annotated[str, msgspec.Meta(max_length=MAX_NOTE)] = ""


Message: TypeAlias = Say | Marks | Typing | Away

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Message] = msgspec.msgpack.Decoder(Message)


def encode(message: Message) -> bytes:
    """The whole frame."""
    payload = _encoder.encode(message)
    return len(payload).to_bytes(HEADER_BYTES, "big") + payload


class FrameReader:
    """Messages from an ordered stream of bytes, whatever the pieces it comes in.

    It keeps less than one frame: the length is looked at before anything of it is waited for.
    """

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: Buffer) -> None:
        """Take the next bytes; call `next` until ``None`` before the next `feed`."""
        self._buffer += data

    def next(self) -> Message | None:
        """The next message; ``None``: more bytes are needed. Raises `MalformedChat`."""
        if len(self._buffer) < HEADER_BYTES:
            return None
        length = int.from_bytes(self._buffer[:HEADER_BYTES], "big")
        if not 1 <= length <= MAX_FRAME:
            raise MalformedChat("The other side sent a message of an impossible length.")
        end = HEADER_BYTES + length
        if len(self._buffer) < end:
            return None
        payload = bytes(self._buffer[HEADER_BYTES:end])
        del self._buffer[:end]
        try:
            return _decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            raise MalformedChat("The other side sent a message that cannot be read.") from None
