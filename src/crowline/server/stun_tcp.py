"""STUN Binding over TCP (RFC 8489 §6.2.2): how a client's TCP connections look from outside.

A connection holds at most one unfinished message of 4 KiB, must finish its first within five seconds, and
each source may have only so many: a thousand silent connections cost little and end soon.
"""

from __future__ import annotations

import asyncio
from collections import Counter

from crowline.base.addresses import Address
from crowline.rendezvous.rate import source_of
from crowline.stun.attributes import COOKIE_BYTES
from crowline.stun.message import HEADER_SIZE
from crowline.stun.responder import Responder

MAX_MESSAGE = 4096  # bytes; real ones have about a hundred
FIRST_MESSAGE_TIME = 5.0  # seconds from connecting to the first complete message
IDLE_TIME = 30.0  # seconds between messages
MAX_CONNECTIONS_PER_SOURCE = 64  # an IPv4 address or an IPv6 /64
MAX_CONNECTIONS = 4096


class BindingServer:
    """The listening side: makes one `BindingConnection` for each client, and counts them."""

    def __init__(self, responder: Responder, counters: Counter[str]) -> None:
        self.responder = responder
        self.counters = counters
        self._open: Counter[str] = Counter()

    def connection(self) -> BindingConnection:
        return BindingConnection(self)

    def admit(self, host: str) -> bool:
        """Whether `host` may have one connection more."""
        source = source_of(host)
        if self._open[source] >= MAX_CONNECTIONS_PER_SOURCE or self._open.total() >= MAX_CONNECTIONS:
            self.counters["tcp_refused"] += 1
            return False
        self._open[source] += 1
        return True

    def release(self, host: str) -> None:
        source = source_of(host)
        self._open[source] -= 1
        if not self._open[source]:
            del self._open[source]


class BindingConnection(asyncio.Protocol):
    """Reads whole messages, answers Binding requests, and closes on anything that is not STUN."""

    def __init__(self, server: BindingServer) -> None:
        self._server = server
        self._buffer = bytearray()
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._source: Address | None = None
        self._local: Address | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        peer, local = transport.get_extra_info("peername"), transport.get_extra_info("sockname")
        if not peer or not local or not self._server.admit(_address(peer).host):
            transport.abort()
            return
        self._transport = transport
        self._source, self._local = _address(peer), _address(local)
        self._set_timer(FIRST_MESSAGE_TIME)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while (size := _message_size(self._buffer)) is not None:
            if size < 0:
                self._server.counters["tcp_malformed"] += 1
                self._abort()
                return
            if len(self._buffer) < size:
                return
            message = bytes(self._buffer[:size])
            del self._buffer[:size]
            if not self._answer(message):
                return

    def pause_writing(self) -> None:
        """The client does not read its answers: stop reading its questions."""
        if self._transport is not None:
            self._transport.pause_reading()

    def resume_writing(self) -> None:
        if self._transport is not None:
            self._transport.resume_reading()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if self._source is not None:
            self._server.release(self._source.host)
            self._source = None

    def _answer(self, message: bytes) -> bool:
        if self._source is None or self._transport is None:
            return False
        responder = self._server.responder
        responder.receive(message, self._source, asyncio.get_running_loop().time(), self._local)
        answer = responder.next_transmit()
        if answer is None:
            self._abort()
            return False
        self._transport.write(answer.data)
        self._set_timer(IDLE_TIME)
        return True

    def _set_timer(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._abort)

    def _abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()


def _message_size(buffer: bytearray) -> int | None:
    """Bytes of the message at the start; None while too little is there, -1 for what cannot be STUN."""
    if buffer and buffer[0] >= 0x40:
        return -1
    if len(buffer) >= 8 and buffer[4:8] != COOKIE_BYTES:
        return -1
    if len(buffer) < HEADER_SIZE:
        return None
    size = HEADER_SIZE + int.from_bytes(buffer[2:4], "big")
    return -1 if size > MAX_MESSAGE or size % 4 else size


def _address(name: tuple[str, int]) -> Address:
    return Address.parse(name[0].partition("%")[0], name[1])
