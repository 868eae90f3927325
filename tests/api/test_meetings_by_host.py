"""Two sides that name each other's host and port, in one process on loopback."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any

import pytest

import crowline
from crowline.api.direct_point import Direct
from crowline.api.serverless import host_towards, join_from
from crowline.rendezvous.datagram_stream import MAGIC

Rooms = tuple[crowline.Room, crowline.Room]


def free_port() -> int:
    """One that nobody has at the moment."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


@asynccontextmanager
async def rooms(host_password: str = "", join_password: str = "") -> AsyncIterator[Rooms]:
    """Both sides, each at a port of its own; another try where somebody was quicker to take one."""
    async with AsyncExitStack() as stack:
        for _ in range(10):
            host, join = free_port(), free_port()
            try:
                here = await stack.enter_async_context(
                    host_towards("127.0.0.1", join, password=host_password, local_port=host)
                )
                there = await stack.enter_async_context(
                    join_from("127.0.0.1", host, password=join_password, local_port=join)
                )
            except crowline.LocalProblem:
                continue
            yield here, there
            return
        pytest.fail("no port is free")


async def test_two_sides_meet_and_bytes_flow() -> None:
    """By nothing but the two addresses; the words are the same, and both are warned that nobody is proven."""
    data = os.urandom(1_000_000)
    async with asyncio.timeout(60), rooms() as (here, there):
        warnings: list[str] = []
        here.on_warning(warnings.append)
        host, join = await asyncio.gather(here.peer(), there.peer())
        assert host.words == join.words and len(host.words) == 4
        stream = await host.open_stream()
        await stream.write(data)
        await stream.close()
        assert await (await join.accept_stream()).readexactly(len(data)) == data
        assert host.carried["hub"] == host.carried["relay"] == 0
        assert any("Compare the words" in each for each in warnings)


async def test_the_other_side_may_come_late() -> None:
    """A hub drops who connects and says nothing: the hosting side connects when there is something to say."""
    async with asyncio.timeout(60), rooms() as (here, there):
        point: Any = here._connection._hub
        assert not point._hub._sinks and not point._hub._hub._visitors
        await asyncio.gather(here.peer(), there.peer())
        assert len(point._hub._sinks) == 2


async def test_a_password_proves_both_sides() -> None:
    """The same one, however its letters are composed; no warning then."""
    async with asyncio.timeout(60), rooms("caf\u00e9", "cafe\u0301") as (here, there):
        warnings: list[str] = []
        there.on_warning(warnings.append)
        host, join = await asyncio.gather(here.peer(), there.peer())
        assert host.words == join.words and not any("Compare" in each for each in warnings)


@pytest.mark.parametrize("passwords", [("maple", "orbit"), ("maple", ""), ("", "orbit")])
async def test_different_passwords_fail_on_both_sides(passwords: tuple[str, str]) -> None:
    """One guess, and both are told; none means no other than none."""
    async with asyncio.timeout(60):
        with pytest.raises(crowline.WrongCode):
            async with rooms(*passwords) as (here, there):
                outcomes = await asyncio.gather(here.peer(), there.peer(), return_exceptions=True)
                assert all(isinstance(each, crowline.WrongCode) for each in outcomes), outcomes
                assert "password" in str(outcomes[0])
                raise outcomes[0]  # type: ignore[misc]


async def test_nobody_there_is_said_after_the_time_given() -> None:
    """Not that the server is gone: there is none."""
    async with asyncio.timeout(60):
        for _ in range(10):
            try:
                with pytest.raises(crowline.NobodyCame):
                    async with join_from(
                        "127.0.0.1", free_port(), local_port=free_port(), timeout=0.3
                    ) as room:
                        await room.peer()
                return
            except crowline.LocalProblem:
                continue
        pytest.fail("no port is free")


async def test_a_side_that_leaves_before_the_meeting_is_said_to_have_left() -> None:
    """Whoever waits for it does not wait on, and no server is blamed; in either direction."""
    for leaves_first in (0, 1):
        async with asyncio.timeout(60), rooms("maple", "maple") as pair:
            connection = pair[leaves_first]._connection
            point: Any = connection._hub
            point._channel._meeting.receive = lambda *_: None
            await asyncio.wait({point._messages.opened})
            await connection.close()
            with pytest.raises(crowline.NobodyCame, match="went away"):
                await pair[1 - leaves_first].peer()


async def test_a_port_that_is_taken_is_a_local_problem() -> None:
    """Said at once, with the exit code of one."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        with pytest.raises(crowline.LocalProblem):
            async with host_towards("127.0.0.1", 4000, local_port=sock.getsockname()[1]):
                pass


@pytest.mark.parametrize("name", ["no-such-host.invalid", "x" * 300, "", "44.1.1.1.1"])
async def test_a_name_without_an_address_is_refused(name: str) -> None:
    """With a sentence, whatever the name server makes of it."""
    async with asyncio.timeout(60):
        with pytest.raises(crowline.UsageError):
            async with host_towards(name):
                pass


@pytest.mark.parametrize("port", [0, 22, 65536])
def test_ports_of_services_are_refused(port: int) -> None:
    """Nobody is sent openers at a port where a service listens, nor at one that is none."""
    with pytest.raises(crowline.UsageError):
        Direct("192.0.2.1", port)


async def test_whoever_floods_the_port_from_the_named_host_does_not_hinder_the_meeting() -> None:
    """Forged openers, cut ones and noise: without this side's id they open nothing."""
    async with asyncio.timeout(60), rooms("maple", "maple") as (here, there):
        [local] = set(here._connection._traversal._gatherer.adopted())  # type: ignore[union-attr]
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as attacker:
            attacker.bind(("127.0.0.1", 0))
            for size in (4, 5, 29, 30, 900):
                for _ in range(20):
                    attacker.sendto(MAGIC + os.urandom(size - 4), (local.host, local.port))
            host, join = await asyncio.gather(here.peer(), there.peer())
        assert host.words == join.words
