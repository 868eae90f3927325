"""UDP: one flow for each program that sends, carried by the session's datagrams.

A flow has a stream too: there it begins, there its first datagrams go until the other side has answered, so
that none is lost to overtaking its own beginning, and there it ends. In between datagrams go as datagrams,
the flow's number in front: what a network may lose, this may lose.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeVar

from crowline.api.forwarding.connections import Connections, refuse
from crowline.api.forwarding.events import ConnectionClosed, ConnectionOpened, ForwardEvent
from crowline.api.forwarding.gate import Gate, addresses_of
from crowline.api.forwarding.talk import NotReached, read_answer, reason_of, while_wanted
from crowline.api.peer import Peer, Stream
from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError
from crowline.base.machine import Buffer
from crowline.forward.messages import Head, Opened, Reason, encode
from crowline.forward.permits import Permits
from crowline.forward.rules import Target
from crowline.forward.socks import format_address, split_datagram
from crowline.net.local_udp import LocalUdp
from crowline.net.patience import within

# Flows of one side at once.
MAX_FLOWS = 64
# Seconds of silence in both directions after which a flow ends (RFC 4787 §4.3 asks for two minutes at least).
IDLE_LIMIT = 120.0
# Datagrams that wait for a flow's stream.
_MOST_EARLY = 32
# Hosts that one roaming flow remembers, the latest.
_MOST_HOSTS = 256
# Datagrams of one such flow that wait for their host's name, and names that all of them look up at once.
_MOST_WAITING = 16
_MOST_LOOKUPS = 16
K = TypeVar("K")
V = TypeVar("V")

_NUMBER = struct.Struct("!I")
_LENGTH = struct.Struct("!H")


class Flow:
    """One side of one flow. `deliver` gets what arrives for it."""

    def __init__(self, peer: Peer, number: int, deliver: Callable[[memoryview], None]) -> None:
        self.number = number
        self.used_at = asyncio.get_running_loop().time()
        self.sent = self.received = 0
        # Set once the other side has agreed, and on the side that agreed from the beginning.
        self.is_open = False
        self._peer = peer
        self._deliver = deliver
        self._early: asyncio.Queue[bytes] = asyncio.Queue(_MOST_EARLY)

    def send(self, data: Buffer) -> None:
        """One datagram; lost where too many wait."""
        self.used_at = asyncio.get_running_loop().time()
        self.sent += len(data)
        if self.is_open:
            self._transmit(data)
        elif not self._early.full():
            self._early.put_nowait(bytes(data))

    def receive(self, data: memoryview) -> None:
        self.used_at = asyncio.get_running_loop().time()
        self.received += len(data)
        self._deliver(data)

    async def write_early(self, stream: Stream) -> None:
        """Put the first datagrams on the stream, until cancelled."""
        while True:
            data = await self._early.get()
            await stream.write(_LENGTH.pack(len(data)) + data)

    def open(self) -> None:
        """The other side has agreed: what still waits may go as datagrams."""
        self.is_open = True
        while not self._early.empty():
            self._transmit(self._early.get_nowait())

    async def idle(self, stream: Stream) -> None:
        """Wait until the other side ends the flow, or nothing has moved for so long."""
        loop = asyncio.get_running_loop()
        while (left := self.used_at + IDLE_LIMIT - loop.time()) > 0:
            if await within(left, stream.read()):
                return

    def _transmit(self, data: Buffer) -> None:
        with suppress(CrowlineError):  # the connection is over, which others are told
            self._peer.send_datagram(_NUMBER.pack(self.number) + bytes(data))


class Flows:
    """All flows of a session. Numbers of the host's are even, those of the other side odd."""

    def __init__(
        self, peer: Peer, gate: Gate, connections: Connections, tell: Callable[[ForwardEvent], None]
    ) -> None:
        self._peer = peer
        self._gate = gate
        self._connections = connections
        self._tell = tell
        self._flows: dict[int, Flow] = {}
        self._next = 0 if peer.is_host else 1
        self._lookups = asyncio.Semaphore(_MOST_LOOKUPS)

    async def run(self) -> None:
        """Hand on what arrives, until the connection ends."""
        async for data in self._peer.datagrams():
            view = memoryview(data)
            if len(view) >= _NUMBER.size:
                flow = self._flows.get(_NUMBER.unpack_from(view)[0])
                if flow is not None:
                    flow.receive(view[_NUMBER.size :])

    def begin(self, deliver: Callable[[memoryview], None]) -> Flow:
        """A new flow of this side, which `carry` takes to the other."""
        flow = Flow(self._peer, self._next, deliver)
        self._next = (self._next + 2) % (1 << 32)
        return flow

    async def carry(self, flow: Flow, head: Head, what: str) -> None:
        """Open the flow over there, and keep it until it ends."""
        number = next(self._connections.numbers)
        self._flows[flow.number] = flow
        self._tell(ConnectionOpened(number, what))
        reason = ""
        try:
            stream = await self._peer.open_stream()
            try:
                await self._keep(flow, stream, head)
            except BaseException:
                stream.abort()
                raise
            await stream.close()
        except CrowlineError as error:
            reason = error.message.removesuffix(".")
        finally:
            del self._flows[flow.number]
            self._tell(ConnectionClosed(number, flow.sent, flow.received, reason))

    async def serve(self, stream: Stream, head: Head) -> None:
        """Take a flow of the other side to where it leads."""
        assert head.flow is not None
        try:
            outlet = await self._outlet(head.flow, head, stream)
        except (OSError, NotReached) as error:
            await refuse(stream, reason_of(error))
            return
        number, flow = head.flow, outlet.flow
        is_theirs = number % 2 != self._next % 2
        if not is_theirs or number in self._flows or len(self._flows) >= 2 * MAX_FLOWS:
            outlet.close()
            await refuse(stream, Reason.TOO_MANY)
            return
        self._flows[number] = flow
        shown = next(self._connections.numbers)
        self._tell(ConnectionOpened(shown, f"the other side → {outlet.name}, udp"))
        try:
            flow.open()
            await stream.write(encode(Opened()))
            await self._read_early(flow, stream)
            await stream.close()
        except CrowlineError:
            stream.abort()
        finally:
            del self._flows[number]
            outlet.close()
            self._tell(ConnectionClosed(shown, flow.sent, flow.received))

    async def _keep(self, flow: Flow, stream: Stream, head: Head) -> None:
        await stream.write(encode(head))
        writing = asyncio.ensure_future(flow.write_early(stream))
        try:
            await read_answer(stream)
        finally:
            writing.cancel()
            await asyncio.gather(writing, return_exceptions=True)
        flow.open()
        await flow.idle(stream)

    async def _read_early(self, flow: Flow, stream: Stream) -> None:
        """Datagrams on the stream, until the other side ends it or both have been silent for too long."""
        loop = asyncio.get_running_loop()
        reading = asyncio.ensure_future(_read_frame(stream))
        try:
            while (left := flow.used_at + 2 * IDLE_LIMIT - loop.time()) > 0:
                await asyncio.wait({reading}, timeout=left)
                if not reading.done():
                    continue
                if (data := reading.result()) is None:
                    return
                flow.receive(memoryview(data))
                reading = asyncio.ensure_future(_read_frame(stream))
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _outlet(self, number: int, head: Head, stream: Stream) -> _Outlet:
        permits = self._gate.roaming(head)
        if permits is not None:
            return _Roaming(self._peer, number, permits, self._lookups)
        found: list[tuple[Target, list[str]]] = []

        async def lead() -> None:
            found.append(await self._gate.lead(head))

        await while_wanted(stream, lead())
        [(target, addresses)] = found
        return _Fixed(self._peer, number, Address(_one(addresses), target.port), str(target))


class _Outlet:
    """Where a flow of the other side comes out."""

    flow: Flow
    name: str

    def close(self) -> None:
        """Release the sockets."""


class _Fixed(_Outlet):
    """One socket that talks with one address."""

    def __init__(self, peer: Peer, number: int, address: Address, name: str) -> None:
        self.name = name
        self._socket = LocalUdp.connected(address.host, address.port, lambda data, _: self.flow.send(data))
        self.flow = Flow(peer, number, lambda data: self._socket.send(data))

    def close(self) -> None:
        self._socket.close()


class _Roaming(_Outlet):
    """Each datagram names its host; answers come from hosts that were sent to, and say from which."""

    name = "what it names"

    def __init__(self, peer: Peer, number: int, permits: Permits, lookups: asyncio.Semaphore) -> None:
        self.flow = Flow(peer, number, self._on_datagram)
        self._permits = permits
        self._sockets: dict[bool, LocalUdp] = {}
        self._known: dict[tuple[str, int], Address | None] = {}
        self._hosts: dict[str, None] = {}
        self._lookups = lookups
        self._waiting: set[asyncio.Task[None]] = set()

    def close(self) -> None:
        for task in self._waiting:
            task.cancel()
        for each in self._sockets.values():
            each.close()

    def _on_datagram(self, data: memoryview) -> None:
        parsed = split_datagram(data)
        if parsed is None:
            return
        host, port, payload = parsed
        if (host, port) in self._known:
            self._send(self._known[host, port], payload)
        elif len(self._waiting) < _MOST_WAITING:
            task = asyncio.ensure_future(self._find(host, port, bytes(payload)))
            self._waiting.add(task)
            task.add_done_callback(self._waiting.discard)

    async def _find(self, host: str, port: int, payload: bytes) -> None:
        try:
            async with self._lookups:
                allowed = self._permits.choose(host, port, await addresses_of(host))
        except NotReached:
            allowed = []
        address = Address(_one(allowed), port) if allowed and port else None
        _remember(self._known, (host, port), address)
        self._send(address, payload)

    def _send(self, address: Address | None, payload: Buffer) -> None:
        if address is None:
            return
        outlet = self._sockets.get(address.is_ipv6)
        if outlet is None:
            try:
                outlet = LocalUdp.unbound(is_ipv6=address.is_ipv6, on_datagram=self._on_answer)
            except OSError:
                return
            self._sockets[address.is_ipv6] = outlet
        if address.host not in self._hosts:
            _remember(self._hosts, address.host, None)
        outlet.send(payload, address)

    def _on_answer(self, data: bytes, source: Address) -> None:
        if source.host in self._hosts:
            self.flow.send(format_address(source.host, source.port) + data)


def _remember(known: dict[K, V], key: K, value: V) -> None:
    """Put it in, the oldest out."""
    if len(known) >= _MOST_HOSTS:
        del known[next(iter(known))]
    known[key] = value


def _one(addresses: Sequence[str]) -> str:
    """That of a name to which datagrams go, which cannot be tried one after the other: IPv4, if any is."""
    return next((each for each in addresses if ":" not in each), addresses[0])


async def _read_frame(stream: Stream) -> bytes | None:
    """One datagram; None at the end of the stream."""
    head = await stream.read(_LENGTH.size)
    if not head:
        return None
    head += await stream.readexactly(_LENGTH.size - len(head))
    return await stream.readexactly(_LENGTH.unpack(head)[0])
