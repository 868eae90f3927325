"""A STUN and TURN front on loopback, for tests."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.secrets import Secret
from crowline.server.front import StunTurnFront

SECRET = Secret(b"secret of a test")
HOME = Address("127.0.0.1", 0)
USERS = {"user": Secret(b"password")}


@asynccontextmanager
async def front(*listen: Address, **options: Any) -> AsyncIterator[StunTurnFront]:
    """On 127.0.0.1 at a port of the kernel's choice, with loopback peers allowed as on no real server."""
    defaults = {
        "secret": SECRET,
        "permits": lambda user, peer: True,
        "policy": AddressPolicy(allow_loopback=True),
        "users": USERS,
    }
    running = StunTurnFront(listen or (HOME,), **(defaults | options))
    await running.start()
    try:
        yield running
    finally:
        await running.close()
