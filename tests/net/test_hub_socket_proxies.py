"""The hub's WebSocket through the proxy that the environment names."""

from __future__ import annotations

import traceback

import pytest
from websockets.asyncio.server import ServerConnection, serve

from crowline.base.errors import ServerUnreachable
from crowline.net.websocket import HubSocket
from small_proxies import connect_proxy, socks_proxy


async def answer(connection: ServerConnection) -> None:
    async for message in connection:
        await connection.send(message)


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "socks_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.mark.parametrize("kind", ["connect", "socks"])
async def test_the_hub_is_reached_through_the_proxy(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Messages go both ways, and the proxy was asked for the hub."""
    make, scheme = (connect_proxy, "http") if kind == "connect" else (socks_proxy, "socks5h")
    async with make() as proxy, serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("ALL_PROXY", f"{scheme}://127.0.0.1:{proxy.port}")
        socket = await HubSocket.connect(f"ws://127.0.0.1:{port}")
        try:
            socket.send("hello")
            assert await anext(socket.messages()) == "hello"
        finally:
            await socket.close()
        assert proxy.targets == [("127.0.0.1", port)]


@pytest.mark.parametrize("kind", ["connect", "socks"])
async def test_a_proxy_that_says_no_is_an_unreachable_server(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One kind of error, whatever stands in the way."""
    make, scheme = (connect_proxy, "http") if kind == "connect" else (socks_proxy, "socks5")
    async with make() as proxy:
        proxy.refuses = True
        monkeypatch.setenv("HTTP_PROXY", f"{scheme}://127.0.0.1:{proxy.port}")
        with pytest.raises(ServerUnreachable):
            await HubSocket.connect("ws://192.0.2.1:8080")


async def test_a_proxy_that_cannot_be_is_said_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither in the sentence nor in what led to it."""
    monkeypatch.setenv("ALL_PROXY", "ftp://user:hunter2@127.0.0.1:1")
    with pytest.raises(ServerUnreachable) as caught:
        await HubSocket.connect("ws://192.0.2.1:8080")
    assert "127.0.0.1" in caught.value.message
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))


async def test_the_hub_is_reached_by_the_names_of_socks_that_desktops_use(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """``socks://`` is what GNOME writes into ALL_PROXY."""
    async with socks_proxy() as proxy, serve(answer, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        monkeypatch.setenv("ALL_PROXY", f"socks://127.0.0.1:{proxy.port}/")
        socket = await HubSocket.connect(f"ws://127.0.0.1:{port}")
        await socket.close()
        assert proxy.targets == [("127.0.0.1", port)]
