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
from crowline.rendezvous.role import Role

__all__ = ["room_at_key"]


@asynccontextmanager
async def room_at_key(
    secret: Secret, server: str, *, hosts: bool, relay_only: bool = False, **options: Any
) -> AsyncIterator[Room]:
    """Open a room at `server` for whoever has `secret` too; one side `hosts`, the other does not.

    It does not matter who comes first. `options` as of `host`.
    """
    place = ByKey(server, secret, hides=relay_only, lasts=True)
    role = Role.HOST if hosts else Role.JOIN
    async with opened(Connection(role, Options(server, relay_only, place=place, **options))) as room:
        yield room
