"""A UDP socket on all addresses of this machine that answers from the one that was asked.

A datagram to a host with several addresses must be answered from the address it was sent to: NATs and clients
drop what comes from anywhere else. The kernel tells that address with each datagram, and takes it
for each answer (IP_PKTINFO, RFC 3542 §6).
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
import struct
import sys
from collections.abc import Callable
from typing import Any, TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net.segmentation import (
    CANNOT_SEGMENT,
    MAX_PAYLOAD,
    MAX_SEGMENTS,
    REFUSED_RUN,
    UDP_GRO,
    UDP_SEGMENT,
)

# linux/in.h and linux/in6.h; the socket module names only some of them.
_IP_PKTINFO = 8
_IPV6_RECVPKTINFO = 49
_IPV6_PKTINFO = 50

_RECEIVE_BUFFER = 65536
_ANCILLARY_BUFFER = 128  # GRO size and packet info, with room
_KERNEL_BUFFER = 4 << 20
# Reads for one wake-up, so that a flood cannot keep the loop from everything else.
_READS_PER_WAKE = 16
# Addresses seen, remembered to make one object each; forgotten all at once when there are too many.
_ADDRESS_CACHE = 4096

Receiver: TypeAlias = Callable[[memoryview, Address, int, Address], None]

IS_SUPPORTED = sys.platform == "linux"


class AskedSocket:
    """`on_receive(data, source, segment_size, local)` gets each run; `data` is valid only during the call.

    `send` leaves by `transmit.local`. What the kernel does not take at once is lost and counted, as in any
    full queue.
    """

    def __init__(self, sock: socket.socket, on_receive: Receiver) -> None:
        self._socket = sock
        self._on_receive = on_receive
        self._buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._addresses: dict[Any, Address] = {}
        self._is_ipv6 = sock.family == socket.AF_INET6
        self._can_segment = True
        self.lost = 0
        host, port = sock.getsockname()[:2]
        self.local = Address.parse(host, port)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._readable)

    @classmethod
    def bind(cls, address: Address, on_receive: Receiver) -> AskedSocket:
        """Bind the wildcard `address` (port 0: any). Raises `LocalProblem`."""
        sock = socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            _prepare(sock)
            sock.bind((address.host, address.port))
        except OSError as error:
            sock.close()
            raise LocalProblem(
                f"UDP {address} cannot be used: {error.strerror}.",
                hint="Another program may have the port; choose another one.",
            ) from error
        return cls(sock, on_receive)

    def send(self, transmit: Transmit) -> None:
        data = memoryview(transmit.data)
        size = transmit.segment_size
        if size is None or size >= len(data):
            self._send_piece(data, None, transmit)
            return
        run = size * min(MAX_SEGMENTS, MAX_PAYLOAD // size)
        for start in range(0, len(data), run):
            self._send_piece(data[start : start + run], size, transmit)

    def close(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket)
            self._socket.close()

    def _send_piece(self, data: memoryview, size: int | None, transmit: Transmit) -> None:
        if self._socket.fileno() < 0:
            return
        is_run = size is not None and len(data) > size
        if is_run and not self._can_segment:
            self._send_singly(data, size or len(data), transmit)
            return
        ancillary = [self._leave_by(transmit.local)] if transmit.local is not None else []
        if is_run:
            ancillary.append((socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size)))
        try:
            target = (transmit.destination.host, transmit.destination.port)
            self._socket.sendmsg([data], ancillary, 0, target)
        except OSError as error:
            if is_run and error.errno in REFUSED_RUN:
                self._can_segment = error.errno not in CANNOT_SEGMENT
                self._send_singly(data, size or len(data), transmit)
                return
            self.lost += 1

    def _send_singly(self, data: memoryview, size: int, transmit: Transmit) -> None:
        for start in range(0, len(data), size):
            self._send_piece(data[start : start + size], None, transmit)

    def _leave_by(self, local: Address) -> tuple[int, int, bytes]:
        packed = local.packed
        if self._is_ipv6:
            return socket.IPPROTO_IPV6, _IPV6_PKTINFO, packed + bytes(4)
        return socket.IPPROTO_IP, _IP_PKTINFO, bytes(4) + packed + bytes(4)

    def _readable(self) -> None:
        for _ in range(_READS_PER_WAKE):
            if self._socket.fileno() < 0:
                return
            try:
                length, ancillary, flags, source = self._socket.recvmsg_into(
                    [self._buffer], _ANCILLARY_BUFFER
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                # An ICMP error of an earlier datagram: no statement about this socket.
                continue
            if length and not flags & socket.MSG_TRUNC:
                self._deliver(length, ancillary, source)

    def _deliver(self, length: int, ancillary: list[tuple[int, int, bytes]], source: Any) -> None:
        size, asked = length, b""
        for level, kind, value in ancillary:
            if level == socket.SOL_UDP and kind == UDP_GRO:
                size = struct.unpack_from("=H", value)[0]
            elif level == socket.IPPROTO_IP and kind == _IP_PKTINFO:
                # Destination and local address differ for broadcast and multicast: not for us.
                asked = value[8:12] if value[8:12] == value[4:8] else b""
            elif level == socket.IPPROTO_IPV6 and kind == _IPV6_PKTINFO:
                asked = value[:16] if value[0] != 0xFF else b""
        if asked:
            self._on_receive(self._buffer[:length], self._source(source), size, self._asked(asked))

    def _source(self, source: Any) -> Address:
        known = self._addresses.get(source)
        if known is None:
            known = self._remember(source, Address.parse(source[0].partition("%")[0], source[1]))
        return known

    def _asked(self, packed: bytes) -> Address:
        known = self._addresses.get(packed)
        if known is None:
            host = str(ipaddress.ip_address(packed))
            known = self._remember(packed, Address(host, self.local.port))
        return known

    def _remember(self, key: Any, address: Address) -> Address:
        if len(self._addresses) >= _ADDRESS_CACHE:
            self._addresses.clear()
        self._addresses[key] = address
        return address


def _prepare(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_RECVPKTINFO, 1)
    else:
        sock.setsockopt(socket.IPPROTO_IP, _IP_PKTINFO, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER)
    try:
        sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
    except OSError:
        return
