"""ChannelData: four bytes of header before what a peer sent (RFC 8656 §12.4), singly and in runs.

A run is a buffer of datagrams of one size, the last of which may be shorter. Both directions copy each byte
once and make no object that outlives the call but the result.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from crowline.base.machine import Buffer

HEADER_SIZE = 4
FIRST_CHANNEL = 0x4000  # RFC 8656 §12: beyond the last one lie the numbers of DTLS and RTP
LAST_CHANNEL = 0x4FFF
MAX_DATA = 0xFFFF - HEADER_SIZE

_HEADER = struct.Struct("!HH")
_FIRST_BYTES = bytes(range(0x40, 0x50))


def is_channel_data(data: Buffer) -> bool:
    """Whether the first byte is that of a channel number (RFC 7983)."""
    return len(data) >= HEADER_SIZE and data[0] & 0xF0 == 0x40


def is_channel_run(run: memoryview, segment_size: int) -> bool:
    """Whether every datagram of a run starts like ChannelData."""
    return len(run) >= HEADER_SIZE and not bytes(run[::segment_size]).translate(None, _FIRST_BYTES)


def wrap(number: int, data: Buffer) -> bytes:
    """One datagram for channel `number`. Raises `struct.error` beyond 65,535 bytes."""
    return _HEADER.pack(number, len(data)) + data


def wrap_run(number: int, data: Buffer, segment_size: int) -> bytes:
    """A run with a header before each datagram; its datagrams are `segment_size + 4` bytes long."""
    view = memoryview(data)
    header = _HEADER.pack(number, segment_size)
    whole = len(view) - len(view) % segment_size
    parts: list[Buffer] = []
    for start in range(0, whole, segment_size):
        parts.append(header)
        parts.append(view[start : start + segment_size])
    if whole < len(view):
        parts.append(_HEADER.pack(number, len(view) - whole))
        parts.append(view[whole:])
    return b"".join(parts)


def wrap_stream(number: int, data: Buffer, segment_size: int | None = None) -> bytes:
    """A datagram or a run as it stands on a stream: each with its header, padded to four bytes (§12.5)."""
    view = memoryview(data)
    size = segment_size or len(view) or 1
    parts: list[Buffer] = []
    for start in range(0, len(view) or 1, size):
        piece = view[start : start + size]
        parts += (_HEADER.pack(number, len(piece)), piece, bytes(-len(piece) & 3))
    return b"".join(parts)


def unwrap(data: Buffer) -> tuple[int, memoryview] | None:
    """Channel number and payload of one datagram; ``None`` when it claims more than it holds."""
    if len(data) < HEADER_SIZE:
        return None
    number, length = _HEADER.unpack_from(data)
    if length > len(data) - HEADER_SIZE or not FIRST_CHANNEL <= number <= LAST_CHANNEL:
        return None
    return number, memoryview(data)[HEADER_SIZE : HEADER_SIZE + length]


def unwrap_run(data: Buffer, segment_size: int) -> Iterator[tuple[int, list[memoryview]]]:
    """Split a run into runs of one channel: its number, and payloads of one size (the last may be shorter).

    Datagrams that are no ChannelData are left out. An empty payload, which is a datagram too (RFC 8656 §12.6)
    and of which a run would keep nothing, stands alone.
    """
    view = memoryview(data)
    number, parts = 0, list[memoryview]()
    begin = 0
    if _is_even(view, segment_size):
        begin = len(view) - len(view) % segment_size
        number = _HEADER.unpack_from(view)[0]
        parts = [
            view[start : start + segment_size - HEADER_SIZE]
            for start in range(HEADER_SIZE, begin, segment_size)
        ]
    for start in range(begin, len(view), segment_size):
        piece = unwrap(view[start : start + segment_size])
        if piece is None:
            continue
        if parts and not (piece[0] == number and _fits(piece[1], parts)):
            yield number, parts
            parts = []
        number = piece[0]
        parts.append(piece[1])
    if parts:
        yield number, parts


def number_of_run(run: memoryview, segment_size: int) -> int | None:
    """The channel of a run in which every datagram has one header and is as long as that says, but for a
    shorter one at the end; ``None`` for any other run. Bulk data comes in such runs."""
    whole = len(run) - len(run) % segment_size
    number, length = _HEADER.unpack_from(run) if len(run) > HEADER_SIZE else (0, 0)
    if not FIRST_CHANNEL <= number <= LAST_CHANNEL:
        return None
    if whole > segment_size and not _is_even(run, segment_size):
        return None
    if whole and length != segment_size - HEADER_SIZE:
        return None
    rest = len(run) - whole
    if rest and (rest <= HEADER_SIZE or _HEADER.unpack_from(run, whole) != (number, rest - HEADER_SIZE)):
        return None
    return int(number)


def renumber_run(run: memoryview, segment_size: int, number: int) -> None:
    """Write another channel's number into each header of a run that has a `number_of_run`, where it lies."""
    high, low = number.to_bytes(2, "big")
    count = -(-len(run) // segment_size)
    run[::segment_size] = bytes((high,)) * count
    run[1::segment_size] = bytes((low,)) * count


def _fits(payload: memoryview, parts: list[memoryview]) -> bool:
    """Whether a run stays one with `payload` at its end."""
    return 0 < len(payload) <= len(parts[0]) == len(parts[-1])


def _is_even(view: memoryview, segment_size: int) -> bool:
    """Whether all whole datagrams of a run have one header, which says that they are full: bulk data."""
    count = len(view) // segment_size
    if count < 2 or segment_size <= HEADER_SIZE:
        return False
    header = bytes(view[:HEADER_SIZE])
    number, length = _HEADER.unpack(header)
    if length != segment_size - HEADER_SIZE or not FIRST_CHANNEL <= number <= LAST_CHANNEL:
        return False
    end = count * segment_size
    return all(bytes(view[at:end:segment_size]) == header[at : at + 1] * count for at in range(HEADER_SIZE))
