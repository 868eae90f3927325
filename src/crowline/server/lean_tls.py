"""asyncio's TLS, for clients of whom nothing is known yet: it takes as little memory as it can."""

from __future__ import annotations

import asyncio
import ssl
from asyncio.sslproto import SSLProtocol
from collections.abc import Callable

from crowline.server.stream_client import RAW_TRANSPORT

READ_SIZE = 64 * 1024  # bytes read from the kernel at once
# Bytes of ciphertext that are read ahead while the protocol inside has paused reading.
READ_AHEAD = 32 * 1024
GOODBYE_TIME = 2.0  # seconds that a closed connection has to say so: several round trips


class LeanTls(SSLProtocol):
    """One connection. `inside` gets its transport when the handshake is over; until then nobody hears of it
    but `ended()`, which is called once, when the connection is gone."""

    # What the library reads at once from inside TLS; a record holds no more.
    max_size = 16 * 1024

    def __init__(
        self,
        inside: asyncio.Protocol,
        context: ssl.SSLContext,
        *,
        buffer: bytearray,
        seconds: float,
        ended: Callable[[], None],
    ) -> None:
        """`buffer` is shared by all connections of one event loop: what is read goes on at once. `seconds`
        are for the handshake."""
        super().__init__(
            asyncio.get_running_loop(),
            inside,
            context,
            None,  # type: ignore[arg-type]
            server_side=True,
            ssl_handshake_timeout=seconds,  # type: ignore[arg-type]
            ssl_shutdown_timeout=GOODBYE_TIME,
        )
        self._ssl_buffer = buffer
        self._ssl_buffer_view = memoryview(buffer)
        self._set_read_buffer_limits(READ_AHEAD)  # type: ignore[attr-defined]
        self._ended = ended

    def start(self, transport: asyncio.Transport, data: bytes) -> None:
        """Take over a connection of which `data` was read."""
        self._extra[RAW_TRANSPORT] = transport
        transport.set_protocol(self)
        self.connection_made(transport)
        size = len(self._ssl_buffer)
        for start in range(0, len(data), size):
            piece = data[start : start + size]
            self._ssl_buffer_view[: len(piece)] = piece
            self.buffer_updated(len(piece))

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._ended()
