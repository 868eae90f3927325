"""How a TCP connection comes in: counted first, perhaps through TLS, then to whom its first byte says.

A client of TLS gets more of this server's memory with each thing it does:

    connected               a socket and a timer, about 3 KiB
    a whole first record    the state of a handshake, about 50 KiB
    handshake done          the state of a connection, about 20 KiB
    first byte inside       a stream client, or a connection of HTTP

Those between the first record and the first byte are unproven, and cost most: there are only so many of them
at once, and the one that has been there for longest goes when another comes. An honest client is there for
three round trips.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Protocol

from crowline.base.transport import Transport
from crowline.server.lean_tls import READ_SIZE, LeanTls
from crowline.server.stream_client import FIRST_NO_STUN

HANDSHAKE_TIME = 10.0  # seconds from connecting to the end of the TLS handshake
FIRST_BYTE_TIME = 5.0  # seconds from the handshake to the first byte inside
MAX_UNPROVEN = 512  # TLS clients between first record and first byte: 26 MB

# A TLS record (RFC 8446 §5.1): its type, that of a handshake at first, two bytes of version, its length.
_RECORD_HEADER = 5
_HANDSHAKE = 22
_MAJOR_VERSION = 3
_MAX_RECORD = 16 * 1024


class Hall(Protocol):
    """Where the doors lead to."""

    def admit(self, transport: asyncio.Transport) -> Callable[[], None] | None: ...

    def count(self, name: str) -> None: ...

    def start_stream(
        self, transport: asyncio.Transport, kind: Transport, leave: Callable[[], None]
    ) -> asyncio.Protocol | None: ...

    def start_http(self, transport: asyncio.Transport) -> asyncio.Protocol | None: ...


class TcpDoor(asyncio.Protocol):
    """The first moment of a plain TCP connection."""

    def __init__(self, hall: Hall) -> None:
        self._hall = hall

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        leave = self._hall.admit(transport)
        if leave is None:
            transport.abort()
            return
        self._hall.start_stream(transport, Transport.TCP, leave)


class TlsEntrance:
    """All TLS connections that are not yet a stream client's or HTTP's."""

    def __init__(self, hall: Hall, context: Callable[[], ssl.SSLContext]) -> None:
        """`context()` is asked for each connection."""
        self.hall = hall
        self.context = context
        self.buffer = bytearray(READ_SIZE)
        self._silent: set[TlsDoor] = set()
        self._unproven: dict[InsideTls, None] = {}

    def door(self) -> TlsDoor:
        return TlsDoor(self)

    def close(self) -> None:
        for door in self._silent:
            door.abort()
        for inside in self._unproven:
            inside.abort()

    def entered(self, door: TlsDoor) -> None:
        self._silent.add(door)

    def left(self, door: TlsDoor) -> None:
        self._silent.discard(door)

    def begun(self, inside: InsideTls) -> None:
        self._unproven[inside] = None
        if len(self._unproven) > MAX_UNPROVEN:
            oldest = next(iter(self._unproven))
            self.proven(oldest)
            oldest.abort()
            self.hall.count("tls_crowded_out")

    def proven(self, inside: InsideTls) -> None:
        """It said something, or it is gone."""
        self._unproven.pop(inside, None)


class TlsDoor(asyncio.Protocol):
    """A TCP connection until its first record of TLS; it has its place from the first moment."""

    def __init__(self, entrance: TlsEntrance) -> None:
        self._entrance = entrance
        self._transport: asyncio.Transport
        self._leave: Callable[[], None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._record = bytearray()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._leave = self._entrance.hall.admit(transport)
        if self._leave is None:
            transport.abort()
            return
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(HANDSHAKE_TIME, transport.abort)
        self._entrance.entered(self)

    def data_received(self, data: bytes) -> None:
        self._record += data
        if not _may_be_tls(self._record):
            self._transport.abort()
        elif _is_whole(self._record):
            self._begin()

    def connection_lost(self, exc: Exception | None) -> None:
        if self._leave is not None:
            self._entrance.hall.count("tls_failed")
            self._leave()
            self._end()

    def abort(self) -> None:
        self._transport.abort()

    def _begin(self) -> None:
        assert self._timer is not None and self._leave is not None
        left = self._timer.when() - asyncio.get_running_loop().time()
        inside = InsideTls(self._entrance, self._transport, self._leave)
        self._end()
        inside.shake_hands(bytes(self._record), max(left, 0.001))

    def _end(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._entrance.left(self)


class InsideTls(asyncio.Protocol):
    """A connection of TLS from its first record to the first byte inside."""

    def __init__(self, entrance: TlsEntrance, raw: asyncio.Transport, leave: Callable[[], None]) -> None:
        self._entrance = entrance
        self._raw = raw
        self._leave = leave
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    def shake_hands(self, data: bytes, seconds: float) -> None:
        entrance = self._entrance
        tls = LeanTls(self, entrance.context(), buffer=entrance.buffer, seconds=seconds, ended=self._ended)
        entrance.begun(self)
        tls.start(self._raw, data)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The handshake is over."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(FIRST_BYTE_TIME, transport.abort)

    def data_received(self, data: bytes) -> None:
        assert self._transport is not None
        transport, hall = self._transport, self._entrance.hall
        self._stop()
        if data[0] < FIRST_NO_STUN:
            heir = hall.start_stream(transport, Transport.TLS, self._leave)
        else:
            # HTTP has a count of its own.
            self._leave()
            heir = hall.start_http(transport)
        if heir is not None and not transport.is_closing():
            heir.data_received(data)

    def abort(self) -> None:
        self._raw.abort()

    def _ended(self) -> None:
        if self._transport is None:
            self._entrance.hall.count("tls_failed")
        self._leave()
        self._stop()

    def _stop(self) -> None:
        self._entrance.proven(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _may_be_tls(data: bytearray) -> bool:
    """Whether data begins like a record of a handshake, which is all that a client may begin with."""
    if data[0] != _HANDSHAKE or (len(data) > 1 and data[1] != _MAJOR_VERSION):
        return False
    return len(data) < _RECORD_HEADER or 0 < int.from_bytes(data[3:5], "big") <= _MAX_RECORD


def _is_whole(data: bytearray) -> bool:
    return len(data) >= _RECORD_HEADER and len(data) >= _RECORD_HEADER + int.from_bytes(data[3:5], "big")
