"""Rooms for two sides that met before and kept a secret: nobody types a code."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crowline.api.connection import Connection
from crowline.api.key_point import ByKey
from crowline.api.options import Options
from crowline.api.room import Room, opened
from crowline.base.secrets import Secret
from crowline.rendezvous.code import Code
from crowline.rendezvous.role import Role

__all__ = ["enter_at_key", "host_at_key"]


@asynccontextmanager
async def host_at_key(
    secret: Secret, server: str, *, code: str = "", relay_only: bool = False, **options: Any
) -> AsyncIterator[Room]:
    """Open a room for whoever has `secret` and calls `enter_at_key` at the same `server`.

    `code` is what the room's `code` says, such as that of the first meeting. `options` as of `host`.
    """
    place = ByKey(server, secret, hides=relay_only)
    parsed = Code.parse(code) if code else None
    connection = Connection(Role.HOST, Options(server, relay_only, place=place, **options), parsed)
    async with opened(connection) as room:
        yield room


@asynccontextmanager
async def enter_at_key(
    secret: Secret, server: str, *, relay_only: bool = False, **options: Any
) -> AsyncIterator[Room]:
    """The other side of `host_at_key`; it does not matter who comes first."""
    place = ByKey(server, secret, hides=relay_only)
    async with opened(Connection(Role.JOIN, Options(server, relay_only, place=place, **options))) as room:
        yield room
