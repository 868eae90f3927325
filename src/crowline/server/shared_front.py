"""The UDP sockets of a server whose workers read them: for each address one socket for each worker.

The kernel chooses the socket by the addresses and ports of a datagram (SO_REUSEPORT), so that a client always
reaches the same worker for as long as the sockets are open, whoever reads them.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net.udp import UdpSocket
from crowline.server.asked_socket import AskedSocket
from crowline.server.relay_ports import is_wildcard
from crowline.server.udp_front import UdpFront


class SharedSocket:
    """One address; `send` asks a worker to."""

    def __init__(self, sockets: list[socket.socket], send: Callable[[Transmit], None]) -> None:
        self.sockets = sockets
        self.send = send
        host, port = sockets[0].getsockname()[:2]
        self.local = Address.parse(host, port)

    @classmethod
    def bind(cls, address: Address, count: int, send: Callable[[Transmit], None]) -> SharedSocket:
        """Raises `LocalProblem`, also when a server that is none of ours would share its address."""
        kind = AskedSocket if is_wildcard(address.host) else UdpSocket
        # The first one binds alone. From then on others may join, of the same user only.
        sockets = [kind.bound(address)]
        try:
            sockets[0].setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            port = sockets[0].getsockname()[1]
            while len(sockets) < count:
                sockets.append(kind.bound(Address(address.host, port), joins=True))
        except BaseException:
            for sock in sockets:
                sock.close()
            raise
        return cls(sockets, send)

    def close(self) -> None:
        for sock in self.sockets:
            sock.close()


class SharedFront(UdpFront):
    """`UdpFront` that binds and does not read; answers leave by `send`."""

    def __init__(
        self, *arguments: Any, workers: int, send: Callable[[Transmit], None], **options: Any
    ) -> None:
        super().__init__(*arguments, **options)
        self._workers = workers
        self._send_by_worker = send

    def sockets_of(self, worker: int) -> list[socket.socket]:
        """What that worker reads."""
        return [bound.sockets[worker] for bound in self._sockets.values() if isinstance(bound, SharedSocket)]

    def _bind(self, address: Address) -> Address:
        bound = SharedSocket.bind(address, self._workers, self._send_by_worker)
        self._sockets[bound.local] = bound
        return bound.local
