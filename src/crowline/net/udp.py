"""A UDP socket that moves runs of datagrams in one system call where the kernel can (UDP_SEGMENT, UDP_GRO).

A run is a buffer of datagrams of one size for one peer, the last of which may be shorter. Other platforms,
and kernels that refuse, take and give one datagram a call behind the same interface.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
from collections import deque
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

# One read may bring a whole super-packet.
_RECEIVE_BUFFER = 65536
# Reads for one wake-up, so that a flood on one socket cannot keep the loop from everything else.
_READS_PER_WAKE = 16
# Runs that wait for a full socket buffer; beyond it datagrams are lost, as in any full queue.
_QUEUE_LIMIT = 64
# Two hundred milliseconds of 200 MB/s: room for a busy event loop.
_KERNEL_BUFFER = 8 << 20
# Sources seen are remembered to make one `Address` each; forgotten all at once when there are too many.
_SOURCE_CACHE = 4096
_TRUNCATED = getattr(socket, "MSG_TRUNC", 0)

Receiver: TypeAlias = Callable[[memoryview, Address, int], None]


class UdpSocket:
    """One bound UDP socket in the running event loop.

    `on_receive(data, source, segment_size)` is called for each run that arrives; `data` is valid only
    during the call. `on_drained()` is called once after each burst of them.
    """

    def __init__(
        self, sock: socket.socket, on_receive: Receiver, on_drained: Callable[[], None] | None = None
    ) -> None:
        self._socket = sock
        self._on_receive = on_receive
        self._on_drained = on_drained
        self._loop = asyncio.get_running_loop()
        self._buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._sources: dict[Any, Address] = {}
        self._queue: deque[tuple[memoryview, int | None, Any]] = deque()
        self._segments = sys.platform == "linux"
        self._read = self._read_run if hasattr(sock, "recvmsg_into") else self._read_plain
        self.lost = 0
        host, port = sock.getsockname()[:2]
        self.local = Address.parse(host, port)
        self._loop.add_reader(sock, self._readable)

    @classmethod
    def bind(
        cls, address: Address, on_receive: Receiver, on_drained: Callable[[], None] | None = None
    ) -> UdpSocket:
        """Bind `address` (port 0: any). Raises `LocalProblem` when it is taken or not ours."""
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
        return cls(sock, on_receive, on_drained)

    @property
    def congested(self) -> bool:
        """Whether datagrams wait for the kernel; a bulk sender should pause."""
        return bool(self._queue)

    def send(self, transmit: Transmit) -> None:
        """Send at once if the kernel has room, else queue. A full queue loses, as networks do; so does
        whatever the kernel refuses, since a protocol can do nothing about it.
        """
        data = memoryview(transmit.data)
        target = (transmit.destination.host, transmit.destination.port)
        size = transmit.segment_size
        if size is None or size >= len(data):
            self._enqueue(data, None, target)
            return
        run = size * max(1, min(MAX_SEGMENTS, MAX_PAYLOAD // size))
        for start in range(0, len(data), run):
            piece = data[start : start + run]
            self._enqueue(piece, size if len(piece) > size else None, target)

    def close(self) -> None:
        if self._socket.fileno() < 0:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._queue.clear()
        self._socket.close()

    def _enqueue(self, data: memoryview, size: int | None, target: Any) -> None:
        if self._socket.fileno() < 0:
            return
        if self._queue:
            if len(self._queue) < _QUEUE_LIMIT:
                self._queue.append((memoryview(bytes(data)), size, target))
            else:
                self.lost += 1
            return
        rest = self._try_send(data, size, target)
        if rest is not None:
            self._queue.append((memoryview(bytes(rest)), size, target))
            self._loop.add_writer(self._socket, self._writable)

    def _try_send(self, data: memoryview, size: int | None, target: Any) -> memoryview | None:
        """What the kernel has no room for now; None when it took or refused everything."""
        if size is not None and self._segments:
            control = [(socket.SOL_UDP, UDP_SEGMENT, struct.pack("=H", size))]
            try:
                self._socket.sendmsg([data], control, 0, target)
            except (BlockingIOError, InterruptedError):
                return data
            except OSError as error:
                if error.errno not in REFUSED_RUN:
                    self.lost += 1
                    return None
                self._segments = error.errno not in CANNOT_SEGMENT
            else:
                return None
        step = size or max(1, len(data))
        for start in range(0, len(data), step):
            try:
                self._socket.sendto(data[start : start + step], target)
            except (BlockingIOError, InterruptedError):
                return data[start:]
            except OSError:
                self.lost += 1
        return None

    def _writable(self) -> None:
        while self._queue:
            data, size, target = self._queue[0]
            rest = self._try_send(data, size, target)
            if rest is not None:
                self._queue[0] = (rest, size, target)
                return
            self._queue.popleft()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        for _ in range(_READS_PER_WAKE):
            try:
                length, size, source = self._read()
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # An ICMP error of an earlier datagram: no statement about this socket.
                continue
            if length:
                self._on_receive(self._buffer[:length], self._address(source), size)
            if self._socket.fileno() < 0:
                return
        if self._on_drained is not None:
            self._on_drained()

    def _read_run(self) -> tuple[int, int, Any]:
        """Bytes read (0: nothing that is whole), the size of each datagram among them, and the source."""
        length, ancillary, flags, source = self._socket.recvmsg_into([self._buffer], 64)
        size = length
        for level, kind, value in ancillary:
            if level == socket.SOL_UDP and kind == UDP_GRO:
                size = struct.unpack_from("=H", value)[0]
        return (0 if flags & _TRUNCATED else length), size, source

    def _read_plain(self) -> tuple[int, int, Any]:
        """The same where there is no ancillary data."""
        length, source = self._socket.recvfrom_into(self._buffer)
        return length, length, source

    def _address(self, source: Any) -> Address:
        known = self._sources.get(source)
        if known is None:
            if len(self._sources) >= _SOURCE_CACHE:
                self._sources.clear()
            host = source[0].partition("%")[0]
            known = self._sources[source] = Address.parse(host, source[1])
        return known


def _prepare(sock: socket.socket) -> None:
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        _set_buffer(sock, option)
    if sys.platform == "linux":
        # asm-generic/socket.h: past rmem_max and wmem_max where the process may (CAP_NET_ADMIN).
        for forced in (33, 32):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _KERNEL_BUFFER)
            except OSError:
                break
        try:
            sock.setsockopt(socket.SOL_UDP, UDP_GRO, 1)
        except OSError:
            return


def _set_buffer(sock: socket.socket, option: int) -> None:
    """As much as the system gives: Linux takes any number for its limit, others refuse one beyond it."""
    size = _KERNEL_BUFFER
    while size >= _RECEIVE_BUFFER:
        try:
            sock.setsockopt(socket.SOL_SOCKET, option, size)
        except OSError:
            size //= 2
        else:
            return
