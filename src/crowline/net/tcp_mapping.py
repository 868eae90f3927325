"""Which address a NAT gives to a TCP port: learnt by STUN from that very port, and kept (RFC 6544 §5.2)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.net.pump import Pump
from crowline.net.tcp_dial import Dial, Obstacle
from crowline.net.tcp_stream import TcpStream
from crowline.stun.attributes import MalformedStun
from crowline.stun.client import BindingClient, BindingEvent, Mapped
from crowline.turn.framing import StreamFramer

CONNECT_LIMIT = 10.0  # seconds; whoever waits longer has other candidates by then
# Seconds between questions: servers close connections that say nothing, ours after 30 s, and a NAT may have
# given the port another address meanwhile.
REFRESH = 20.0
MAX_ANSWER = 2048  # bytes; ours have less than 200
_FIRST_CHANNEL_BYTE = 0x40  # STUN begins with a lower one (RFC 8489 §5)
_NOT_STUN = "what the server sends is not STUN"


class MappingLost(Struct, frozen=True):
    """The connection with `server` failed or ended: the address that it told may be good no more."""

    server: Address
    local: Address
    message: str


MappingEvent: TypeAlias = Mapped | MappingLost


class TcpMapping:
    """A connection with a STUN server that stays open, since its end would close the NAT's mapping.

    `on_event` gets `Mapped` when an address is learnt and each time it is another one, and `MappingLost` at
    the end, unless `close` made it.
    """

    def __init__(
        self,
        local: Address,
        server: Address,
        on_event: Callable[[MappingEvent], None],
        *,
        entropy: Callable[[int], bytes],
    ) -> None:
        self._local = local
        self._server = server
        self._on_event = on_event
        self._mapped: Address | None = None
        self._loop = asyncio.get_running_loop()
        self._client = BindingClient(entropy=entropy)
        self._framer = StreamFramer(MAX_ANSWER)
        self._pump: Pump[Transmit, BindingEvent] = Pump(self._client, self._send, self._answered)
        self._stream: TcpStream | None = None
        self._dial: Dial | None = Dial(local, server, self._connected, self._failed)
        self._timer = self._loop.call_later(CONNECT_LIMIT, self._lose, Obstacle.SILENT.value)

    def close(self) -> None:
        """End the connection."""
        self._timer.cancel()
        self._pump.close()
        if self._dial is not None:
            self._dial.cancel()
            self._dial = None
        if self._stream is not None:
            # Not by FIN: its TIME_WAIT would keep a new connection from this port to this server away.
            self._stream.abort()
            self._stream = None

    def _connected(self, sock: socket.socket) -> None:
        self._dial = None
        self._timer.cancel()
        try:
            self._stream = TcpStream(
                sock, is_accepted=False, on_trusted=lambda _: None, on_ended=lambda *_: None
            )
        except OSError as error:
            self._lose(error.strerror or str(error))
            return
        self._stream.start(self._receive, self._lose)
        self._ask()

    def _failed(self, obstacle: Obstacle, text: str) -> None:
        self._dial = None
        self._lose(f"{obstacle.value} ({text})")

    def _ask(self) -> None:
        self._client.query(self._server, self._pump.now, self._local, Transport.TCP)
        self._pump.flush()

    def _send(self, transmit: Transmit) -> None:
        if self._stream is not None:
            self._stream.send(transmit.data)

    def _receive(self, data: memoryview) -> None:
        if not len(self._framer) and data[0] >= _FIRST_CHANNEL_BYTE:
            # The framer would wait for ChannelData of whatever length the bytes seem to say.
            self._lose(_NOT_STUN)
            return
        self._framer.feed(data)
        try:
            while (message := self._framer.next_message()) is not None:
                self._client.receive(message, self._server, self._pump.now, self._local)
        except MalformedStun:
            self._lose(_NOT_STUN)
            return
        self._pump.flush()

    def _answered(self, event: BindingEvent) -> None:
        if not isinstance(event, Mapped):
            self._lose("the server does not answer")
            return
        self._timer = self._loop.call_later(REFRESH, self._ask)
        if event.address != self._mapped:
            self._mapped = event.address
            self._on_event(event)

    def _lose(self, message: str) -> None:
        self.close()
        self._on_event(MappingLost(self._server, self._local, message))
