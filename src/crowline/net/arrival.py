"""What the kernel says of datagrams beside their bytes: source, the address asked, the size of segments."""

from __future__ import annotations

import socket
import struct
from collections.abc import Callable, Iterator
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.net.segmentation import UDP_GRO

# linux/in.h and linux/in6.h; the socket module names only some of them.
IP_PKTINFO = 8
IPV6_RECVPKTINFO = 49
IPV6_PKTINFO = 50

Control: TypeAlias = tuple[int, int, bytes]
"""A control message: level, kind and value."""

# struct cmsghdr of Linux; messages begin where a size_t may.
_CONTROL_HEADER = struct.Struct("@Nii")
_ALIGNMENT = struct.calcsize("@N")


class Arrival:
    """What many datagrams have in common: `source`, the address `local` that was asked (``None`` where the
    kernel does not say), and the size of the datagrams of a run (0: it is one datagram).

    `note` is for whoever is asked before they are delivered (`Quick`).
    """

    __slots__ = ("local", "note", "segment_size", "source")

    def __init__(self, source: Address, local: Address | None, segment_size: int) -> None:
        self.source = source
        self.local = local
        self.segment_size = segment_size
        self.note: object = None


Quick: TypeAlias = Callable[[int, int, Arrival], bool]
"""Gets offset and length of a datagram or run in the exchange's view; whether that was all there is to do."""


def learn(host: str, port: int, control: list[Control], local_port: int) -> Arrival:
    """From a socket address and control data."""
    size, local = 0, None
    for level, kind, value in control:
        if level == socket.SOL_UDP and kind == UDP_GRO:
            size = struct.unpack_from("=H", value)[0]
        elif level == socket.IPPROTO_IP and kind == IP_PKTINFO and value[8:12] == value[4:8]:
            # Destination and local address differ for broadcast and multicast: not for us.
            local = Address(socket.inet_ntop(socket.AF_INET, value[8:12]), local_port)
        elif level == socket.IPPROTO_IPV6 and kind == IPV6_PKTINFO and value[0] != 0xFF:
            local = Address.parse(socket.inet_ntop(socket.AF_INET6, value[:16]), local_port)
    return Arrival(address_of(host, port), local, size)


def address_of(host: str, port: int) -> Address:
    """From a socket address as the system gives it. What it says of IPv4 is in its canonical form already."""
    return Address.parse(host.partition("%")[0], port) if ":" in host else Address(host, port)


def leave_by(local: Address) -> Control:
    """The control message that makes a datagram leave from that address (RFC 3542 §6)."""
    packed = local.packed
    if local.is_ipv6:
        return socket.IPPROTO_IPV6, IPV6_PKTINFO, packed + bytes(4)
    return socket.IPPROTO_IP, IP_PKTINFO, bytes(4) + packed + bytes(4)


def pack_control(control: Control) -> bytes:
    """As the kernel reads it."""
    level, kind, value = control
    length = _CONTROL_HEADER.size + len(value)
    return _CONTROL_HEADER.pack(length, level, kind) + value + bytes(-length % _ALIGNMENT)


def parse_control(data: bytes) -> Iterator[Control]:
    """As the kernel wrote it, up to the first message without a length."""
    start = 0
    while start + _CONTROL_HEADER.size <= len(data):
        length, level, kind = _CONTROL_HEADER.unpack_from(data, start)
        if length < _CONTROL_HEADER.size:
            return
        yield level, kind, data[start + _CONTROL_HEADER.size : start + length]
        start += length + -length % _ALIGNMENT
