"""An asyncio datagram endpoint as any program has one, for drivers that work over sockets of their caller."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit


class Endpoint(asyncio.DatagramProtocol):
    """`take(data, source)` gets what arrives; what it does not want stands in `others`."""

    def __init__(self) -> None:
        self.take: Callable[[bytes, Address], object] = lambda data, source: False
        self.others: asyncio.Queue[tuple[bytes, Address]] = asyncio.Queue()

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.local = Address(*transport.get_extra_info("sockname")[:2])

    def datagram_received(self, data: bytes, addr: Any) -> None:
        source = Address(*addr[:2])
        if self.take(data, source) is False:
            self.others.put_nowait((data, source))

    def send(self, transmit: Transmit) -> None:
        assert transmit.local in (None, self.local)
        self.write(bytes(transmit.data), transmit.destination)

    def write(self, data: bytes, destination: Address) -> None:
        self.transport.sendto(data, (destination.host, destination.port))


@asynccontextmanager
async def endpoint(host: str = "127.0.0.1") -> AsyncIterator[Endpoint]:
    """Bound to a port of the kernel's choice."""
    loop = asyncio.get_running_loop()
    transport, protocol = await loop.create_datagram_endpoint(Endpoint, local_addr=(host, 0))
    try:
        yield protocol
    finally:
        transport.close()
