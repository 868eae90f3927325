"""Connections to hosts that are none of ours: which address is taken, and that no other stays open."""

from __future__ import annotations

import asyncio
import socket

import pytest

from crowline.net import local_tcp


class Dials:
    """Sockets that are told apart by their host; each is `connected` when it is said to be."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sockets: dict[str, socket.socket] = {}
        self.outcomes: dict[str, asyncio.Future[None]] = {}
        self._begun = asyncio.Condition()
        monkeypatch.setattr(local_tcp, "_dial", self._dial)
        monkeypatch.setattr(local_tcp, "_ATTEMPT_DELAY", 0.0)

    async def _dial(self, host: str, port: int) -> socket.socket:
        async with self._begun:
            self.outcomes[host] = asyncio.get_running_loop().create_future()
            self._begun.notify_all()
        await self.outcomes[host]
        self.sockets[host] = socket.socket()
        return self.sockets[host]

    async def begun(self, count: int) -> None:
        async with self._begun, asyncio.timeout(30):
            await self._begun.wait_for(lambda: len(self.outcomes) == count)


async def test_of_two_that_connect_at_once_one_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one that nobody uses."""
    dials = Dials(monkeypatch)
    connecting = asyncio.ensure_future(local_tcp.connect(["192.0.2.1", "192.0.2.2", "192.0.2.3"], 80))
    await dials.begun(3)
    for host in ("192.0.2.1", "192.0.2.2"):
        dials.outcomes[host].set_result(None)
    conduit = await connecting
    assert sorted(each.fileno() < 0 for each in dials.sockets.values()) == [False, True]
    assert dials.outcomes["192.0.2.3"].cancelled()
    conduit.close()


async def test_one_address_that_refuses_is_not_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only when none is left does it raise, what the last one said."""
    dials = Dials(monkeypatch)
    connecting = asyncio.ensure_future(local_tcp.connect(["192.0.2.1", "192.0.2.2"], 80))
    await dials.begun(2)
    dials.outcomes["192.0.2.1"].set_exception(ConnectionRefusedError())
    dials.outcomes["192.0.2.2"].set_exception(TimeoutError())
    with pytest.raises(TimeoutError):
        await connecting


async def test_a_connection_that_comes_as_the_waiting_ends_is_not_lost() -> None:
    """Whoever waits next has it."""
    listener = local_tcp.TcpListener("127.0.0.1", 0)
    waiting = asyncio.ensure_future(listener.accept())
    await asyncio.sleep(0)
    with socket.create_connection(("127.0.0.1", listener.address.port)) as program:
        # The loop has seen it, and the task not yet.
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        waiting.cancel()
        (ended,) = await asyncio.gather(waiting, return_exceptions=True)
        assert isinstance(ended, asyncio.CancelledError)
        conduit, source = await asyncio.wait_for(listener.accept(), 30)
        assert source.port == program.getsockname()[1]
        conduit.close()
    listener.close()
