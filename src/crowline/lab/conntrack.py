"""Lets time pass for a kernel's connection tracking: every entry gets that much older at once.

Talks to the kernel by netlink (linux/netfilter/nfnetlink_conntrack.h); the namespace is that of the thread.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

_NETLINK_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_FAMILY = struct.Struct("!BBH")  # struct nfgenmsg: family, version, resource
_ATTRIBUTE = struct.Struct("=HH")  # length, type

_CONNTRACK = 1 << 8  # NFNL_SUBSYS_CTNETLINK
_NEW, _GET, _DELETE = _CONNTRACK | 0, _CONNTRACK | 1, _CONNTRACK | 2
_REQUEST, _ACK, _DUMP = 0x001, 0x004, 0x300
_ERROR, _DONE = 2, 3

_TUPLE_ORIGINAL, _TIMEOUT = 1, 7
_NESTED = 0x8000
_TYPE_MASK = 0x3FFF
_LARGEST_MESSAGE = 1 << 16
_GONE = 2  # ENOENT: an entry may end by itself meanwhile


@dataclass(frozen=True, slots=True)
class Entry:
    """One tracked flow: how to name it, and the whole seconds that it has left."""

    family: int
    original: bytes
    left: int


def age(seconds: int) -> None:
    """Take that many seconds from what every entry has left; those with none left end.

    Raises `OSError` without privilege or without connection tracking.
    """
    with closing(open_netlink()) as kernel:
        for entry in list(entries(kernel)):
            # What is left has been rounded down: an entry just refreshed has its full lifetime.
            left = entry.left + 1 - seconds
            attributes = _attribute(_TUPLE_ORIGINAL | _NESTED, entry.original)
            if left > 0:
                attributes += _attribute(_TIMEOUT, struct.pack("!I", left))
            _request(kernel, _NEW if left > 0 else _DELETE, entry.family, attributes)


def open_netlink() -> socket.socket:
    """A socket to the connection tracking of the thread's namespace."""
    return socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)


def entries(kernel: socket.socket) -> Iterator[Entry]:
    """Every tracked flow of the namespace in which the netlink socket was opened."""
    kernel.send(_message(_GET, _REQUEST | _DUMP, socket.AF_UNSPEC, b""))
    while True:
        for kind, body in _messages(kernel.recv(_LARGEST_MESSAGE)):
            if kind == _DONE:
                return
            _raise_error(kind, body)
            attributes = dict(_attributes(body[_FAMILY.size :]))
            if _TUPLE_ORIGINAL in attributes and _TIMEOUT in attributes:
                (left,) = struct.unpack("!I", attributes[_TIMEOUT])
                yield Entry(body[0], attributes[_TUPLE_ORIGINAL], left)


def _request(kernel: socket.socket, kind: int, family: int, attributes: bytes) -> None:
    kernel.send(_message(kind, _REQUEST | _ACK, family, attributes))
    for answer, body in _messages(kernel.recv(_LARGEST_MESSAGE)):
        _raise_error(answer, body)


def _raise_error(kind: int, body: bytes) -> None:
    if kind == _ERROR:
        (code,) = struct.unpack_from("=i", body)
        if -code not in (0, _GONE):
            raise OSError(-code, "the kernel's connection tracking refused")


def _message(kind: int, flags: int, family: int, attributes: bytes) -> bytes:
    body = _FAMILY.pack(family, 0, 0) + attributes
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _HEADER.size:
        length, kind, *_ = _HEADER.unpack_from(data)
        if length < _HEADER.size:
            return
        yield kind, data[_HEADER.size : length]
        data = data[_aligned(length) :]


def _attribute(kind: int, value: bytes) -> bytes:
    length = _ATTRIBUTE.size + len(value)
    return _ATTRIBUTE.pack(length, kind) + value + bytes(_aligned(length) - length)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= _ATTRIBUTE.size:
        length, kind = _ATTRIBUTE.unpack_from(data)
        if length < _ATTRIBUTE.size:
            return
        yield kind & _TYPE_MASK, data[_ATTRIBUTE.size : length]
        data = data[_aligned(length) :]


def _aligned(length: int) -> int:
    return length + 3 & ~3
