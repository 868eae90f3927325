"""Servers, portals and routers that would have the doctor wait, believe or print what it should not."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from crowline.api.doctor import checks as doctor_checks
from crowline.api.doctor.examination import examine
from crowline.api.port_mapping.router_report import RouterReport
from crowline.cli.output import printable
from crowline.diagnosis.diagnosis import diagnose
from crowline.diagnosis.facts import FirewallFacts, Portal, RouterFacts
from crowline.diagnosis.report import to_fields, to_lines
from crowline.diagnosis.verdict import Verdict
from crowline.rendezvous import wire
from diagnosed_places import facts_of

LIMIT = 30.0  # seconds: what has to happen takes one or two
Talk = Callable[[ServerConnection], Coroutine[Any, Any, None]]


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing outside of this machine is asked."""

    async def no_routers(timeout: float) -> list[RouterReport]:
        return []

    async def no_firewalls() -> tuple[FirewallFacts, ...]:
        return ()

    monkeypatch.setattr(doctor_checks, "look_at_routers", no_routers)
    monkeypatch.setattr(doctor_checks, "local_firewalls", no_firewalls)
    for name in ("HTTP_PROXY", "ALL_PROXY", "SOCKS_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@asynccontextmanager
async def hub(talk: Talk) -> AsyncIterator[str]:
    """A WebSocket server that talks so to whoever comes; its URL."""
    async with serve(talk, "127.0.0.1", 0) as server:
        yield f"ws://127.0.0.1:{next(iter(server.sockets)).getsockname()[1]}"


@asynccontextmanager
async def dripping(first: bytes, again: bytes) -> AsyncIterator[str]:
    """A server that says a little, and then a little more, for ever."""

    async def drip(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            writer.write(first)
            while not reader.at_eof():
                writer.write(again)
                await writer.drain()
                with suppress(TimeoutError):
                    await asyncio.wait_for(reader.read(4096), 0.01)
        writer.close()

    server = await asyncio.start_server(drip, "127.0.0.1", 0)
    try:
        yield f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        await server.wait_closed()


async def test_a_page_that_never_ends_costs_its_share_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A byte now and then keeps nobody waiting for more than the limit of the check."""
    monkeypatch.setattr(doctor_checks, "PORTAL_LIMIT", 0.3)
    started = time.monotonic()
    async with dripping(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n") as url:
        found = await examine(url, limit=2.0)
    assert time.monotonic() - started < LIMIT
    assert found.diagnosis.verdict is Verdict.NO_SERVER
    assert found.facts.portal.portal is Portal.UNKNOWN


@pytest.mark.parametrize(
    "first",
    [
        b"\x00" * 100,
        "nonsense",
        '{"t":"welcome","v":999}',
        '{"t":"welcome"}',
        '{"t":"pong"}',
        wire.encode(wire.Error("full")).decode(),
        "x" * (wire.MAX_MESSAGE + 1),
    ],
)
async def test_a_hub_that_does_not_welcome_is_none(first: str | bytes) -> None:
    """It is said, and nothing that it says is used."""

    async def talk(connection: ServerConnection) -> None:
        await connection.send(first)
        await connection.wait_closed()

    async with hub(talk) as url:
        found = await examine(url, limit=LIMIT)
    assert found.diagnosis.verdict is Verdict.NO_SERVER
    assert found.facts.server.problem.startswith("What answers there is not a Crowline server")


@pytest.mark.parametrize("takes_tcp", [False, True])
async def test_stun_servers_that_nobody_is_behind_are_silence(takes_tcp: bool) -> None:
    """However many a hub names, and whatever their names: it ends, and says that UDP is silent. Of TCP that
    says something only where the hub promised it.
    """
    names = ["127.0.0.1"] * 4 + ["a..b", "x" * 250]
    stun = tuple(wire.ServerAddress(name, 1 + number) for number, name in enumerate(names))
    if takes_tcp:
        stun = (*stun, wire.ServerAddress("127.0.0.1", 1, "tcp"))

    async def talk(connection: ServerConnection) -> None:
        await connection.send(wire.encode(wire.Welcome(wire.VERSION, stun)).decode())
        await connection.wait_closed()

    async with hub(talk) as url:
        found = await examine(url, limit=LIMIT)
    assert found.facts.server.is_reached
    assert found.diagnosis.verdict is Verdict.UDP_BLOCKED
    assert found.facts.tcp is (False if takes_tcp else None)


async def test_the_last_port_has_no_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the ports that a hub names the next one is asked, where there is one."""
    asked: list[int] = []

    async def note(host: str, ports: Sequence[int]) -> tuple[int, ...]:
        asked.extend(ports)
        return tuple(ports)

    async def talk(connection: ServerConnection) -> None:
        stun = (wire.ServerAddress("127.0.0.1", 65535),)
        await connection.send(wire.encode(wire.Welcome(wire.VERSION, stun)).decode())
        await connection.wait_closed()

    monkeypatch.setattr(doctor_checks, "answering_ports", note)
    async with hub(talk) as url:
        found = await examine(url, limit=LIMIT)
    assert asked == [65535]
    assert found.facts.ports.silent == ()


async def test_a_hub_that_answers_no_ping_has_welcomed_all_the_same() -> None:
    """Its distance stays unknown, and nobody waits for its goodbye."""
    gone = asyncio.Event()

    async def talk(connection: ServerConnection) -> None:
        await connection.send(wire.encode(wire.Welcome(wire.VERSION)).decode())
        connection.transport.pause_reading()
        await gone.wait()
        connection.transport.abort()

    async with hub(talk) as url:
        found = await examine(url, limit=3.0)
        gone.set()
    assert found.facts.server.is_reached
    assert found.facts.server.round_trip is None
    assert found.facts.left_out == ()
    assert found.diagnosis.verdict is Verdict.RELAY_NEEDED


@pytest.mark.parametrize(
    "outside", ["", "x" * 10_000, "\x1b[31m", "::1", "127.0.0.1", "169.254.169.254", "0.0.0.0"]
)
def test_whatever_a_router_says_of_itself_is_only_words(outside: str) -> None:
    """An outside address that is none raises nothing, and what is shown cannot move a cursor."""
    facts = replace(facts_of("home"), routers=(RouterFacts("192.168.1.1", ("UPnP",), outside),))
    diagnosis = diagnose(facts)
    json.dumps(to_fields(facts, diagnosis, 0.1))
    shown = "".join(printable(text) for _, text in to_lines(facts, diagnosis, 0.1))
    assert "\x1b" not in shown


def test_a_router_with_a_false_address_promises_no_open_port() -> None:
    """Servers see another one: what it opens leads elsewhere."""
    facts = replace(facts_of("symmetric"), routers=(RouterFacts("192.168.1.1", ("UPnP",), "8.8.8.8"),))
    assert not facts.opens_ports
    assert diagnose(facts).reach < 1.0
