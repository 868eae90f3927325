"""The owner of races to TURN servers, for tests on loopback: what a gatherer is in a meeting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from crowline.api.traversal.relay import Login, Relay
from crowline.api.traversal.relay_server import RelayServer
from crowline.api.traversal.relays import Relays
from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.net.patience import within
from crowline.net.udp import UdpSocket
from crowline.turn.events import Allocated

PATIENCE = 30.0  # seconds until a test gives up


class RelayUser:
    """Keeps what it is told. While it `is_deaf`, no datagram reaches it."""

    def __init__(self, username: str, password: str) -> None:
        self.relays = Relays(self)
        self.allocated: list[Allocated] = []
        self.lost: list[Relay] = []
        self.over = 0
        self.received: list[tuple[bytes, Address, Address]] = []
        self.heard: set[Address] = set()
        self.login = Login(username, Secret(password.encode()))
        self.is_deaf = False
        self._sockets: dict[str, UdpSocket] = {}
        self._expected: set[Address] = set()
        self._changed = asyncio.Event()

    def allocate(self, server: RelayServer) -> None:
        self.relays.allocate(server, self.login)

    @property
    def relay(self) -> Relay:
        [winner] = self.relays.winners()
        return winner

    def send(self, data: bytes, peer: Address) -> None:
        self.relay.send(Transmit(data, peer))

    async def until(self, condition: Callable[[], bool]) -> None:
        """Looked at after every call, and now and then, since not all that changes is told to the owner."""
        async with asyncio.timeout(PATIENCE):
            while not condition():
                self._changed.clear()
                await within(0.02, self._changed.wait())

    async def first(self) -> Relay:
        """The relay, as soon as there is one."""
        await self.until(lambda: bool(self.relays.winners()))
        return self.relay

    async def ready(self, peer: Address) -> Relay:
        """The same, with a permission for `peer` asked for."""
        relay = await self.first()
        relay.permit(peer)
        return relay

    def close(self) -> None:
        self.relays.close()
        for socket in self._sockets.values():
            socket.close()

    # --- `RelaysOwner` ----------------------------------------------------------------------------------

    def on_relayed_address(self, relay: Relay, event: Allocated) -> None:
        self.allocated.append(event)
        self._changed.set()

    def on_relay_lost(self, relay: Relay) -> None:
        self.lost.append(relay)
        self._changed.set()

    def on_race_over(self) -> None:
        self.over += 1
        self._changed.set()

    def socket_at(self, host: str) -> UdpSocket | None:
        if host not in self._sockets:
            try:
                self._open(host)
            except LocalProblem:
                return None
        return self._sockets[host]

    def expect(self, server: Address) -> None:
        self._expected.add(server)

    def has_heard(self, server: Address) -> bool:
        return server in self.heard

    def on_relayed(self, run: memoryview, segment_size: int, peer: Address, relayed: Address) -> None:
        for start in range(0, len(run), segment_size):
            self.received.append((bytes(run[start : start + segment_size]), peer, relayed))
        self._changed.set()

    def on_drained(self) -> None:
        self._changed.set()

    def _open(self, host: str) -> None:
        def received(data: memoryview, source: Address, size: int) -> None:
            if self.is_deaf or source not in self._expected:
                return
            self.relays.heard(source)
            relay = self.relays.at(source, socket.local)
            if relay is not None:
                relay.receive([data[start : start + size] for start in range(0, len(data), size)])
            self._changed.set()

        socket = self._sockets[host] = UdpSocket.bind(Address(host, 0), received)


@asynccontextmanager
async def relay_user(username: str, password: str) -> AsyncIterator[RelayUser]:
    user = RelayUser(username, password)
    try:
        yield user
    finally:
        user.close()
        await asyncio.sleep(0.05)  # cancelled tasks and closing streams end in the loop's next rounds
