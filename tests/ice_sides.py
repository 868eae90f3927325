"""Two ends of an ICE connection, each with a socket of its own, that tell each other lines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.candidate_line import CandidateLine
from crowline.ice.events import IceEvent, PairNominated
from crowline.net.ice_connection import IceConnection
from datagram_endpoint import Endpoint, endpoint

PATIENCE = 45.0  # seconds until something must have happened


class Side:
    """One end: a socket of the caller's, a connection on it, and what it says to `other`."""

    def __init__(self, controlling: bool, socket: Endpoint, **options: Any) -> None:
        self.other: Side | None = None
        self.lines: list[str] = []
        self.events: list[IceEvent] = []
        self.data: asyncio.Queue[bytes] = asyncio.Queue()
        self._changed = asyncio.Event()
        self.connection = IceConnection(
            controlling,
            send=self.send,
            tell=self.tell,
            on_data=lambda data: self.data.put_nowait(bytes(data)),
            on_event=self.note,
            **options,
        )
        self.use(socket)

    def use(self, socket: Endpoint) -> None:
        """What arrives there is the connection's."""
        self.socket = socket
        socket.take = lambda data, source: self.take(data, source, socket.local)

    def take(self, data: bytes, source: Address, local: Address) -> None:
        self.connection.receive(data, source, local)
        self._changed.set()

    def note(self, event: IceEvent) -> None:
        self.events.append(event)
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()

    def agreed(self) -> int:
        """How often a pair was nominated."""
        return sum(isinstance(event, PairNominated) for event in self.events)

    def remote(self) -> Address | None:
        """Where data goes."""
        pair = self.connection.selected
        return pair.remote.address if pair is not None else None

    def send(self, transmit: Transmit) -> None:
        self.socket.send(transmit)

    def tell(self, line: str) -> None:
        self.lines.append(line)
        if self.other is not None:
            asyncio.get_running_loop().call_soon(self.other.connection.hear, line)

    def join(self, other: Side) -> None:
        """From now on the other side hears what this one says, and what it has said."""
        self.other = other
        for line in self.lines:
            other.connection.hear(line)

    def told(self) -> list[CandidateLine]:
        return [CandidateLine.parse(line) for line in self.lines if line.startswith("candidate")]


@asynccontextmanager
async def pair(*hosts: str, **options: Any) -> AsyncIterator[tuple[Side, Side]]:
    """Two ends at two hosts of this machine, joined to each other."""
    one_host, other_host = hosts or ("127.0.0.2", "127.0.0.3")
    async with endpoint(one_host) as left, endpoint(other_host) as right, asyncio.timeout(PATIENCE):
        one, two = Side(True, left, **options), Side(False, right, **options)
        one.join(two)
        two.join(one)
        try:
            yield one, two
        finally:
            await asyncio.gather(one.connection.close(), two.connection.close())


async def exchange(one: Side, two: Side) -> None:
    """A datagram each way. Others of it may be late: those are skipped."""
    for sender, receiver in ((one, two), (two, one)):
        sender.connection.send(b"by " + str(sender.socket.local).encode())
        while await receiver.data.get() != b"by " + str(sender.socket.local).encode():
            pass


async def start(*sides: Side, **servers: Any) -> None:
    for side in sides:
        side.connection.add_socket(side.socket.local)
    await asyncio.gather(*(side.connection.gather(**servers) for side in sides))
