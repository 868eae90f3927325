"""Meetings without a server: by two tokens, by naming each other's host, or in one network by a code."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from crowline.api.connection import Connection
from crowline.api.direct_point import DEFAULT_PORT, Direct
from crowline.api.lan_point import OnLan
from crowline.api.meeting_point import Place
from crowline.api.options import Options
from crowline.api.room import Room, opened
from crowline.api.token_point import ByTokens
from crowline.base.errors import UsageError
from crowline.rendezvous.code import Code
from crowline.rendezvous.role import Role
from crowline.rendezvous.token import PREFIX, Token
from crowline.rendezvous.wire import ServerAddress

__all__ = [
    "TOKEN_PREFIX",
    "check_token",
    "host_by_token",
    "host_on_lan",
    "host_towards",
    "join_by_token",
    "join_from",
    "join_on_lan",
]

TOKEN_PREFIX = PREFIX
"""How each token begins."""


def check_token(text: str) -> str:
    """The token in what a person pasted, in its usual form. Raises `WrongCode` where there is none."""
    return str(Token.parse(text))


@asynccontextmanager
async def host_by_token(
    *, stun: Sequence[str] = (), loopback: bool = False, **options: Any
) -> AsyncIterator[Room]:
    """Open a room whose `code` is a token for the other side; call `Room.answer` with what that gives back.

    `stun`: servers (``HOST:PORT``) that are asked under which address they see this machine; none is without.
    `loopback`: the other side is on this machine. `options` as of `host`, but those that need a server.
    """
    maps = options.get("port_mapping", True)
    place = ByTokens(stun=_servers(stun), maps=maps, loopback=loopback)
    async with _ready(Role.HOST, place, options) as room:
        yield room


@asynccontextmanager
async def join_by_token(
    token: str, *, stun: Sequence[str] = (), loopback: bool = False, **options: Any
) -> AsyncIterator[Room]:
    """The other side of `host_by_token`: the room's `code` is the token to give back.

    Raises `WrongCode` for a text that is no such token.
    """
    maps = options.get("port_mapping", True)
    place = ByTokens(token, stun=_servers(stun), maps=maps, loopback=loopback)
    async with _ready(Role.JOIN, place, options) as room:
        yield room


@asynccontextmanager
async def host_towards(
    host: str, port: int = DEFAULT_PORT, *, password: str = "", local_port: int | None = None, **options: Any
) -> AsyncIterator[Room]:
    """Open a room for whoever is at `host` (its public address) and calls `join_from` with this side's.

    Both sides bind `port` and need translators that keep it, or none. Without `password` whoever answers from
    there is taken for the other side. `local_port`: this side's where it differs. `options` as of `host`, but
    those that need a server.
    """
    place = Direct(host, port, password=password, local_port=local_port)
    async with opened(Connection(Role.HOST, Options("", place=place, **options))) as room:
        yield room


@asynccontextmanager
async def join_from(
    host: str, port: int = DEFAULT_PORT, *, password: str = "", local_port: int | None = None, **options: Any
) -> AsyncIterator[Room]:
    """The other side of `host_towards`."""
    place = Direct(host, port, password=password, local_port=local_port)
    async with opened(Connection(Role.JOIN, Options("", place=place, **options))) as room:
        yield room


@asynccontextmanager
async def host_on_lan(*, loopback: bool = False, **options: Any) -> AsyncIterator[Room]:
    """Open a room whose code works in this network alone; `join` finds it there, as does `join_on_lan`."""
    async with _ready(Role.HOST, OnLan(loopback=loopback), options) as room:
        yield room


@asynccontextmanager
async def join_on_lan(code: str, *, loopback: bool = False, **options: Any) -> AsyncIterator[Room]:
    """Meet whoever made `code` in this network, and ask no server. Raises what `join` does."""
    connection = Connection(
        Role.JOIN, Options("", place=OnLan(loopback=loopback), **options), Code.parse(code)
    )
    async with opened(connection) as room:
        yield room


@asynccontextmanager
async def _ready(role: Role, place: Place, options: dict[str, Any]) -> AsyncIterator[Room]:
    connection = Connection(role, Options("", place=place, **options))
    async with opened(connection) as room:
        await asyncio.shield(connection.code_ready)
        yield room


def _servers(names: Sequence[str]) -> list[ServerAddress]:
    """Raises `UsageError` for a name that is none."""
    found = []
    for name in names:
        host, _, port = name.rpartition(":")
        if not host or not port.isdigit() or not 0 < int(port) < 65536:
            raise UsageError(f"{name} is no server.", hint="It looks like stun.example.org:3478.")
        found.append(ServerAddress(host.strip("[]"), int(port)))
    return found
