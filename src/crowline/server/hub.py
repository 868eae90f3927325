"""The hub on WebSockets: the machine of `rendezvous/hub.py` behind one endpoint, and two plain pages."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from itertools import count

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from crowline.base.addresses import Address, IPNetwork
from crowline.base.machine import Buffer
from crowline.rendezvous.hub import NORMAL, Delivery, Hub
from crowline.server.forwarded import true_source
from crowline.server.gate import canonical_host
from crowline.server.guard import ABORT, SILENT

PATH = "/v1"

WRITE_LIMIT = 5.0
"""Seconds for one message to fit into the socket's buffer; who reads nothing for so long is gone."""

HIGH_WATER = 256 * 1024
"""Bytes waiting for one reader at which its sender is read no further."""

MAX_QUEUE = 2 * 1024 * 1024
"""Bytes waiting for one reader at which it is dropped: more than a side that is back may get at once."""

GOING_AWAY = 1001
INTERNAL_ERROR = 1011
"""Close codes of RFC 6455 §7.4.1."""

_PLAIN_HOST = re.compile(r"(?:[A-Za-z0-9.-]{1,253}|\[[0-9A-Fa-f:.]{2,45}\])(?::[0-9]{1,5})?")

_TOKEN = re.compile(r"[0-9a-f]{1,64}")

_PAGE = """This is a Crowline rendezvous server.

On one computer:     crowline send FILE --server {url}
On the other one:    crowline receive --server {url}
"""


class HubFront:
    """Drives one `Hub`. `app` is what an ASGI server runs."""

    def __init__(self, hub: Hub, origins: tuple[str, ...] = (), proxies: tuple[IPNetwork, ...] = ()) -> None:
        """`origins` are the web pages that may connect from a browser; programs send no Origin. `proxies` are
        believed when they say for whom they connect."""
        self.hub = hub
        self._proxies = proxies
        self._origins = frozenset(origins)
        self._numbers = count(1)
        self._readers: dict[int, _Reader] = {}
        self._timer: asyncio.TimerHandle | None = None
        self._is_closed = False
        self.app = Starlette(
            routes=[
                Route("/", self._page),
                Route("/healthz", self._health),
                Route("/probe/{token}", self._probe),
                WebSocketRoute(PATH, self._serve),
            ]
        )

    def close(self) -> None:
        """End all connections: the server is going away."""
        self._is_closed = True
        self._arm()
        for reader in self._readers.values():
            reader.close(GOING_AWAY)

    async def _page(self, request: Request) -> PlainTextResponse:
        host = request.headers.get("host", "")
        scheme = "wss" if request.url.scheme == "https" else "ws"
        url = f"{scheme}://{host if _PLAIN_HOST.fullmatch(host) else 'THIS-SERVER'}"
        return PlainTextResponse(_PAGE.format(url=url), headers={"X-Content-Type-Options": "nosniff"})

    async def _health(self, request: Request) -> JSONResponse:
        return JSONResponse({"ok": True})

    async def _probe(self, request: Request) -> PlainTextResponse:
        """Says the token back, which nobody who answers in this server's place knows to do."""
        token = request.path_params["token"]
        if not _TOKEN.fullmatch(token):
            return PlainTextResponse("Not a token.\n", status_code=404)
        return PlainTextResponse(f"crowline {token}\n", headers={"Cache-Control": "no-store"})

    async def _serve(self, websocket: WebSocket) -> None:
        origin = websocket.headers.get("origin")
        if (origin is not None and origin not in self._origins) or websocket.client is None:
            # Before it is accepted this is a 403. A page of another site has no business here.
            await websocket.close()
            return
        await websocket.accept()
        number = next(self._numbers)
        peer = canonical_host(websocket.client.host)
        forwarded = ",".join(websocket.headers.getlist("x-forwarded-for"))
        source = Address(true_source(peer, forwarded, self._proxies), websocket.client.port)
        reader = self._readers[number] = _Reader(websocket)
        code = INTERNAL_ERROR
        try:
            self.hub.connect(number, source, self._now)
            self._flush()
            code = await self._read(number, websocket)
        finally:
            del self._readers[number]
            is_silent = code == SILENT or reader.is_stuck
            self.hub.disconnect(number, self._now, is_clean=code in (NORMAL, GOING_AWAY), is_silent=is_silent)
            self._flush()
            await reader.stop()

    async def _read(self, number: int, websocket: WebSocket) -> int:
        """Hand on everything this connection sends, until it ends. The close code."""
        while True:
            message = await websocket.receive()
            if message["type"] == "websocket.disconnect":
                return int(message.get("code") or INTERNAL_ERROR)
            if (text := message.get("text")) is not None:
                self.hub.receive(number, text.encode(), self._now)
            else:
                self.hub.receive_binary(number, message["bytes"], self._now)
            for reader in self._flush():
                await reader.has_room.wait()

    def _flush(self) -> list[_Reader]:
        """Pass on what the hub has to say; the readers that have enough for now."""
        full = []
        while (delivery := self.hub.next_transmit()) is not None:
            reader = self._readers.get(delivery.connection)
            if reader is None:
                continue
            reader.put(delivery)
            if not reader.has_room.is_set():
                full.append(reader)
        self._arm()
        return full

    def _arm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        time = self.hub.next_timeout()
        if time is not None and not self._is_closed:
            self._timer = asyncio.get_running_loop().call_at(time, self._on_timer)

    def _on_timer(self) -> None:
        self.hub.handle_timeout(self._now)
        self._flush()

    @property
    def _now(self) -> float:
        return asyncio.get_running_loop().time()


class _Reader:
    """What waits for one connection, and the task that writes it."""

    def __init__(self, websocket: WebSocket) -> None:
        self.has_room = asyncio.Event()
        self.has_room.set()
        # Whether it took nothing for so long that it was given up.
        self.is_stuck = False
        self._websocket = websocket
        self._queue: deque[tuple[Buffer, bool]] = deque()
        self._bytes = 0
        self._close: int | None = None
        self._wake = asyncio.Event()
        self._writer = asyncio.create_task(self._write(), name="hub writer")

    def put(self, delivery: Delivery) -> None:
        if delivery.close is not None:
            self.close(delivery.close)
            return
        self._queue.append((delivery.data, delivery.is_binary))
        self._bytes += len(delivery.data)
        if self._bytes > MAX_QUEUE:
            self._queue.clear()
            self.close(INTERNAL_ERROR)
        elif self._bytes > HIGH_WATER:
            self.has_room.clear()
        self._wake.set()

    def close(self, code: int) -> None:
        """Close after what is in the queue."""
        if self._close is None:
            self._close = code
        self._wake.set()

    async def stop(self) -> None:
        """The connection is gone, or the endpoint is being cancelled."""
        self._writer.cancel()
        self.has_room.set()
        await asyncio.gather(self._writer, return_exceptions=True)

    async def _write(self) -> None:
        try:
            async with asyncio.timeout(None) as limit:
                await self._write_all(limit)
        except (TimeoutError, WebSocketDisconnect, OSError) as error:
            self.is_stuck = isinstance(error, TimeoutError)
            self._websocket.scope[ABORT]()
        finally:
            self.has_room.set()

    async def _write_all(self, limit: asyncio.Timeout) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._queue:
                data, is_binary = self._queue.popleft()
                limit.reschedule(loop.time() + WRITE_LIMIT)
                if is_binary:
                    await self._websocket.send_bytes(bytes(data))
                else:
                    await self._websocket.send_text(bytes(data).decode())
                self._bytes -= len(data)
                if self._bytes <= HIGH_WATER:
                    self.has_room.set()
            if self._close is not None:
                limit.reschedule(loop.time() + WRITE_LIMIT)
                await self._websocket.close(self._close)
                return
            limit.reschedule(None)
            self._wake.clear()
            await self._wake.wait()
