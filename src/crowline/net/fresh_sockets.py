"""Sockets that have sent nothing yet, at ports in no order: what measurements of translators begin with."""

from __future__ import annotations

import random
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net.lossy import lossy
from crowline.net.udp import UdpSocket

# Kernels that count their ports up would look like a translator that does. Above what services have, and
# below the last ports, which some translators do not keep.
PORTS = range(20000, 60000)
_TRIES = 4  # for each socket: of 40,000 ports few are taken

Received: TypeAlias = Callable[[memoryview, Address, Address], None]
"""`received(datagram, source, local)`."""


class FreshSockets:
    """So many UDP sockets of one host. Raises `LocalProblem` where not even one can be opened."""

    def __init__(self, host: str, count: int, received: Received) -> None:
        self._received = received
        self._sockets: dict[Address, UdpSocket] = {}
        problem: LocalProblem | None = None
        for port in fresh_ports(count * _TRIES):
            try:
                self._open(Address(host, port))
            except LocalProblem as error:
                problem = error
            if len(self._sockets) == count:
                break
        if problem is not None and not self._sockets:
            raise problem

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    @property
    def addresses(self) -> tuple[Address, ...]:
        """In the order in which they were opened."""
        return tuple(self._sockets)

    def send(self, transmit: Transmit) -> None:
        """Send by the socket of `transmit.local`; what the system refuses is lost."""
        if transmit.local is not None:
            lossy(self._sockets[transmit.local].send)(transmit)

    def close(self) -> None:
        for each in self._sockets.values():
            each.close()

    def _open(self, local: Address) -> None:
        def receive(data: memoryview, source: Address, size: int) -> None:
            for start in range(0, len(data), size):
                self._received(data[start : start + size], source, local)

        self._sockets[local] = UdpSocket.bind(local, receive)


def fresh_ports(count: int) -> list[int]:
    """Different ports in no order."""
    return random.SystemRandom().sample(PORTS, count)
