"""The HTTP server as a guest in our event loop: our sockets, our signals, no log of visitors."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import uvicorn

from crowline.rendezvous.wire import MAX_MESSAGE
from crowline.server.gate import Gate
from crowline.server.guard import guarded
from crowline.server.listener import ACCEPTS_PER_WAKE, BACKLOG, stop_accepting

PING_INTERVAL = 20.0
"""Seconds between pings of a WebSocket, and until a lost client is noticed; NATs forget TCP much later."""

SHUTDOWN_LIMIT = 2
"""Seconds that open connections get to say goodbye."""


class HttpServer:
    """Runs an ASGI app on a listening socket, which it closes in the end."""

    def __init__(self, app: Any, sock: socket.socket, gate: Gate | None = None) -> None:
        self.gate = Gate() if gate is None else gate
        self._sock = sock
        self._guest = _Guest(_config(app, self.gate))
        self._task: asyncio.Task[None] | None = None
        self._is_draining = False

    async def start(self) -> None:
        """Returns when connections are accepted."""
        self._task = asyncio.create_task(self._guest.serve(sockets=[self._sock]), name="http server")
        ready = asyncio.create_task(self._guest.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            await self._task
        self._sock.listen(BACKLOG)

    def connection(self) -> asyncio.Protocol | None:
        """The protocol of a connection that came by another listener; ``None`` when nobody is welcome."""
        return None if self._guest.should_exit or self._is_draining else self._guest.connection()

    async def stop_listening(self) -> None:
        """Take no new connections; those that are there go on."""
        self._is_draining = True
        await stop_accepting(self._guest.servers)

    async def close(self) -> None:
        """End all connections."""
        self._guest.should_exit = True
        try:
            if self._task is not None:
                await self._task
        finally:
            self._sock.close()


class _Guest(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Signals belong to whoever runs the loop."""
        yield

    def connection(self) -> asyncio.Protocol:
        """What the HTTP library makes for each connection that it accepts."""
        return self.config.http_protocol_class(  # type: ignore[call-arg]
            config=self.config,
            server_state=self.server_state,
            app_state=self.lifespan.state,
        )

    async def main_loop(self) -> None:
        self.ready.set()
        await super().main_loop()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Of all connections, those included that come in this moment."""
        await stop_accepting(self.servers)
        await super().shutdown(sockets)


def _config(app: Any, gate: Gate) -> uvicorn.Config:
    http, websocket = guarded(gate)
    return uvicorn.Config(
        app,
        http=http,
        ws=websocket,
        loop="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        backlog=ACCEPTS_PER_WAKE,
        server_header=False,
        proxy_headers=False,
        ws_max_size=MAX_MESSAGE,
        ws_per_message_deflate=False,
        ws_ping_interval=PING_INTERVAL,
        ws_ping_timeout=PING_INTERVAL,
        timeout_graceful_shutdown=SHUTDOWN_LIMIT,
    )
