"""Deadlines and caps below HTTP: what a client may hold before it has said anything.

The HTTP library waits for ever for a request that comes byte by byte, counts no connections by source, and
keeps a list of fragments of any length. These subclasses of its two protocols add what is missing.
"""

from __future__ import annotations

import asyncio
from typing import Any, ClassVar, cast

from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame
from websockets.http11 import Request as WebSocketRequest

from crowline.server.gate import Gate, canonical_host

REQUEST_LIMIT = 10.0
"""Seconds from the first moment of a request to the end of its head; a slow telephone line needs two."""

MAX_HEAD = 16 * 1024
"""Bytes that may come before a request is understood; browsers and proxies send a tenth of it."""

CLOSE_LIMIT = 2.0
"""Seconds for the answer to a close frame: several round trips."""

ABORT = "crowline.abort"
"""In the scope of a WebSocket: what drops the connection at once, when a close would wait for its reader."""

SILENT = 4408
"""The close code by which an endpoint hears that nothing came any more, pongs included; never sent."""

MAX_FRAGMENTS = 64
"""Frames of one message; ours come in one."""


class _GuardedHttp(H11Protocol):
    gate: ClassVar[Gate]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._timer: asyncio.TimerHandle | None = None
        self._waiting = 0
        self._source: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        source = source_of(transport)
        if source is None or not self.gate.enter(source):
            transport.abort()
            return
        self._source = source
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        if self._source is not None:
            self.gate.leave(self._source)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._arm()
        if self._timer is not None:
            self._waiting += len(data)
            if self._waiting > MAX_HEAD:
                self.send_400_response("The head of this request is too large.")
                return
        super().data_received(data)

    def handle_events(self) -> None:
        before = self.scope
        super().handle_events()
        if self.scope is not before:
            self._disarm()

    def _arm(self) -> None:
        self._waiting = 0
        self._timer = self.loop.call_later(REQUEST_LIMIT, self.transport.abort)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _GuardedWebSocket(WebSocketsSansIOProtocol):
    gate: ClassVar[Gate]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.close_timeout = CLOSE_LIMIT
        self._source: str | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        # A TLS transport that was closed knows its peer no more.
        self._source = source_of(transport)
        super().connection_made(transport)

    def handle_connect(self, event: WebSocketRequest) -> None:
        super().handle_connect(event)
        if hasattr(self, "scope"):
            cast(dict[str, Any], self.scope)[ABORT] = self.transport.abort

    def connection_lost(self, exc: Exception | None) -> None:
        if self._source is not None:
            self.gate.leave(self._source)
        super().connection_lost(exc)

    def handle_cont(self, event: Frame) -> None:
        if len(self.frames) >= MAX_FRAGMENTS:
            self._refuse(CloseCode.PROTOCOL_ERROR, "too many fragments")
            return
        super().handle_cont(event)

    def send_receive_event_to_app(self) -> None:
        """The library writes a traceback into the log for each text that is none."""
        if self.curr_msg_data_type == "text" and not _is_text(b"".join(self.frames)):
            self._refuse(CloseCode.INVALID_DATA, "not UTF-8")
            return
        super().send_receive_event_to_app()

    def handle_ping(self) -> None:
        """Somebody who sends pings and does not read the answers would fill the write buffer."""
        if not self.writable.is_set():
            self.transport.abort()
            return
        super().handle_ping()

    def keepalive_timeout(self) -> None:
        """Said first, since the library tells the endpoint the same as of a connection that was closed."""
        self.queue.put_nowait({"type": "websocket.disconnect", "code": SILENT})
        super().keepalive_timeout()

    def _refuse(self, code: CloseCode, reason: str) -> None:
        self.conn.fail(code, reason)
        self.handle_parser_exception()


def guarded(gate: Gate) -> tuple[type[H11Protocol], type[WebSocketsSansIOProtocol]]:
    """The two protocols for the HTTP library, counting at `gate`."""
    http = cast(type[_GuardedHttp], type("GuardedHttp", (_GuardedHttp,), {"gate": gate}))
    websocket = cast(type[_GuardedWebSocket], type("GuardedWebSocket", (_GuardedWebSocket,), {"gate": gate}))
    return http, websocket


def source_of(transport: asyncio.BaseTransport) -> str | None:
    """The peer's IP address, or ``None`` if it is gone already."""
    peer = transport.get_extra_info("peername")
    return canonical_host(peer[0]) if peer else None


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
