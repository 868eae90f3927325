"""The relayed addresses of one ICE connection: how they are had, and who may reach them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import TypeAlias

from msgspec.structs import replace

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.base.machine import Buffer, Transmit
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.net.relayed_address import RelayedAddress, TurnAccount
from crowline.net.stream import StreamSocket, StreamTarget
from crowline.turn.events import Allocated

# Hosts that the other side may name in the life of a connection, however often it begins anew; permissions
# for so many take the server 32 requests every four minutes.
MAX_PEERS = 1024

# A server, and the caller's socket that leads there, or None for a stream of our own.
_Way: TypeAlias = tuple[Address, Address | None]


class IceRelays:
    """One allocation for each server and socket.

    `send` sends to the server by the socket that is the transmit's `local`. `on_data(data, peer, relayed)`
    gets what a peer sent to the relayed address, and `on_lost(relayed)` is called when it is gone.
    """

    def __init__(
        self,
        *,
        send: Callable[[Transmit], object],
        on_data: Callable[[memoryview, Address, Address], object],
        on_lost: Callable[[Address], object],
    ) -> None:
        self._send = send
        self._on_data = on_data
        self._on_lost = on_lost
        self._relays: dict[_Way, RelayedAddress] = {}
        self._streams: dict[RelayedAddress, StreamSocket] = {}
        self._by_relayed: dict[Address, RelayedAddress] = {}
        self._peers: dict[str, Address] = {}
        self._named = 0  # of them, in the present session
        self._endings: set[asyncio.Task[None]] = set()
        self._closed = False

    async def allocate(self, server: TurnAccount, base: Address | None) -> Allocated | None:
        """A new relayed address, by the caller's socket `base` or a stream of our own.

        None where there is one already, or the server gives none. One that nobody waits for is given back.
        """
        way = (server.address, base)
        if way in self._relays or self._closed:
            return None
        relay = self._relays[way] = self._make(server, base)
        try:
            if base is None:
                await self._connect(server, relay)
            for peer in self._peers.values():
                relay.permit_soon(peer)
            allocated = await relay.allocate()
        except CrowlineError:
            self._forget(relay)
            return None
        except asyncio.CancelledError:
            self._end_soon(relay)
            raise
        if way not in self._relays:
            return None
        self._by_relayed[allocated.relayed] = relay
        return allocated

    def permit(self, peer: Address) -> None:
        """Let a host reach the addresses, these and those still to come. Too many hosts are ignored."""
        if peer.host in self._peers or self._named >= MAX_REMOTE_CANDIDATES or len(self._peers) >= MAX_PEERS:
            return
        self._named += 1
        self._peers[peer.host] = peer
        for relay in self._relays.values():
            relay.permit_soon(peer)

    def begin_anew(self) -> None:
        """A restart: the other side may be at other hosts now."""
        self._named = 0

    def bind(self, relayed: Address, peer: Address) -> None:
        """Make data with one peer cheap, if `relayed` is one of these addresses."""
        relay = self._by_relayed.get(relayed)
        if relay is not None:
            relay.bind(peer)

    def receive(self, data: Buffer, source: Address, local: Address) -> bool:
        """Take a datagram that came to the caller's socket `local`; False when it is not from a server."""
        relay = self._relays.get((source, local))
        return relay is not None and relay.receive(data, source)

    def send(self, transmit: Transmit) -> bool:
        """Send a datagram by the relayed address that it names as `local`; False where that is none.

        On a stream it is lost when too much waits already.
        """
        relay = self._by_relayed.get(transmit.local) if transmit.local is not None else None
        if relay is None:
            return False
        stream = self._streams.get(relay)
        if stream is None or not stream.congested:
            relay.send(transmit.data, transmit.destination)
        return True

    async def leave(self, base: Address) -> None:
        """Give back what was had by a socket; a second at most, in which the socket is still read."""
        await self._close([relay for way, relay in self._relays.items() if way[1] == base])

    async def close(self) -> None:
        """Give everything back, in the same way, and ask for nothing more."""
        self._closed = True
        await self._close(list(self._relays.values()))
        await asyncio.gather(*self._endings)

    def _make(self, server: TurnAccount, base: Address | None) -> RelayedAddress:
        def send(transmit: Transmit) -> None:
            if base is not None:
                self._send(replace(transmit, local=base))
            elif relay in self._streams:
                self._streams[relay].send(transmit.data)

        relay = RelayedAddress(
            server,
            send=send,
            on_data=lambda data, peer: self._take(relay, data, peer),
            on_lost=lambda reason: self._forget(relay),
        )
        return relay

    async def _connect(self, server: TurnAccount, relay: RelayedAddress) -> None:
        """Raises `ServerUnreachable`."""

        def receive(data: bytes) -> None:
            relay.receive(data, server.address)

        host, port = server.address.host, server.address.port
        target = StreamTarget(host, port, server.transport, name=server.name)
        self._streams[relay] = await StreamSocket.connect(target, receive, relay.disconnected)

    def _take(self, relay: RelayedAddress, data: memoryview, peer: Address) -> None:
        if relay.address is not None:
            self._on_data(data, peer, relay.address)

    async def _close(self, relays: Iterable[RelayedAddress]) -> None:
        await asyncio.gather(*(self._end(relay) for relay in relays))

    def _end_soon(self, relay: RelayedAddress) -> None:
        ending = asyncio.get_running_loop().create_task(self._end(relay))
        self._endings.add(ending)
        ending.add_done_callback(self._endings.discard)

    async def _end(self, relay: RelayedAddress) -> None:
        """It is heard until the server has confirmed, and not used any more."""
        self._withdraw(relay)
        try:
            await relay.close()
        finally:
            self._forget(relay)

    def _forget(self, relay: RelayedAddress) -> None:
        """There is no such relayed address (any more)."""
        self._relays = {way: each for way, each in self._relays.items() if each is not relay}
        stream = self._streams.pop(relay, None)
        if stream is not None:
            stream.close()
        self._withdraw(relay)

    def _withdraw(self, relay: RelayedAddress) -> None:
        relayed = next((each for each, known in self._by_relayed.items() if known is relay), None)
        if relayed is not None:
            del self._by_relayed[relayed]
            self._on_lost(relayed)
