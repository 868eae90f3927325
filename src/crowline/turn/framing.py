"""STUN and ChannelData on a stream: where one message ends and the next begins (RFC 8656 §3.1, §12.5)."""

from __future__ import annotations

from crowline.stun.attributes import COOKIE_BYTES, MalformedStun
from crowline.stun.message import HEADER_SIZE
from crowline.turn.channel_data import FIRST_CHANNEL, LAST_CHANNEL
from crowline.turn.channel_data import HEADER_SIZE as CHANNEL_HEADER_SIZE

MAX_STUN = 20 + 65536  # bytes; the length field of a header could say no more

_PADDING = (b"", b"\0\0\0", b"\0\0", b"\0")  # by size modulo 4


def pad(channel_data: bytes) -> bytes:
    """ChannelData as it stands on a stream: filled up to a multiple of four bytes (RFC 8656 §12.5)."""
    return channel_data + _PADDING[len(channel_data) & 3]


class StreamFramer:
    """Cuts a stream into messages. Nothing is kept but the beginning of one message."""

    def __init__(self, max_stun: int = MAX_STUN) -> None:
        """`max_stun`: bytes of the largest STUN message that is taken."""
        self._buffer = bytearray()
        self._max_stun = max_stun

    def __len__(self) -> int:
        """Bytes that wait for the rest of their message."""
        return len(self._buffer)

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take what arrived, in pieces of any size."""
        self._buffer += data

    def next_message(self) -> bytes | None:
        """One whole STUN or ChannelData message without padding, or ``None`` while there is none.

        Raises `MalformedStun` for bytes that can be neither: the stream is lost then.
        """
        buffer = self._buffer
        if len(buffer) < CHANNEL_HEADER_SIZE:
            return None
        size, step = self._measure(buffer)
        if len(buffer) < step:
            return None
        message = bytes(memoryview(buffer)[:size])
        del buffer[:step]
        return message

    def rest(self) -> bytes:
        """What came after the last message, for a stream that carries raw data from there (RFC 6062 §4.3)."""
        rest = bytes(self._buffer)
        self._buffer.clear()
        return rest

    def _measure(self, buffer: bytearray) -> tuple[int, int]:
        """Bytes of the first message, and of it with its padding."""
        first, length = buffer[0] << 8 | buffer[1], buffer[2] << 8 | buffer[3]
        if FIRST_CHANNEL <= first <= LAST_CHANNEL:
            size = CHANNEL_HEADER_SIZE + length
            return size, size + (-size & 3)
        cookie = buffer[4:8]
        if buffer[0] >= 0x40 or length % 4 or cookie != COOKIE_BYTES[: len(cookie)]:
            raise MalformedStun("neither STUN nor ChannelData on a stream")
        size = HEADER_SIZE + length
        if size > self._max_stun:
            raise MalformedStun(f"a message of {size} bytes")
        return size, size
