"""How a TCP connection comes in: counted first, perhaps through TLS, then to whom its first byte says."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable
from typing import Protocol

from crowline.base.transport import Transport
from crowline.server.stream_client import FIRST_NO_STUN

HANDSHAKE_TIME = 10.0  # seconds from connecting to the end of the TLS handshake
FIRST_BYTE_TIME = 5.0  # seconds from the handshake to the first byte inside
GOODBYE_TIME = 2.0  # seconds that a closed TLS connection has to say so: several round trips

# asyncio gives each TLS connection a buffer for 256 KiB from its first moment, which a thousand clients that
# say nothing would turn into 300 MB. A record of TLS has 16 KiB.
SSLProtocol.max_size = 32 * 1024


class Hall(Protocol):
    """Where the doors lead to."""

    handshakes: set[asyncio.Task[None]]

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


class TlsDoor(asyncio.Protocol):
    """A TCP connection until its handshake is over; it has its place from the first moment."""

    def __init__(self, hall: Hall, context: ssl.SSLContext) -> None:
        self._hall = hall
        self._context = context

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        leave = self._hall.admit(transport)
        if leave is None:
            transport.abort()
            return
        # Nothing may be read before TLS reads it.
        transport.pause_reading()
        task = asyncio.create_task(self._shake_hands(transport, leave), name="TLS handshake")
        self._hall.handshakes.add(task)
        task.add_done_callback(self._hall.handshakes.discard)

    async def _shake_hands(self, transport: asyncio.Transport, leave: Callable[[], None]) -> None:
        loop = asyncio.get_running_loop()
        inside = InsideTls(self._hall, leave)
        try:
            secured = await loop.start_tls(
                transport,
                inside,
                self._context,
                server_side=True,
                ssl_handshake_timeout=HANDSHAKE_TIME,
                ssl_shutdown_timeout=GOODBYE_TIME,
            )
        except BaseException as error:
            leave()
            transport.abort()
            if not isinstance(error, OSError):
                raise
            self._hall.count("tls_failed")
            return
        if secured is None or secured.is_closing():
            leave()
            return
        inside.begin(secured)


class InsideTls(asyncio.Protocol):
    """A secured connection until its first byte."""

    def __init__(self, hall: Hall, leave: Callable[[], None]) -> None:
        self._hall = hall
        self._leave = leave
        self._transport: asyncio.Transport | None = None
        self._early = bytearray()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, transport: asyncio.Transport) -> None:
        """TLS tells nobody that it is ready but the task that waits; the first bytes may be there by then."""
        self._transport = transport
        self._timer = asyncio.get_running_loop().call_later(FIRST_BYTE_TIME, transport.abort)
        if self._early:
            self._decide(transport)

    def data_received(self, data: bytes) -> None:
        self._early += data
        if self._transport is not None:
            self._decide(self._transport)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._leave()

    def _decide(self, transport: asyncio.Transport) -> None:
        self._stop_timer()
        if self._early[0] < FIRST_NO_STUN:
            heir = self._hall.start_stream(transport, Transport.TLS, self._leave)
        else:
            # HTTP has a count of its own.
            self._leave()
            heir = self._hall.start_http(transport)
        if heir is not None and not transport.is_closing():
            heir.data_received(bytes(self._early))

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
