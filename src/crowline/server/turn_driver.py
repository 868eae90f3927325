"""What the TURN machine needs of the world: its clock, its relayed addresses, its clients and their peers."""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections import Counter
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.server.relay_ports import SocketRelayPorts
from crowline.server.stream_client import StreamClient, StreamKey
from crowline.server.tcp_relay import TcpRelay
from crowline.turn.server import TurnServer

_log = logging.getLogger(__name__)


class TurnDriver:
    """Drives one `TurnServer`. `ports` hands what peers send to `from_peer` and `peer_connected`."""

    def __init__(
        self, send: Callable[[Transmit], None], stream: Callable[[StreamKey], StreamClient | None]
    ) -> None:
        """`send` brings an answer to a client; what peers get leaves by `ports`. `stream` finds a client's
        stream."""
        self.counters: Counter[str] = Counter()
        self.machine: TurnServer
        self.ports: SocketRelayPorts
        self._send_to_client = send
        self._stream = stream
        self._tcp: TcpRelay
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0

    def start(self, machine: TurnServer, ports: SocketRelayPorts) -> None:
        self.machine, self.ports = machine, ports
        self._tcp = TcpRelay(machine, dialler=ports.dialler, stream=self._stream, flush=self.flush)

    async def close(self) -> None:
        """End all allocations and give their ports back."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self.machine.close()
        self.drop()
        await self._tcp.close()
        self.ports.close_all()

    def receive(self, data: memoryview, source: Address, local: Address, segment_size: int) -> None:
        """What a client sent over UDP; `flush` is due before `data` is used again."""
        self.machine.receive(data, source, time.monotonic(), local, segment_size)

    def from_stream(self, message: bytes, key: StreamKey) -> None:
        """One whole message of a stream client."""
        try:
            self.machine.receive(message, key.client, time.monotonic(), key.local, transport=key.transport)
            self.flush()
        except Exception:
            self._survive()

    def stream_ended(self, key: StreamKey) -> None:
        """A stream client is gone."""
        try:
            self.machine.disconnect(key.client, key.local, key.transport, time.monotonic())
            self.flush()
        except Exception:
            self._survive()

    def is_busy(self, key: StreamKey) -> bool:
        """Whether a stream client has something that outlives its silence."""
        return self.machine.is_busy(key.client, key.local, key.transport)

    def from_datagram(self, data: bytes, source: Address, local: Address) -> None:
        """One datagram of a UDP client that another process received."""
        try:
            self.machine.receive(data, source, time.monotonic(), local)
            self.flush()
        except Exception:
            self._survive()

    def from_peer(
        self, data: memoryview, peer: Address, size: int, relayed: Address, *, is_inside: bool = False
    ) -> None:
        try:
            segment_size = size if size < len(data) else None
            now = time.monotonic()
            self.machine.receive_from_peer(data, peer, now, relayed, segment_size, is_inside=is_inside)
            self.flush()
        except Exception:
            self._survive()

    def from_router(self, relayed: Address, peer: Address, icmp_type: int, icmp_code: int, data: int) -> None:
        """An ICMP error about what a relayed address sent to `peer`."""
        try:
            self.machine.receive_icmp(relayed, peer, icmp_type, icmp_code, data, time.monotonic())
            self.flush()
        except Exception:
            self._survive()

    def peer_connected(self, relayed: Address, peer: Address, sock: socket.socket) -> None:
        """A peer's TCP connection to a relayed address."""
        try:
            self._tcp.accepted(relayed, peer, sock)
        except Exception:
            sock.close()
            self._survive()

    def flush(self) -> None:
        """Send everything at once: bulk data still lies in the buffer it was received into."""
        self._send_all()
        while (event := self.machine.next_event()) is not None:
            self._tcp.handle(event)
            self._send_all()
        self._set_timer()

    def drop(self) -> int:
        """Forget what is still to be sent, and say how much that was."""
        dropped = 0
        while self.machine.next_transmit() is not None:
            dropped += 1
        return dropped

    def _send_all(self) -> None:
        while (transmit := self.machine.next_transmit()) is not None:
            if transmit.transport.is_stream or not self.ports.send(transmit):
                self._send_to_client(transmit)

    def _set_timer(self) -> None:
        at = self.machine.next_timeout()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        try:
            self.machine.handle_timeout(time.monotonic())
            self.flush()
        except Exception:
            self._survive()

    def _survive(self) -> None:
        """A fault of ours costs what was just done, not the server."""
        self.counters["handler_error"] += 1
        self.counters["dropped_by_error"] += self.drop()
        _log.debug("a packet could not be handled", exc_info=True)
