"""A TURN client and plain sockets on loopback, for tests against real servers."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from typing import TypeVar

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket
from crowline.stun.attributes import FAMILY_IPV6
from crowline.turn.client import TurnClient
from crowline.turn.events import Allocated, TurnEvent

PATIENCE = 30.0  # seconds until a test gives up; nothing here takes one on a machine that is free

E = TypeVar("E")


class SocketClient:
    """A `TurnClient` on a UDP socket; `events` holds what it said, `payloads` what came by channels."""

    def __init__(self, server: Address, username: str, password: str) -> None:
        self.client = TurnClient(
            server,
            username,
            Secret(password.encode()),
            entropy=os.urandom,
            families=(FAMILY_IPV6,) if server.is_ipv6 else (),
        )
        self.socket = UdpSocket.bind(Address("::1" if server.is_ipv6 else "127.0.0.1", 0), self._received)
        self.pump = Pump[Transmit, TurnEvent](self.client, self.socket.send, self._on_event)
        self.events: list[TurnEvent] = []
        self.payloads: list[tuple[bytes, Address]] = []
        self._changed = asyncio.Event()

    async def allocate(self) -> Allocated:
        self.client.allocate(self.pump.now)
        self.pump.flush()
        return await self.event(Allocated)

    async def permit(self, *peers: Address) -> None:
        self.client.create_permission(peers, self.pump.now)
        self.pump.flush()
        await self.until(lambda: not self.client.is_busy)

    async def bind(self, peer: Address) -> None:
        self.client.bind_channel(peer, self.pump.now)
        self.pump.flush()
        await self.until(lambda: not self.client.is_busy)

    def send(self, data: bytes, peer: Address, segment_size: int | None = None) -> None:
        for transmit in self.client.wrap_run(data, segment_size, peer):
            self.socket.send(transmit)

    async def event(self, kind: type[E]) -> E:
        """The next event of that kind; events before it are dropped."""
        found: list[E] = []

        def look() -> bool:
            while self.events and not found:
                event = self.events.pop(0)
                if isinstance(event, kind):
                    found.append(event)
            return bool(found)

        await self.until(look)
        return found[0]

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await self._changed.wait()

    async def close(self) -> None:
        self.client.close(self.pump.now)
        self.pump.flush()
        await self.until(lambda: self.client.is_closed)
        self.abandon()

    def abandon(self) -> None:
        self.pump.close()
        self.socket.close()

    def _received(self, data: memoryview, source: Address, size: int) -> None:
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            unwrapped = self.client.unwrap(piece)
            if unwrapped is not None:
                self.payloads.append((bytes(unwrapped[1]), unwrapped[0]))
            else:
                self.client.receive(bytes(piece), source, self.pump.now)
        self.pump.flush()
        self._changed.set()

    def _on_event(self, event: TurnEvent) -> None:
        self.events.append(event)
        self._changed.set()


@asynccontextmanager
async def turn_client(server: Address, username: str, password: str) -> AsyncIterator[SocketClient]:
    client = SocketClient(server, username, password)
    try:
        yield client
    finally:
        client.abandon()


class PlainSocket:
    """A bare UDP socket that can wait."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.socket = socket.socket(family, socket.SOCK_DGRAM)
        self.socket.setblocking(False)
        self.socket.bind((host, 0))
        name = self.socket.getsockname()
        self.local = Address(host, name[1])

    def send(self, data: bytes, destination: Address) -> None:
        self.socket.sendto(data, (destination.host, destination.port))

    async def receive(self, seconds: float = PATIENCE) -> tuple[bytes, Address]:
        """The next datagram and where it came from. Raises `TimeoutError`."""
        async with asyncio.timeout(seconds):
            data, name = await asyncio.get_running_loop().sock_recvfrom(self.socket, 65536)
        return data, Address.parse(name[0], name[1])

    async def hears_nothing(self, seconds: float = 0.1) -> bool:
        try:
            await self.receive(seconds)
        except TimeoutError:
            return True
        return False


@contextmanager
def plain_socket(host: str = "127.0.0.1") -> Iterator[PlainSocket]:
    probe = PlainSocket(host)
    try:
        yield probe
    finally:
        probe.socket.close()


def free_port(host: str = "127.0.0.1") -> int:
    """A port that was free for UDP and TCP a moment ago, for programs that cannot choose one themselves."""
    for _ in range(100):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
            socket.socket(socket.AF_INET, socket.SOCK_STREAM) as streams,
        ):
            datagrams.bind((host, 0))
            port: int = datagrams.getsockname()[1]
            with suppress(OSError):
                streams.bind((host, port))
                return port
    raise AssertionError("no port is free")
