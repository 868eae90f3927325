"""Two sides of a meeting that share a secret, through a real server on loopback."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

import crowline
from crowline.api.connection import Connection
from crowline.api.key_point import ByKey
from crowline.api.options import Options
from crowline.api.presence import who_waits
from crowline.api.room import opened
from crowline.base.errors import Interrupted, NobodyCame, ServerUnreachable
from crowline.base.secrets import Secret
from crowline.rendezvous.role import Role
from crowline.server.server import Server
from serving import serving


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    async with serving() as running:
        yield running


def at_key(role: Role, server: Server, secret: Secret, **options: float) -> Connection:
    return Connection(role, Options(server.url, place=ByKey(server.url, secret), **options))  # type: ignore[arg-type]


async def until_there(server: Server, secret: Secret, roles: set[Role]) -> None:
    async with asyncio.timeout(30):
        found = await who_waits(server.url, [secret])
        while found != [frozenset(roles)]:
            await asyncio.sleep(0.02)
            found = await who_waits(server.url, [secret])


@pytest.mark.parametrize("first", list(Role))
async def test_sides_meet_without_a_code(server: Server, first: Role) -> None:
    """Whoever comes first is seen to wait; both have the same words, and bytes flow."""
    secret = Secret(os.urandom(32))
    async with opened(at_key(first, server, secret)) as here:
        await until_there(server, secret, {first})
        async with opened(at_key(first.other, server, secret)) as there:
            one, other = await asyncio.gather(here.peer(), there.peer())
            assert one.words == other.words and one.words
            stream = await one.open_stream()
            await stream.write(b"still here\n")
            assert await (await other.accept_stream()).readline() == b"still here\n"
            await until_there(server, secret, set(Role))


async def test_who_waits_is_asked_for_many_at_once(server: Server) -> None:
    """More names than fit in one question, in their order."""
    secrets = [Secret(os.urandom(32)) for _ in range(130)]
    async with opened(at_key(Role.JOIN, server, secrets[100])):
        await until_there(server, secrets[100], {Role.JOIN})
        found = await who_waits(server.url, secrets)
        assert [index for index, roles in enumerate(found) if roles] == [100]
    assert await who_waits(server.url, []) == []


async def test_nobody_is_asked_who_is_not_there() -> None:
    """Without a server there is an error and no guess."""
    with pytest.raises(ServerUnreachable):
        await who_waits("ws://127.0.0.1:9", [bytes(32)])


async def test_the_other_side_may_not_come(server: Server) -> None:
    """After the given time there is the usual error."""
    async with opened(at_key(Role.HOST, server, Secret(bytes(32)), timeout=0.1)) as room:
        with pytest.raises(NobodyCame):
            await room.peer()


async def test_a_later_program_takes_the_place_of_an_earlier_one(server: Server) -> None:
    """The earlier one ends with a sentence about that."""
    secret = Secret(os.urandom(32))
    async with opened(at_key(Role.HOST, server, secret)) as earlier:
        await until_there(server, secret, {Role.HOST})
        async with opened(at_key(Role.HOST, server, secret)) as later:
            with pytest.raises(Interrupted, match="Another program"):
                await earlier.peer()
            async with opened(at_key(Role.JOIN, server, secret)) as other:
                await asyncio.gather(later.peer(), other.peer())


async def test_a_secret_comes_from_a_meeting_by_code(server: Server) -> None:
    """Both sides of one meeting derive the same, and meet again by it."""
    async with crowline.host(server.url) as room, crowline.join(room.code, server.url) as there:
        here = await room.peer()
        one, other = here._connection.key, there._connection.key
        assert one is not None and other is not None and one.reveal() == other.reveal()
    async with (
        opened(at_key(Role.HOST, server, one)) as again,
        opened(at_key(Role.JOIN, server, other)) as back,
    ):
        await asyncio.gather(again.peer(), back.peer())
