"""A relayed TCP address: it takes connections, and lends its port to those that leave (RFC 6062 §5.2)."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.server.gate import canonical_host

BACKLOG = 32  # connections that wait to be accepted, for one client
# Seconds without accepting after the process ran out of descriptors: some will have been given back.
EXHAUSTED_PAUSE = 1.0
# Accepted for one wake-up, so that one relayed address cannot keep the loop from everything else.
_ACCEPTS_PER_WAKE = 16

# SO_LINGER on, for no time: closing resets the connection.
_RESET = struct.pack("ii", 1, 0)

Connected: TypeAlias = Callable[[Address, Address, socket.socket], None]
"""`connected(relayed, peer, sock)`: takes over the socket."""


class TcpListener:
    """One listening socket in the running event loop. The constructor raises `OSError`."""

    def __init__(self, address: Address, public_host: str, connected: Connected) -> None:
        self._connected = connected
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._socket = _bind_exclusively(address)
        host, port = self._socket.getsockname()[:2]
        self._local = Address.parse(host, port)
        self.relayed = Address(public_host, port)
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        if self._pause is not None:
            self._pause.cancel()
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def dialler(self) -> socket.socket | None:
        """An unconnected socket bound to this very address; ``None`` if there are no descriptors left."""
        try:
            sock = socket.socket(self._socket.family, socket.SOCK_STREAM)
        except OSError:
            return None
        try:
            sock.setblocking(False)
            _share_port(sock)
            sock.bind((self._local.host, self._local.port))
        except OSError:
            sock.close()
            return None
        return sock

    def _accept(self) -> None:
        for _ in range(_ACCEPTS_PER_WAKE):
            if self._socket.fileno() < 0:
                return
            try:
                sock, name = self._socket.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:
                self._loop.remove_reader(self._socket)
                self._pause = self._loop.call_later(EXHAUSTED_PAUSE, self._resume)
                return
            sock.setblocking(False)
            self._connected(self.relayed, Address(canonical_host(name[0]), name[1]), sock)

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._socket, self._accept)


def reset(sock: socket.socket) -> None:
    """Close at once, so that the other side need not wait for an end of the stream."""
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    finally:
        sock.close()


def reject(relayed: Address, peer: Address, sock: socket.socket) -> None:
    """A `Connected` that wants nobody."""
    reset(sock)


def _bind_exclusively(address: Address) -> socket.socket:
    """Nobody else has the port when it is bound; from then on sockets of this user may share it."""
    sock = socket.socket(socket.AF_INET6 if address.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        if address.is_ipv6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        # The port of an earlier listener may have connections that are still being forgotten.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((address.host, address.port))
        _share_port(sock)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def _share_port(sock: socket.socket) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    if hasattr(socket, "SO_REUSEPORT"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
