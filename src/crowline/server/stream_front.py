"""STUN and TURN over TCP and TLS, and HTTP on the same TLS port.

Connections are counted by source before anything is read, the TLS handshake included. On the TLS port the
first byte after the handshake decides: below 4 it is STUN (RFC 7983), anything else is given to HTTP.
"""

from __future__ import annotations

import asyncio
import ssl
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.server.gate import Gate, canonical_host
from crowline.server.listener import bound_address, listen, serve, stop_accepting
from crowline.server.stream_client import StreamClient, StreamKey
from crowline.server.stream_doors import TcpDoor, TlsEntrance
from crowline.stun.message import Method
from crowline.stun.responder import Responder
from crowline.turn.channel_data import is_channel_data

MAX_CONNECTIONS_PER_SOURCE = 64  # an IPv4 address or an IPv6 /64
MAX_CONNECTIONS = 4096

# The bits of a message type that are its method (RFC 8489 §5); the others are its class.
_METHOD_BITS = 0x3EEF
# A keep-alive, to which there is no answer (RFC 8489 §3).
_BINDING_INDICATION = 0x0011


class StreamMachine(Protocol):
    """Where messages that are not Binding go: the driver of the TURN machine."""

    def from_stream(self, message: bytes, key: StreamKey) -> None: ...

    def stream_ended(self, key: StreamKey) -> None: ...

    def is_busy(self, key: StreamKey) -> bool: ...


class StreamFront:
    """All stream clients of this process."""

    def __init__(self, machine: StreamMachine, http: Callable[[], asyncio.Protocol | None]) -> None:
        """`http()` makes the protocol of one HTTP connection; ``None`` where there is none at present."""
        self.counters: Counter[str] = Counter()
        self.responder = Responder(on_streams=True)
        self.tcp_addresses: list[Address] = []
        self.tls_addresses: list[Address] = []
        self._machine = machine
        self._http = http
        self._gate = Gate(MAX_CONNECTIONS_PER_SOURCE, MAX_CONNECTIONS, counts_loopback=True)
        self._streams: dict[StreamKey, StreamClient] = {}
        self._servers: list[asyncio.Server] = []
        self._entrances: list[TlsEntrance] = []
        self._is_open = False

    async def listen(self, address: Address) -> Address:
        """STUN and TURN over TCP; the bound address. Raises `LocalProblem`."""
        bound = await self._serve(address, lambda: TcpDoor(self))
        self.tcp_addresses.append(bound)
        return bound

    async def listen_beside(self, address: Address) -> None:
        """The same at a further address, by which clients see how their NAT maps TCP; it need not be free."""
        try:
            await self._serve(address, lambda: TcpDoor(self))
        except LocalProblem:
            self.counters["no_further_tcp"] += 1

    async def listen_tls(self, address: Address, context: Callable[[], ssl.SSLContext]) -> Address:
        """The same over TLS, and HTTP; `context()` is asked for each connection. Raises `LocalProblem`."""
        entrance = TlsEntrance(self, context)
        bound = await self._serve(address, entrance.door)
        self._entrances.append(entrance)
        self.tls_addresses.append(bound)
        return bound

    async def close(self) -> None:
        self._is_open = False
        await stop_accepting(self._servers)
        self._servers.clear()
        self.tcp_addresses.clear()
        self.tls_addresses.clear()
        for entrance in self._entrances:
            entrance.close()
        self._entrances.clear()
        for stream in list(self._streams.values()):
            stream.abort()
        # Aborted transports tell their protocols in the next turn of the loop.
        await asyncio.sleep(0)

    def send(self, transmit: Transmit) -> None:
        """Send on the client's stream, if it still has one."""
        if transmit.local is None:
            return
        stream = self._streams.get(StreamKey(transmit.destination, transmit.local, transmit.transport))
        if stream is not None:
            stream.send(bytes(transmit.data))

    def find(self, key: StreamKey) -> StreamClient | None:
        return self._streams.get(key)

    def __len__(self) -> int:
        return len(self._streams)

    # --- what streams say -------------------------------------------------------------------------------

    def opened(self, stream: StreamClient) -> None:
        self._streams[stream.key] = stream

    def closed(self, stream: StreamClient) -> None:
        if self._streams.get(stream.key) is stream:
            del self._streams[stream.key]
        self._machine.stream_ended(stream.key)

    def received(self, message: bytes, stream: StreamClient) -> None:
        kind = int.from_bytes(message[:2], "big")
        if is_channel_data(message) or kind & _METHOD_BITS != Method.BINDING:
            self._machine.from_stream(message, stream.key)
            return
        key = stream.key
        self.responder.receive(message, key.client, time.monotonic(), key.local)
        answer = self.responder.next_transmit()
        if answer is not None:
            stream.send(bytes(answer.data))
        elif kind != _BINDING_INDICATION:
            stream.abort()

    def is_busy(self, stream: StreamClient) -> bool:
        return self._machine.is_busy(stream.key)

    def count(self, name: str) -> None:
        self.counters[name] += 1

    # --- what doors need --------------------------------------------------------------------------------

    def admit(self, transport: asyncio.Transport) -> Callable[[], None] | None:
        """A place for a connection, as what gives it back once or more often; ``None`` if it is refused."""
        peer = transport.get_extra_info("peername")
        # What was accepted a moment before the end comes after it.
        if not peer or not self._is_open or not self._gate.enter(host := canonical_host(peer[0])):
            self.counters["tcp_refused"] += 1
            return None
        given_back = False

        def leave() -> None:
            nonlocal given_back
            if not given_back:
                given_back = True
                self._gate.leave(host)

        return leave

    def start_stream(
        self, transport: asyncio.Transport, kind: Transport, leave: Callable[[], None]
    ) -> asyncio.Protocol | None:
        """From here on the transport is a stream client's; ``None`` if it is gone."""
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not local:
            leave()
            transport.abort()
            return None
        stream = StreamClient(self, StreamKey(_address(peer), _address(local), kind), leave)
        transport.set_protocol(stream)
        stream.connection_made(transport)
        return stream

    def start_http(self, transport: asyncio.Transport) -> asyncio.Protocol | None:
        """From here on the transport is HTTP's; ``None`` if there is none."""
        http = self._http()
        if http is None:
            transport.abort()
            return None
        transport.set_protocol(http)
        http.connection_made(transport)
        return http

    async def _serve(self, address: Address, door: Callable[[], asyncio.Protocol]) -> Address:
        sock = listen(address, with_ipv4=False)
        self._is_open = True
        try:
            self._servers.append(await serve(sock, door))
        except BaseException:
            sock.close()
            raise
        return bound_address(sock)


def _address(name: tuple[str, int]) -> Address:
    return Address.parse(name[0].partition("%")[0], name[1])
