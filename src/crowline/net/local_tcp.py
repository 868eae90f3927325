"""TCP with programs and hosts that are none of ours: listening, connecting, and a connection as a conduit."""

from __future__ import annotations

import asyncio
import errno
import socket
import struct
from collections.abc import Sequence
from contextlib import suppress

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer
from crowline.net.conduit import CHUNK

# Seconds for a connection to all the addresses of one host together, and between two of them (RFC 8305 §5).
CONNECT_LIMIT = 10.0
_ATTEMPT_DELAY = 0.25
# Connections that wait for us to take them.
_BACKLOG = 128
_RESET_ON_CLOSE = struct.pack("ii", 1, 0)


class TcpConduit:
    """A connected socket as a `Conduit`."""

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        with suppress(OSError):  # a connection that is over already takes none, on some systems
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._socket = sock
        self._loop = asyncio.get_running_loop()

    @property
    def local(self) -> Address:
        """This end."""
        return _address(self._socket.getsockname())

    async def read(self) -> bytes:
        return await self._loop.sock_recv(self._socket, CHUNK)

    async def write(self, data: Buffer) -> None:
        await self._loop.sock_sendall(self._socket, data)

    async def end(self) -> None:
        with suppress(OSError):  # it is over already
            self._socket.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """The other end sees a reset once this is closed."""
        with suppress(OSError):
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET_ON_CLOSE)

    def close(self) -> None:
        self._socket.close()


class TcpListener:
    """Waits for programs to connect. Raises `LocalProblem` where it cannot."""

    def __init__(self, host: str, port: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._socket = open_listening(host, port, socket.SOCK_STREAM)
        self._socket.listen(_BACKLOG)
        self.address = _address(self._socket.getsockname())

    async def accept(self) -> tuple[TcpConduit, Address]:
        """The next connection, and who made it. Raises `OSError` when there is no room for more."""
        # The loop's own `sock_accept` loses a connection that comes as its caller is cancelled.
        while True:
            with suppress(BlockingIOError, InterruptedError):
                sock, source = self._socket.accept()
                return TcpConduit(sock), _address(source)
            await self._wait()

    def close(self) -> None:
        self._socket.close()

    async def _wait(self) -> None:
        """Until somebody comes."""
        came = asyncio.Event()
        self._loop.add_reader(self._socket, came.set)
        try:
            await came.wait()
        finally:
            self._loop.remove_reader(self._socket)


async def connect(hosts: Sequence[str], port: int) -> TcpConduit:
    """A connection to the first of the addresses that takes one. Raises `OSError`, `TimeoutError`."""
    attempts: set[asyncio.Task[socket.socket]] = set()
    problem: OSError = OSError(errno.EHOSTUNREACH, "there is no address")
    waiting = list(hosts)
    try:
        async with asyncio.timeout(CONNECT_LIMIT):
            while waiting or attempts:
                if waiting:
                    attempts.add(asyncio.ensure_future(_dial(waiting.pop(0), port)))
                delay = _ATTEMPT_DELAY if waiting else None
                done, _ = await asyncio.wait(attempts, timeout=delay, return_when=asyncio.FIRST_COMPLETED)
                for attempt in done:
                    # Those that are left are the `finally` clause's to end.
                    attempts.discard(attempt)
                    error = attempt.exception()
                    if error is None:
                        return TcpConduit(attempt.result())
                    if isinstance(error, OSError):
                        problem = error
        raise problem
    finally:
        for attempt in attempts:
            attempt.cancel()
        for late in await asyncio.gather(*attempts, return_exceptions=True):
            if isinstance(late, socket.socket):
                late.close()


def open_listening(host: str, port: int, kind: socket.SocketKind) -> socket.socket:
    """A bound socket, non-blocking, at an address or at ``localhost``: no name is looked up.

    Raises `LocalProblem` where that address or port is not to be had.
    """
    try:
        numeric = "127.0.0.1" if host == "localhost" else host
        flags = socket.AI_NUMERICHOST | socket.AI_NUMERICSERV
        family, _, _, _, address = socket.getaddrinfo(numeric, port, type=kind, flags=flags)[0]
        sock = socket.socket(family, kind)
    except (OSError, ValueError) as error:
        raise LocalProblem(f"{host} is no address of this machine.") from error
    try:
        if kind == socket.SOCK_STREAM:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setblocking(False)
        sock.bind(address)
    except OSError as error:
        sock.close()
        why = "is taken" if error.errno == errno.EADDRINUSE else f"cannot be had: {error.strerror}"
        raise LocalProblem(f"Port {port} at {host} {why}.") from error
    return sock


async def _dial(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, (host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def _address(name: object) -> Address:
    assert isinstance(name, tuple)
    return Address(str(name[0]).partition("%")[0], int(name[1]))
