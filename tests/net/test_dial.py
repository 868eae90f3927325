"""Reaching a host whose network comes and goes."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable

import pytest

from crowline.net import dial as dialling
from crowline.net.dial import dial

Outcome = Callable[[], Awaitable[None]]


async def hang() -> None:
    """Nothing ever comes back."""
    await asyncio.Event().wait()


async def refuse() -> None:
    raise ConnectionRefusedError


async def connect() -> None:
    return


class Network:
    """What becomes of each attempt, by host and in order; the last one from then on."""

    def __init__(self, outcomes: dict[str, list[Outcome]]) -> None:
        self.tried: list[str] = []
        self.made: list[socket.socket] = []
        self._outcomes = outcomes

    async def look_up(self, name: str) -> list[str]:
        return list(self._outcomes)

    async def attempt(self, host: str, port: int) -> socket.socket:
        self.tried.append(host)
        outcomes = self._outcomes[host]
        await (outcomes.pop(0) if len(outcomes) > 1 else outcomes[0])()
        self.made.append(socket.socket())
        return self.made[-1]


@pytest.fixture
def network(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Network]:
    def make(**outcomes: list[Outcome]) -> Network:
        made = Network(outcomes)
        monkeypatch.setattr(dialling, "look_up", made.look_up)
        monkeypatch.setattr(dialling, "_attempt", made.attempt)
        monkeypatch.setattr(dialling, "NEXT_ADDRESS", 0.001)
        monkeypatch.setattr(dialling, "ONCE_MORE", 0.002)
        return made

    return make


async def test_a_host_is_reached() -> None:
    """By a real connection."""
    server = socket.create_server(("127.0.0.1", 0))
    with server, await dial("127.0.0.1", server.getsockname()[1]) as sock:
        assert sock.getpeername() == server.getsockname() and not sock.getblocking()


async def test_a_host_that_refuses_says_so_at_once() -> None:
    """Nothing is tried again then."""
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        with pytest.raises(ConnectionRefusedError):
            await dial("127.0.0.1", nobody.getsockname()[1])


async def test_a_network_that_is_back_is_noticed_by_another_attempt(network: Callable[..., Network]) -> None:
    """The first attempts are lost, and wait for answers that never come."""
    net = network(a=[hang, hang, hang, connect])
    with await dial("host", 80) as sock:
        assert [sock] == net.made and net.tried == ["a"] * 4


async def test_addresses_are_tried_in_turn(network: Callable[..., Network]) -> None:
    """One that leads nowhere does not hold up the others."""
    net = network(a=[hang], b=[hang, connect])
    with await dial("host", 80):
        assert net.tried == ["a", "b", "a", "b"]


async def test_one_address_that_refuses_is_not_all_of_them(network: Callable[..., Network]) -> None:
    """It is tried no more; when all have, the last one's word is the answer."""
    net = network(a=[refuse], b=[hang, hang, connect])
    with await dial("host", 80):
        assert net.tried == ["a", "b", "b", "b"]
    network(a=[refuse], b=[hang, refuse])
    with pytest.raises(ConnectionRefusedError):
        await dial("host", 80)


async def test_of_two_connections_one_is_kept(network: Callable[..., Network]) -> None:
    """Also where both came about in the same moment, and where nobody waits any more."""
    gate = asyncio.Event()

    async def wait() -> None:
        await gate.wait()

    net = network(a=[wait], b=[wait])
    dialing = asyncio.create_task(dial("host", 80))
    while len(net.tried) < 4:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    gate.set()
    with await dialing as sock:
        assert [each for each in net.made if each.fileno() >= 0] == [sock]
    net = network(a=[hang])
    dialing = asyncio.create_task(dial("host", 80))
    while not net.tried:  # noqa: ASYNC110
        await asyncio.sleep(0.001)
    dialing.cancel()
    await asyncio.gather(dialing, return_exceptions=True)
    assert dialing.cancelled() and not net.made
