"""A UDP socket that moves runs of datagrams in one system call where the kernel can (UDP_SEGMENT, UDP_GRO).

A run is a buffer of datagrams of one size for one peer, the last of which may be shorter. Other platforms,
and kernels that refuse, take and give one datagram a call behind the same interface.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
import sys
from collections import deque
from collections.abc import Callable
from typing import Any, TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit

# linux/udp.h; the socket module names them only in later Pythons.
_UDP_SEGMENT = 103
_UDP_GRO = 104
# net/udp.h UDP_MAX_SEGMENTS was 64 before Linux 6.9: the number that every kernel takes.
_MAX_SEGMENTS = 64
# The largest UDP payload over IPv4; IPv6 would take a little more.
_MAX_PAYLOAD = 65507
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
# Errors that a datagram may meet on its way and that say nothing about the socket.
_TRANSIENT = {
    errno.ECONNREFUSED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EPERM, errno.EACCES,
    errno.ENOBUFS, errno.EMSGSIZE, errno.EADDRNOTAVAIL, errno.ENETDOWN, errno.EHOSTDOWN, errno.EINVAL,
}  # fmt: skip

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
        """Send at once if the kernel takes it, else queue; a full queue loses, as networks do."""
        data = memoryview(transmit.data)
        target = (transmit.destination.host, transmit.destination.port)
        size = transmit.segment_size
        if size is None or size >= len(data):
            self._enqueue(data, None, target)
            return
        run = size * min(_MAX_SEGMENTS, _MAX_PAYLOAD // size) if self._segments else size
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
        if not self._try_send(data, size, target):
            self._queue.append((memoryview(bytes(data)), size, target))
            self._loop.add_writer(self._socket, self._writable)

    def _try_send(self, data: memoryview, size: int | None, target: Any) -> bool:
        """Whether the kernel took the run or refused it for good; False: it would block."""
        try:
            if size is None:
                self._socket.sendto(data, target)
            else:
                self._socket.sendmsg(
                    [data], [(socket.SOL_UDP, _UDP_SEGMENT, struct.pack("=H", size))], 0, target
                )
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            if size is not None and error.errno in (errno.EIO, errno.EINVAL, errno.ENOPROTOOPT):
                # The device cannot segment (no checksum offload): one datagram a call from here on.
                self._segments = False
                return all(
                    self._try_send(data[i : i + size], None, target) for i in range(0, len(data), size)
                )
            if error.errno not in _TRANSIENT:
                raise
            self.lost += 1
        return True

    def _writable(self) -> None:
        while self._queue:
            if not self._try_send(*self._queue[0]):
                return
            self._queue.popleft()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        for _ in range(_READS_PER_WAKE):
            try:
                length, ancillary, flags, source = self._socket.recvmsg_into([self._buffer], 64)
            except (BlockingIOError, InterruptedError):
                break
            except OSError:
                # An ICMP error of an earlier datagram: no statement about this socket.
                continue
            if length and not flags & socket.MSG_TRUNC:
                size = length
                for level, kind, value in ancillary:
                    if level == socket.SOL_UDP and kind == _UDP_GRO:
                        size = struct.unpack_from("=H", value)[0]
                self._on_receive(self._buffer[:length], self._address(source), size)
            if self._socket.fileno() < 0:
                return
        if self._on_drained is not None:
            self._on_drained()

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
        sock.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER)
    if sys.platform == "linux":
        # asm-generic/socket.h: past rmem_max and wmem_max where the process may (CAP_NET_ADMIN).
        for forced in (33, 32):
            try:
                sock.setsockopt(socket.SOL_SOCKET, forced, _KERNEL_BUFFER)
            except OSError:
                break
        try:
            sock.setsockopt(socket.SOL_UDP, _UDP_GRO, 1)
        except OSError:
            return
