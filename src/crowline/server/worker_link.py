"""Messages and descriptors between the owner of a server and one worker, in order, on a Unix socket."""

from __future__ import annotations

import array
import asyncio
import errno
import socket
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

# A message is a datagram of a client or less; the rest is room for its envelope.
MAX_MESSAGE = 1 << 17
# The kernel's queue in each direction, so that a burst of requests fits while the other side is busy.
_KERNEL_BUFFER = 1 << 20
# Reads for one wake-up, so that requests cannot keep the loop from the data.
_READS_PER_WAKE = 64
# Messages that wait for the kernel. Datagrams may get lost sooner, as in any full queue; whoever leaves
# this many changes unread is as good as dead.
MAX_WAITING = 1 << 16
MAX_WAITING_DATAGRAMS = 256

# The kernel has no room for a message, or too many descriptors are under way: that passes.
_FULL = (errno.ENOBUFS, errno.ENOMEM, errno.ETOOMANYREFS)

OnMessage: TypeAlias = Callable[[bytes, "socket.socket | None"], None]


class WorkerLink:
    """One end. `on_end` is called once, when the other end is gone or has stopped to read."""

    def __init__(self, sock: socket.socket, on_message: OnMessage, on_end: Callable[[], None]) -> None:
        """`on_message` gets each message, with the socket that came with it; it owns that."""
        self._socket = sock
        self._on_message = on_message
        self._on_end = on_end
        self._waiting: deque[tuple[bytes, socket.socket | None]] = deque()
        self._loop = asyncio.get_running_loop()
        sock.setblocking(False)
        for option in (socket.SO_SNDBUF, socket.SO_RCVBUF):
            sock.setsockopt(socket.SOL_SOCKET, option, _KERNEL_BUFFER)
        self._loop.add_reader(sock, self._readable)

    @staticmethod
    def pair() -> tuple[socket.socket, socket.socket]:
        """Two sockets that are connected with each other and belong to no other process."""
        return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)

    @property
    def is_open(self) -> bool:
        return self._socket.fileno() >= 0

    def send(self, message: bytes, sock: socket.socket | None = None) -> None:
        """Send a message, with a copy of `sock` if it is still open then; it does not get lost."""
        if not self.is_open:
            return
        if not self._waiting and self._try_send(message, sock):
            return
        if len(self._waiting) >= MAX_WAITING:
            self._end()
            return
        self._wait_with(message, sock)

    def send_datagram(self, message: bytes) -> bool:
        """Send a message that may get lost; False if it was."""
        if not self.is_open or len(self._waiting) >= MAX_WAITING_DATAGRAMS:
            return False
        if self._waiting or not self._try_send(message, None):
            self._wait_with(message, None)
        return True

    def close(self) -> None:
        if not self.is_open:
            return
        self._loop.remove_reader(self._socket)
        self._loop.remove_writer(self._socket)
        self._socket.close()
        self._waiting.clear()

    def _wait_with(self, message: bytes, sock: socket.socket | None) -> None:
        if not self._waiting:
            self._loop.add_writer(self._socket, self._writable)
        self._waiting.append((message, sock))

    def _try_send(self, message: bytes, sock: socket.socket | None) -> bool:
        """Whether the kernel took it, or never will. A socket that was closed while it waited stays away."""
        ancillary = []
        if sock is not None and sock.fileno() >= 0:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [sock.fileno()])))
        try:
            self._socket.sendmsg([message], ancillary)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            # Otherwise the other end is gone, which the next read says too.
            return error.errno not in _FULL
        return True

    def _writable(self) -> None:
        while self._waiting:
            if not self._try_send(*self._waiting[0]):
                return
            self._waiting.popleft()
        self._loop.remove_writer(self._socket)

    def _readable(self) -> None:
        for _ in range(_READS_PER_WAKE):
            if not self.is_open:
                return
            try:
                message, ancillary, _, _ = self._socket.recvmsg(
                    MAX_MESSAGE, socket.CMSG_SPACE(4), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                message, ancillary = b"", []
            if not message:
                self._end()
                return
            self._on_message(message, _socket_in(ancillary))

    def _end(self) -> None:
        self.close()
        self._on_end()


def _socket_in(ancillary: list[tuple[int, int, bytes]]) -> socket.socket | None:
    for level, kind, value in ancillary:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS) and len(value) >= 4:
            descriptors = array.array("i", value[:4])
            with suppress(OSError):
                return socket.socket(fileno=descriptors[0])
    return None
