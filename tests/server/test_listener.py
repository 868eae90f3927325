"""The end of a listening socket."""

from __future__ import annotations

import asyncio
import gc
import socket

import pytest

from crowline.base.addresses import Address
from crowline.server.listener import listen, serve, stop_accepting


class Visit(asyncio.Protocol):
    """Notes that somebody came."""

    def __init__(self, visits: list[asyncio.BaseTransport]) -> None:
        self._visits = visits

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._visits.append(transport)


@pytest.mark.parametrize("turns", range(6))
async def test_who_comes_in_the_last_moment_is_let_in_or_turned_away(turns: int) -> None:
    """Whatever the loop was just doing with the connection, none is left to the collector."""
    visits: list[asyncio.BaseTransport] = []
    sock = listen(Address("127.0.0.1", 0))
    server = await serve(sock, lambda: Visit(visits))
    client = socket.create_connection(sock.getsockname(), timeout=30)
    for _ in range(turns):
        await asyncio.sleep(0)
    await stop_accepting([server])
    for transport in visits:
        transport.abort()  # type: ignore[attr-defined]
    await asyncio.sleep(0)
    with client:
        try:
            assert client.recv(1) == b""
        except ConnectionResetError:
            assert not visits
    gc.collect()


async def test_nobody_is_let_in_afterwards() -> None:
    """The socket is closed."""
    sock = listen(Address("127.0.0.1", 0))
    address = sock.getsockname()
    await stop_accepting([await serve(sock, asyncio.Protocol)])
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address, timeout=30)
