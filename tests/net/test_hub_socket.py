"""The end of the client's WebSocket."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from crowline.net.websocket import HubSocket


async def test_a_cancelled_close_leaves_nothing_open() -> None:
    """Whoever is closing may be told to hurry: no task and no connection stays."""
    over = asyncio.Event()

    async def hold(connection: ServerConnection) -> None:
        await connection.wait_closed()
        over.set()

    async with serve(hold, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        socket = await HubSocket.connect(f"ws://127.0.0.1:{port}")
        socket._connection.transport.pause_reading()  # the server's half of the farewell does not come
        socket.send("last words")
        closing = asyncio.create_task(socket.close())
        await asyncio.sleep(0)
        closing.cancel()
        await asyncio.gather(closing, return_exceptions=True)
        async with asyncio.timeout(30):
            await over.wait()
        await asyncio.gather(socket._sender, return_exceptions=True)
        assert socket._connection.transport.is_closing()


async def test_a_server_that_has_moved_is_followed() -> None:
    """It names its new address in the answer to the upgrade."""

    async def greet(connection: ServerConnection) -> None:
        await connection.send("welcome")

    async with serve(greet, "127.0.0.1", 0) as there:
        place = f"ws://127.0.0.1:{there.sockets[0].getsockname()[1]}/v1"

        def refer(connection: ServerConnection, request: Request) -> Response:
            return Response(301, "Moved", Headers({"Location": place, "Content-Length": "0"}), b"")

        async with serve(greet, "127.0.0.1", 0, process_request=refer) as here:
            socket = await HubSocket.connect(f"ws://127.0.0.1:{here.sockets[0].getsockname()[1]}")
            assert await anext(socket.messages()) == "welcome"
            await socket.close()
