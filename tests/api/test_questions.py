"""Servers are asked side by side: none waits for another one's name."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from crowline.api.traversal import questions
from crowline.api.traversal.questions import Questions
from crowline.api.traversal.relay import Login
from crowline.api.traversal.relay_server import RelayServer
from crowline.base.addresses import Address
from crowline.rendezvous.wire import ServerAddress, TurnGrant

QUICK, SLOW = Address("192.0.2.1", 3478), Address("192.0.2.2", 3478)


class Desk:
    """A gatherer that notes what it is to ask, and a name service of which one name is slow."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.asked: list[Address] = []
        self.relays: list[RelayServer] = []
        self.ends = 0
        self.slow_is_found = asyncio.Event()
        monkeypatch.setattr(questions, "resolve", self.resolve)

    async def resolve(self, servers: list[tuple[str, int]], hub_host: str) -> list[Address]:
        [(host, _)] = servers
        if host == "slow.example":
            await self.slow_is_found.wait()
            return [SLOW]
        return [QUICK]

    def query_stun(self, servers: list[Address]) -> None:
        self.asked += servers

    def allocate(self, server: RelayServer, login: Login) -> None:
        self.relays.append(server)

    def asked_all(self) -> None:
        self.ends += 1


def service(host: str, transport: str = "udp") -> Any:
    return ServerAddress(host, 3478, transport)  # type: ignore[arg-type]


async def test_a_slow_name_delays_no_other_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither for mappings nor for relayed addresses; the slow one is asked when it is found."""
    desk = Desk(monkeypatch)
    asking = Questions(desk, "hub.example")  # type: ignore[arg-type]
    asking.stun_servers = [service("slow.example"), service("quick.example")]
    grant = TurnGrant((service("slow.example"), service("quick.example")), "user", "password", 600)
    tasks = [asyncio.create_task(asking.query_stun()), asyncio.create_task(asking.allocate(grant))]
    for _ in range(5):
        await asyncio.sleep(0)
    assert desk.asked == [QUICK]
    assert [each.datagrams for each in desk.relays] == [(QUICK,)]
    assert desk.ends == 0
    desk.slow_is_found.set()
    await asyncio.gather(*tasks)
    assert desk.asked == [QUICK, SLOW]
    assert [each.datagrams for each in desk.relays] == [(QUICK,), (SLOW,)]
    assert desk.ends == 1


async def test_names_of_servers_over_tcp_are_looked_up_side_by_side(monkeypatch: pytest.MonkeyPatch) -> None:
    """Together they take as long as the slowest of them, not as long as all."""
    asked: list[str] = []
    all_asked = asyncio.Event()

    async def resolve(servers: list[tuple[str, int]], hub_host: str) -> list[Address]:
        [(host, port)] = servers
        asked.append(host)
        if len(asked) == 2:
            all_asked.set()
        await all_asked.wait()
        return [Address(host, port)]

    desk = Desk(monkeypatch)
    monkeypatch.setattr(questions, "resolve", resolve)
    asking = Questions(desk, "hub.example")  # type: ignore[arg-type]
    asking.stun_servers = [service("192.0.2.1", "tcp"), service("192.0.2.2", "tcp"), service("192.0.2.3")]
    async with asyncio.timeout(30):
        assert await asking.tcp_servers() == [QUICK, SLOW]


async def test_the_end_is_told_again_after_a_restart(monkeypatch: pytest.MonkeyPatch) -> None:
    """If it has been told before: else more is to come."""
    desk = Desk(monkeypatch)
    asking = Questions(desk, "hub.example")  # type: ignore[arg-type]
    asking.restart()
    assert desk.ends == 0
    await asking.allocate(None)
    asking.restart()
    assert desk.ends == 2


async def test_a_stream_to_a_translated_host_is_pinned_to_its_name(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is dialled is the translated address; the certificate is that of the host that was named."""
    desk = Desk(monkeypatch)
    translated = Address("2001:db8:64::1", 3478)
    asking = Questions(desk, "hub.example", lambda to: to if to.is_ipv6 else translated)  # type: ignore[arg-type]
    grant = TurnGrant((service("192.0.2.9", "tls"), service("192.0.2.9")), "user", "password", 600)
    await asking.allocate(grant)
    [relay] = desk.relays
    assert relay.datagrams == (translated,)
    assert [(each.host, each.name) for each in relay.streams] == [(translated.host, "192.0.2.9")]


async def test_servers_that_have_answered_are_named_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever measures by one server takes the first; services over TCP are none of these."""

    async def resolve(servers: list[tuple[str, int]], hub_host: str) -> list[Address]:
        assert servers == [("silent.example", 3478), ("quick.example", 3478)]
        return [SLOW, QUICK]

    desk = Desk(monkeypatch)
    monkeypatch.setattr(desk, "has_heard", lambda server: server == QUICK, raising=False)
    monkeypatch.setattr(questions, "resolve", resolve)
    asking = Questions(desk, "hub.example")  # type: ignore[arg-type]
    asking.stun_servers = [service("silent.example"), service("quick.example"), service("x.example", "tcp")]
    assert await asking.udp_servers() == [QUICK, SLOW]
