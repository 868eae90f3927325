"""`recvmmsg`, `sendmmsg` and `sendto` of Linux through ctypes: the calls and their structures.

The structures are the kernel's (linux/socket.h), written by `struct` into arrays that are made once. `find`
sends itself two datagrams before it says that the calls can be used, so that a C library or a machine with
other structures costs speed and nothing else.
"""

from __future__ import annotations

import ctypes
import functools
import mmap
import socket
import struct
import sys
from collections.abc import Callable
from typing import NamedTuple, TypeAlias

# struct mmsghdr: name, its length, parts, their number, control data, its length, flags; the length of what
# was moved
_LAYOUT = "@PIPNPNi0PI0P"
MOST = 64
"""Datagrams of one call. More make no difference to the cost of one."""

HEADER = struct.Struct(_LAYOUT)
PART = struct.Struct("@PN")
"""struct iovec: where, how many bytes."""

_FLAGS = struct.calcsize("@PIPNPN")
_LENGTH = struct.calcsize("@PIPNPNi0P")
_SKIPPED = _LENGTH - _FLAGS - 4, HEADER.size - _LENGTH - 4
RECEIVED = struct.Struct(f"={_FLAGS}xi{_SKIPPED[0]}xI{_SKIPPED[1]}x")
"""What matters of a header after `recvmmsg`: flags and length."""

# Packing many structures at once costs a third of packing each.
_HEADERS = [struct.Struct("@" + _LAYOUT[1:] * count) for count in range(MOST + 1)]
_PARTS = [struct.Struct("@" + "PN" * count) for count in range(MOST + 1)]

NAME_SIZE = 32
"""Bytes kept for a socket address: the largest, sockaddr_in6, has 28."""

Pointer: TypeAlias = ctypes.c_void_p
"""A place, as the calls take it: converting a number costs as much as half a call."""


class Calls(NamedTuple):
    """They return as in C, and `last_error` says why one failed."""

    recvmmsg: Callable[[int, Pointer, int, int, None], int]
    """Socket, headers, their number, flags."""
    sendmmsg: Callable[[int, Pointer, int, int], int]
    sendto: Callable[[int, Pointer, int, int, Pointer, int], int]
    """Socket, bytes, their number, flags, socket address and its length."""


class Memory:
    """Anonymous memory whose place is known. Pages that are never touched cost nothing."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size)
        self.view = memoryview(self._map)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))

    def pointers(self, step: int) -> tuple[Pointer, ...]:
        """The places of structures of `step` bytes that fill it."""
        return tuple(Pointer(self.start + at) for at in range(0, len(self.view), step))


def pack_headers(view: memoryview, fields: list[int]) -> None:
    """Write headers one after the other; each has eight fields."""
    _HEADERS[len(fields) // 8].pack_into(view, 0, *fields)


def pack_parts(view: memoryview, fields: list[int]) -> None:
    """The same with parts; each has two fields."""
    _PARTS[len(fields) // 2].pack_into(view, 0, *fields)


def socket_name(host: str, port: int) -> bytes:
    """struct sockaddr_in or sockaddr_in6."""
    if ":" in host:
        packed = socket.inet_pton(socket.AF_INET6, host)
        return struct.pack("=H", socket.AF_INET6) + struct.pack("!HI", port, 0) + packed + bytes(4)
    return struct.pack("=H", socket.AF_INET) + struct.pack("!H", port) + socket.inet_aton(host) + bytes(8)


def parse_name(name: bytes) -> tuple[str, int]:
    """The reverse: host and port."""
    family, port = struct.unpack_from("=H", name)[0], struct.unpack_from("!H", name, 2)[0]
    if family == socket.AF_INET6:
        return socket.inet_ntop(socket.AF_INET6, name[8:24]), port
    return socket.inet_ntoa(name[4:8]), port


def last_error() -> int:
    """`errno` of the last call."""
    return ctypes.get_errno()


@functools.lru_cache(maxsize=1)
def find() -> Calls | None:
    """The calls, or ``None`` where they are missing or do not do what is expected."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        calls = Calls(library.recvmmsg, library.sendmmsg, library.sendto)
    except (OSError, AttributeError, TypeError):
        return None
    try:
        return calls if _works(calls) else None
    except OSError:
        return None


def _works(calls: Calls) -> bool:
    """Three datagrams of known bytes, there and back out of the structures."""
    memory = Memory(4096)
    texts = (b"one datagram", b"and another one", b"and the last of all")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        name = socket_name(*probe.getsockname())
        memory.view[1024 : 1024 + len(name)] = name
        for number, text in enumerate(texts):
            at = 2048 + 64 * number
            memory.view[at : at + len(text)] = text
            _lay(memory, number, 1024, len(name), at, len(text))
        fd, several, wait = probe.fileno(), len(texts) - 1, int(socket.MSG_DONTWAIT)
        if calls.sendmmsg(fd, Pointer(memory.start), several, wait) != several:
            return False
        last = Pointer(memory.start + 2048 + 64 * several)
        sent = calls.sendto(fd, last, len(texts[-1]), wait, Pointer(memory.start + 1024), len(name))
        if sent != len(texts[-1]):
            return False
        for number in range(len(texts)):
            _lay(memory, number, 1024 + 64 * (number + 1), NAME_SIZE, 3072 + 64 * number, 64)
        if calls.recvmmsg(fd, Pointer(memory.start), len(texts), wait, None) != len(texts):
            return False
    for number, text in enumerate(texts):
        _, length = RECEIVED.unpack_from(memory.view, HEADER.size * number)
        source = 1024 + 64 * (number + 1)
        at = 3072 + 64 * number
        if length != len(text) or memory.view[at : at + length] != text:
            return False
        if parse_name(bytes(memory.view[source : source + NAME_SIZE])) != parse_name(name):
            return False
    return True


def _lay(memory: Memory, number: int, name: int, name_length: int, data: int, size: int) -> None:
    """Header and part `number` of the self-test: one datagram at `data`."""
    part = 512 + PART.size * number
    PART.pack_into(memory.view, part, memory.start + data, size)
    start = memory.start
    HEADER.pack_into(
        memory.view, HEADER.size * number, start + name, name_length, start + part, 1, 0, 0, 0, 0
    )
