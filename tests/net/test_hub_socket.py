"""The end of the client's WebSocket."""

from __future__ import annotations

import asyncio

from websockets.asyncio.server import ServerConnection, serve

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
