"""The socket of a relayed address that either this process reads or one of its workers."""

from __future__ import annotations

import socket
from contextlib import suppress

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net.udp import Receiver, UdpSocket
from crowline.net.udp_options import IcmpReceiver


class SharedRelaySocket:
    """Bound from the start and read by nobody. `socket` may be given to a worker, and stays open here: when
    the worker dies, another one gets it with all that waits in it."""

    def __init__(self, sock: socket.socket, on_receive: Receiver, on_icmp: IcmpReceiver) -> None:
        self.socket = sock
        self._on_receive = on_receive
        self._on_icmp = on_icmp
        self._reader: UdpSocket | None = None
        host, port = sock.getsockname()[:2]
        self.local = Address.parse(host, port)

    @classmethod
    def bind(cls, address: Address, on_receive: Receiver, on_icmp: IcmpReceiver) -> SharedRelaySocket:
        """Raises `LocalProblem`."""
        return cls(UdpSocket.bound(address), on_receive, on_icmp)

    def read_here(self, is_here: bool) -> None:
        """Whether this process reads it."""
        if is_here and self._reader is None:
            self._reader = UdpSocket(self.socket.dup(), self._on_receive, on_icmp=self._on_icmp)
        elif not is_here and self._reader is not None:
            self._reader.close()
            self._reader = None

    def send(self, transmit: Transmit) -> None:
        if self._reader is not None:
            self._reader.send(transmit)
            return
        # Only the few datagrams that make a client's move final leave from here while a worker reads.
        data, size = memoryview(transmit.data), transmit.segment_size or len(transmit.data) or 1
        target = (transmit.destination.host, transmit.destination.port)
        for start in range(0, len(data) or 1, size):
            with suppress(OSError):
                self.socket.sendto(data[start : start + size], target)

    def close(self) -> None:
        self.read_here(False)
        self.socket.close()
