"""One attempt to connect from a shared port, watched by the event loop."""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections.abc import Callable
from enum import Enum

from crowline.base.addresses import Address
from crowline.net.tcp_sockets import lower_hop_limit, open_shared, reset

_UNDER_WAY = {
    errno.EINPROGRESS,
    errno.EWOULDBLOCK,
    errno.EALREADY,
    errno.EINTR,
    getattr(errno, "WSAEWOULDBLOCK", errno.EINPROGRESS),
}
_REFUSALS = {errno.ECONNREFUSED, errno.ECONNRESET, errno.ECONNABORTED}


class Obstacle(Enum):
    """What an attempt failed by."""

    REFUSED = "the other side refused"
    UNREACHABLE = "a router said that there is no way"
    SILENT = "nobody answered"
    UNSENT = "this machine did not let it leave"


class Dial:
    """A new socket that connects. One of the two calls follows, never from within the constructor.

    `on_connected` takes over the socket; `on_failed` gets the obstacle and the system's word for it.
    """

    def __init__(
        self,
        local: Address,
        remote: Address,
        on_connected: Callable[[socket.socket], None],
        on_failed: Callable[[Obstacle, str], None],
        hop_limit: int | None = None,
    ) -> None:
        self._on_connected = on_connected
        self._on_failed = on_failed
        self._loop = asyncio.get_running_loop()
        self._soon: asyncio.Handle | None = None
        self._socket, error = _begin(local, remote, hop_limit)
        if error in _UNDER_WAY and self._socket is not None:
            self._loop.add_writer(self._socket, self._writable)
            return
        obstacle = Obstacle.REFUSED if error in _REFUSALS else Obstacle.UNSENT
        self._soon = self._loop.call_soon(self._settle, error, obstacle)

    def cancel(self) -> None:
        """Give up. Neither call follows."""
        if self._soon is not None:
            self._soon.cancel()
        sock = self._release()
        if sock is not None:
            reset(sock)

    def _writable(self) -> None:
        assert self._socket is not None
        error = self._socket.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error == 0 and not _is_connected(self._socket):
            return
        self._settle(error, _obstacle(error))

    def _settle(self, error: int, obstacle: Obstacle) -> None:
        sock = self._release()
        if error == 0 and sock is not None:
            fault = _fault(sock)
            if fault is None:
                self._on_connected(sock)
                return
            error, obstacle = fault
        if sock is not None:
            reset(sock)
        self._on_failed(obstacle, os.strerror(error))

    def _release(self) -> socket.socket | None:
        sock, self._socket = self._socket, None
        if sock is not None:
            self._loop.remove_writer(sock)
        return sock


def _begin(local: Address, remote: Address, hop_limit: int | None) -> tuple[socket.socket | None, int]:
    """Let the SYN leave. With the system's error number: 0 for a connection that is there already."""
    sock = None
    try:
        sock = open_shared(local)
        restore = lower_hop_limit(sock, hop_limit) if hop_limit is not None else None
        error = sock.connect_ex((remote.host, remote.port))
        if restore is not None:
            restore()
    except OSError as failure:
        return sock, failure.errno or errno.EIO
    return sock, error


def _is_connected(sock: socket.socket) -> bool:
    try:
        sock.getpeername()
    except OSError:
        return False
    return True


def _fault(sock: socket.socket) -> tuple[int, Obstacle] | None:
    """What is wrong with a socket that has been connected."""
    try:
        meets_itself = sock.getsockname() == sock.getpeername()
    except OSError:  # reset in this very moment
        return errno.ECONNRESET, Obstacle.REFUSED
    # A socket that dials its own address meets itself half-way.
    return (errno.EADDRNOTAVAIL, Obstacle.UNSENT) if meets_itself else None


def _obstacle(error: int) -> Obstacle:
    if error in _REFUSALS:
        return Obstacle.REFUSED
    return Obstacle.SILENT if error == errno.ETIMEDOUT else Obstacle.UNREACHABLE
