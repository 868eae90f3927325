"""`recvmmsg` and `sendmmsg` of Linux through ctypes: the calls, their structures, and whether they work here.

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
from typing import TypeAlias

# struct mmsghdr: name, its length, parts, their number, control data, its length, flags; the length of what
# was moved
_LAYOUT = "@PIPNPNi0PI0P"
HEADER = struct.Struct(_LAYOUT)
PART = struct.Struct("@PN")
"""struct iovec: where, how many bytes."""

_FLAGS = struct.calcsize("@PIPNPN")
_LENGTH = struct.calcsize("@PIPNPNi0P")
_SKIPPED = _LENGTH - _FLAGS - 4, HEADER.size - _LENGTH - 4
RECEIVED = struct.Struct(f"={_FLAGS}xi{_SKIPPED[0]}xI{_SKIPPED[1]}x")
"""What matters of a header after `recvmmsg`: flags and length."""

NAME_SIZE = 32
"""Bytes kept for a socket address: the largest, sockaddr_in6, has 28."""

Receive: TypeAlias = Callable[[int, int, int, int, None], int]
Send: TypeAlias = Callable[[int, int, int, int], int]


class Memory:
    """Anonymous memory whose place is known. Pages that are never touched cost nothing."""

    def __init__(self, size: int) -> None:
        self._map = mmap.mmap(-1, size)
        self.view = memoryview(self._map)
        self.start = ctypes.addressof(ctypes.c_char.from_buffer(self._map))


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
def find() -> tuple[Receive, Send] | None:
    """The two calls, or ``None`` where they are missing or do not do what is expected."""
    if not sys.platform.startswith("linux"):
        return None
    try:
        library = ctypes.CDLL(None, use_errno=True)
        receive, send = library.recvmmsg, library.sendmmsg
    except (OSError, AttributeError, TypeError):
        return None
    receive.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int, ctypes.c_void_p)
    send.argtypes = (ctypes.c_int, ctypes.c_void_p, ctypes.c_uint, ctypes.c_int)
    try:
        works = _works(receive, send)
    except OSError:
        return None
    return (receive, send) if works else None


def _works(receive: Receive, send: Send) -> bool:
    """Two datagrams of known bytes, there and back out of the structures."""
    memory = Memory(4096)
    texts = (b"one datagram", b"and another one")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        name = socket_name(*probe.getsockname())
        memory.view[1024 : 1024 + len(name)] = name
        for number, text in enumerate(texts):
            at = 2048 + 64 * number
            memory.view[at : at + len(text)] = text
            _lay(memory, number, 1024, len(name), at, len(text))
        if send(probe.fileno(), memory.start, len(texts), socket.MSG_DONTWAIT) != len(texts):
            return False
        for number in range(len(texts)):
            _lay(memory, number, 1024 + 64 * (number + 1), NAME_SIZE, 3072 + 64 * number, 64)
        if receive(probe.fileno(), memory.start, len(texts), socket.MSG_DONTWAIT, None) != len(texts):
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
