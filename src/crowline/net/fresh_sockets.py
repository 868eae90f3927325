"""Sockets that have sent nothing yet, at ports in no order: what measurements of translators begin with."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from types import TracebackType
from typing import Protocol, Self, TypeAlias, TypeVar

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Buffer, Transmit
from crowline.net.lossy import lossy
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.stun.nat_discovery import BasesWanted

# Kernels that count their ports up would look like a translator that does. Above what services have, and
# below the last ports, which some translators do not keep.
PORTS = range(20000, 60000)
_TRIES = 4  # for each socket: of 40,000 ports few are taken

E = TypeVar("E")
E_co = TypeVar("E_co", covariant=True)

Received: TypeAlias = Callable[[memoryview, Address, Address], None]
"""`received(datagram, source, local)`."""


class FreshSockets:
    """So many UDP sockets of one host. Raises `LocalProblem` where they cannot be opened."""

    def __init__(self, host: str, count: int, received: Received) -> None:
        self._received = received
        self._sockets: dict[Address, UdpSocket] = {}
        problem = LocalProblem("No UDP socket can be opened.")
        for port in fresh_ports(count * _TRIES):
            try:
                self._open(Address(host, port))
            except LocalProblem as error:
                problem = error
            except OSError as error:
                # No descriptor is left, whatever the port.
                problem = LocalProblem(f"No UDP socket can be opened: {error.strerror}.")
                break
            if len(self._sockets) == count:
                return
        self.close()
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


class Measurement(Protocol[E_co]):
    """A five-verb machine that is given fresh sockets, and says one thing at the end."""

    def start(self, bases: tuple[Address, ...], now: float) -> None: ...

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None: ...

    def handle_timeout(self, now: float) -> None: ...

    def next_timeout(self) -> float | None: ...

    def next_transmit(self) -> Transmit | None: ...

    def next_event(self) -> BasesWanted | E_co | None: ...


async def measured(machine: Measurement[E], host: str, is_end: Callable[[E], bool] = lambda event: True) -> E:
    """Give the machine the sockets that it wants, and drive it to its end: the first event of which `is_end`
    says so. Raises `LocalProblem`."""
    wanted = machine.next_event()
    assert isinstance(wanted, BasesWanted)
    result: asyncio.Future[E] = asyncio.get_running_loop().create_future()

    def heard(event: BasesWanted | E) -> None:
        if not isinstance(event, BasesWanted) and not result.done() and is_end(event):
            result.set_result(event)

    def received(data: memoryview, source: Address, local: Address) -> None:
        machine.receive(data, source, pump.now, local)
        pump.flush()

    with FreshSockets(host, wanted.count, received) as sockets:
        pump: Pump[Transmit, BasesWanted | E] = Pump(machine, sockets.send, heard)
        machine.start(sockets.addresses, pump.now)
        pump.flush()
        try:
            return await result
        finally:
            pump.close()


def fresh_ports(count: int) -> list[int]:
    """Different ports in no order."""
    return random.SystemRandom().sample(PORTS, count)
