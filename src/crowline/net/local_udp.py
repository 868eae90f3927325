"""UDP with programs and hosts that are none of ours."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from contextlib import suppress
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.machine import Buffer
from crowline.net.local_tcp import open_listening

# The largest datagram there is.
_MAX_DATAGRAM = 65_535
# Bytes that the system keeps for us while we are busy, where it may: its own default holds 90 full datagrams,
# which a program sends in the hundredth of a second that the event loop may take for something else.
_RECEIVE_BUFFER = 1 << 20
# Datagrams that are read before others have their turn.
_BATCH = 64

OnDatagram: TypeAlias = Callable[[bytes, Address], None]


class LocalUdp:
    """One socket. `on_datagram` gets each datagram and where it came from; what cannot be sent is lost."""

    def __init__(self, sock: socket.socket, on_datagram: OnDatagram) -> None:
        sock.setblocking(False)
        with suppress(OSError):  # systems that do not round down to what they allow
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER)
        self._socket = sock
        self._on_datagram = on_datagram
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(sock, self._read)
        name = sock.getsockname()
        self.address = Address(str(name[0]), int(name[1]))

    @classmethod
    def listening(cls, host: str, port: int, on_datagram: OnDatagram) -> LocalUdp:
        """Raises `LocalProblem` where that address or port is not to be had."""
        return cls(open_listening(host, port, socket.SOCK_DGRAM), on_datagram)

    @classmethod
    def connected(cls, host: str, port: int, on_datagram: OnDatagram) -> LocalUdp:
        """Talks with that host and port alone. Raises `OSError`."""
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        try:
            sock.connect((host, port))
        except OSError:
            sock.close()
            raise
        return cls(sock, on_datagram)

    @classmethod
    def unbound(cls, *, is_ipv6: bool, on_datagram: OnDatagram) -> LocalUdp:
        """Talks with anybody of that family. Raises `OSError`."""
        return cls(
            socket.socket(socket.AF_INET6 if is_ipv6 else socket.AF_INET, socket.SOCK_DGRAM), on_datagram
        )

    def send(self, data: Buffer, destination: Address | None = None) -> None:
        """To `destination`, or for a connected socket to its other end."""
        try:
            if destination is None:
                self._socket.send(data)
            else:
                self._socket.sendto(data, (destination.host, destination.port))
        except OSError:
            # Full buffers, no way there, an answer of ICMP to an earlier one: datagrams may be lost.
            return

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()

    def _read(self) -> None:
        for _ in range(_BATCH):
            try:
                data, source = self._socket.recvfrom(_MAX_DATAGRAM)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                continue  # what an earlier datagram met
            self._on_datagram(data, Address(str(source[0]).partition("%")[0], int(source[1])))
            if self._socket.fileno() < 0:
                return
