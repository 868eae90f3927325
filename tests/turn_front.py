"""A STUN and TURN front on loopback, for tests."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.secrets import Secret
from crowline.server.front import StunTurnFront
from crowline.turn.auth import issue_credentials
from turn_socket import SocketClient, turn_client

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


def credentials(user: str = "mailbox") -> tuple[str, str]:
    return issue_credentials(SECRET, user, int(time.time()) + 3600)


def client_of(running: StunTurnFront, user: str = "mailbox") -> AbstractAsyncContextManager[SocketClient]:
    """A client of the front's first address, by IPv4 where that is a wildcard."""
    address = running.address
    is_wildcard = address.host in ("0.0.0.0", "::")
    return turn_client(Address("127.0.0.1", address.port) if is_wildcard else address, *credentials(user))
