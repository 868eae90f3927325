"""What is read of the datagrams of QUIC links before any connection is asked: RFC 9000 §17."""

from __future__ import annotations

from collections.abc import Iterator

from crowline.base.machine import Buffer

# Every IPv6 path carries 1,232 bytes of UDP payload; a TURN channel header takes 4 of them (RFC 8656 §12.4).
DATAGRAM_SIZE = 1200
# A quarter of the largest UDP payload: four make a full run (`net/segmentation.py`). Where the route lets
# that out, as between programs of one machine, each packet's own work is small beside that for its bytes.
MAX_DATAGRAM_SIZE = 16_376
# Bytes of the connection ids that connections of ours go by: each packet has one, and they tell the few links
# of one pair apart. The first one, which a client makes up for its server, has more (RFC 9000 §7.2).
ID_LENGTH = 4
MIN_FIRST_ID_LENGTH = 8
# Datagrams of which it takes as long to look at each header as at all headers' bytes by their places.
_LONG_RUN = 10


def is_initial(data: Buffer) -> bool:
    """Whether a datagram could begin a connection of ours: a full-size Initial (RFC 9000 §14.1, §17.2.2)."""
    return (
        len(data) >= DATAGRAM_SIZE
        and data[0] & 0xF0 == 0xC0
        and bytes(data[1:5]) == b"\x00\x00\x00\x01"
        and MIN_FIRST_ID_LENGTH <= data[5] <= 20
    )


def has_long_header(data: Buffer) -> bool:
    """Whether it is of a handshake; its source chose its destination's id, perhaps."""
    return bool(data[0] & 0x80)


def destination_id(data: Buffer) -> bytes:
    """The id of the connection that a datagram is for (RFC 9000 §17.2, §17.3)."""
    if not has_long_header(data):
        return bytes(data[1 : 1 + ID_LENGTH])
    return bytes(data[6 : 6 + data[5]]) if len(data) > 6 else b""


def by_connection(data: memoryview, size: int) -> Iterator[tuple[bytes, memoryview]]:
    """Cut a run of datagrams of `size` bytes, the last perhaps shorter, where the connection changes."""
    if _is_of_one(data, size):
        yield destination_id(data), data
        return
    start, current = 0, destination_id(data[:size])
    for offset in range(size, len(data), size):
        found = destination_id(data[offset : offset + size])
        if found != current:
            yield current, data[start:offset]
            start, current = offset, found
    yield current, data[start:]


def _is_of_one(data: memoryview, size: int) -> bool:
    """Whether a long run is one of short headers with one id, as all bulk is: quicker than one by one."""
    if size <= ID_LENGTH or len(data) < _LONG_RUN * size:
        return False
    flags, *places = (bytes(data[place::size]) for place in range(1 + ID_LENGTH))
    return max(flags) < 0x80 and all(place.count(place[0]) == len(place) for place in places)
