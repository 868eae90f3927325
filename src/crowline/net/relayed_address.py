"""An address at a TURN server, over a socket or stream of the caller's: a `TurnClient` in an asyncio loop."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, Refused, ServerUnreachable
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.net.lossy import lossy
from crowline.net.patience import within
from crowline.net.pump import Pump
from crowline.stun.message import MalformedStun
from crowline.turn.client import TurnClient
from crowline.turn.codes import REQUEST_TIMEOUT
from crowline.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    DataReceived,
    PermissionCreated,
    PermissionRefused,
    TurnEvent,
)
from crowline.turn.framing import StreamFramer

# Seconds for the server to confirm that the address is given back; it lapses by itself anyway.
CLOSE_LIMIT = 1.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class TurnAccount:
    """Where a TURN server is, how it is spoken to, and who we are there. The password does not print.

    Over TLS its certificate has to be good for `name`, or without one for its IP address.
    """

    address: Address
    username: str
    password: str = field(repr=False)
    transport: Transport = Transport.UDP
    name: str = ""


class RelayedAddress:
    """One allocation (RFC 8656), kept until it is closed.

    `send` sends a `Transmit` to the server by the caller's socket or stream; where a socket raises `OSError`,
    that counts as loss. What arrives there is handed to `receive`; the end of a stream is told by
    `disconnected`. `on_data(data, peer)` gets each datagram
    that a peer sent to the relayed address, and `on_lost(reason)` is called when the server has given it up.
    Make it in a running event loop.
    """

    def __init__(
        self,
        server: TurnAccount,
        *,
        send: Callable[[Transmit], object],
        on_data: Callable[[memoryview, Address], object],
        on_lost: Callable[[str], object] | None = None,
        families: tuple[int, ...] = (),
    ) -> None:
        """`families`: 1 for a relayed IPv4 address, 2 for IPv6; with none the server gives IPv4."""
        self.server = server
        self._client = TurnClient(
            server.address,
            server.username,
            Secret(server.password.encode()),
            entropy=os.urandom,
            families=families,
            transport=server.transport,
        )
        self._send = send if server.transport.is_stream else lossy(send)
        self._pump = Pump[Transmit, TurnEvent](self._client, self._send, self._on_event)
        self._on_data = on_data
        self._on_lost = on_lost
        self._framer = StreamFramer() if server.transport.is_stream else None
        self._allocated: asyncio.Future[Allocated] | None = None
        self._permissions: dict[str, asyncio.Future[None]] = {}
        self._closed = asyncio.Event()
        self._end: CrowlineError | None = None  # why there is no address any more

    @property
    def address(self) -> Address | None:
        """The relayed address, once there is one."""
        return self._client.relayed

    async def allocate(self) -> Allocated:
        """Ask for the address, once. Raises `Refused`, or `ServerUnreachable` when nobody answers."""
        if self._end is not None:
            raise self._end
        self._client.allocate(self._pump.now)
        self._allocated = asyncio.get_running_loop().create_future()
        self._pump.flush()
        return await self._allocated

    async def permit(self, peer: Address) -> None:
        """Let `peer` reach the address from any of its ports, until closed.

        May be called before there is an address. Raises `Refused` for that peer, or what `allocate` raises.
        """
        await asyncio.shield(self._permission(peer))

    def permit_soon(self, peer: Address) -> None:
        """The same without waiting for the server's word."""
        self._permission(peer)

    def bind(self, peer: Address) -> None:
        """Make data to and from `peer` cheap: 4 bytes of header in place of 36 (RFC 8656 §12)."""
        self._permission(peer)
        self._client.bind_channel(peer, self._pump.now)
        self._pump.flush()

    def send(self, data: Buffer, peer: Address) -> None:
        """One datagram to `peer`, which has to be permitted or bound; it may get lost like any other."""
        self._send(self._client.wrap(data, peer))

    def receive(self, data: Buffer, source: Address) -> bool:
        """Take what arrived: a datagram, or on a stream any piece. False when it is not from the server."""
        if source != self.server.address:
            return False
        if self._end is not None:
            return True
        if self._framer is None:
            self._take(data)
        else:
            self._take_stream(self._framer, data)
        self._pump.flush()
        return True

    def disconnected(self, reason: str) -> None:
        """The stream to the server has ended, and the relayed address with it."""
        self._closed.set()
        if self._end is None:
            self._lose(reason)

    async def close(self) -> None:
        """Give the address back. The socket stays open, and is read as before while this waits, for at most
        a second.
        """
        if self._end is None:
            self._client.close(self._pump.now)
            self._pump.flush()
            self._note_closed()
            await within(CLOSE_LIMIT, self._closed.wait())
            self._end = ServerUnreachable("The relayed address was given back.")
        self._pump.close()
        if self._allocated is not None:
            self._allocated.cancel()
        for permission in self._permissions.values():
            permission.cancel()

    def _permission(self, peer: Address) -> asyncio.Future[None]:
        """The server's word on that host, which is asked for once."""
        known = self._permissions.get(peer.host)
        if known is None:
            known = self._permissions[peer.host] = asyncio.get_running_loop().create_future()
            if self._end is not None:
                _fail(known, self._end)
                return known
            self._client.create_permission([peer], self._pump.now)
            self._pump.flush()
        return known

    def _take(self, data: Buffer) -> None:
        unwrapped = self._client.unwrap(data)
        if unwrapped is not None:
            self._on_data(unwrapped[1], unwrapped[0])
            return
        self._client.receive(data, self.server.address, self._pump.now)
        self._note_closed()

    def _take_stream(self, framer: StreamFramer, data: Buffer) -> None:
        framer.feed(data)
        try:
            while (message := framer.next_message()) is not None:
                self._take(message)
        except MalformedStun:
            self._lose("what came on the stream is no TURN")

    def _on_event(self, event: TurnEvent) -> None:
        if isinstance(event, DataReceived):
            self._on_data(memoryview(event.data), event.peer)
        elif isinstance(event, Allocated):
            _succeed(self._allocated, event)
        elif isinstance(event, AllocationFailed):
            self._finish(_failure(self.server.address, event))
        elif isinstance(event, AllocationLost):
            self._lose(event.reason)
        elif isinstance(event, PermissionCreated):
            _succeed(self._permissions.get(event.peer.host), None)
        elif isinstance(event, PermissionRefused):
            refusal = Refused(f"The TURN server will not relay to {event.peer.host} (error {event.code}).")
            _fail(self._permissions.pop(event.peer.host, None), refusal)

    def _lose(self, reason: str) -> None:
        self._finish(ServerUnreachable(f"The relayed address is gone: {reason}."))
        if self._on_lost is not None:
            self._on_lost(reason)

    def _finish(self, error: CrowlineError) -> None:
        """There is no address, and whoever waits for something of it is told why."""
        self._end = error
        self._pump.close()
        _fail(self._allocated, error)
        for permission in self._permissions.values():
            _fail(permission, error)
        self._permissions.clear()

    def _note_closed(self) -> None:
        if self._client.is_closed:
            self._closed.set()


def _failure(server: Address, event: AllocationFailed) -> CrowlineError:
    if event.code == REQUEST_TIMEOUT:
        return ServerUnreachable(f"The TURN server {server} does not answer.")
    instead = f"It names {event.alternate} in its place." if event.alternate is not None else ""
    return Refused(f"The TURN server refuses: {event.reason} (error {event.code}).", hint=instead)


def _succeed(future: asyncio.Future[T] | None, value: T) -> None:
    if future is not None and not future.done():
        future.set_result(value)


def _fail(future: asyncio.Future[T] | None, error: CrowlineError) -> None:
    if future is not None and not future.done():
        future.set_exception(error)
        future.exception()  # nobody has to wait for it
