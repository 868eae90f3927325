"""A front with worker processes on loopback, for tests."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import turn_front
from crowline.base.addresses import Address
from crowline.server.front import StunTurnFront
from crowline.stun.message import Message, MessageClass, Method
from turn_front import client_of
from turn_socket import SocketClient

PEER_HOST = "127.0.0.2"
LOGIN = ("-u", "user", "-w", "password")


def front(*listen: Address, **options: Any) -> AbstractAsyncContextManager[StunTurnFront]:
    return turn_front.front(*listen, **({"workers": 2} | options))


def home_of(running: StunTurnFront, relayed: Address) -> int:
    """The worker that has the allocation of a relayed address."""
    pool = vars(running)["_pool"]
    placements = vars(pool)["_placements"].values()
    home: int = next(each.home for each in placements if relayed in each.relays)
    return home


@asynccontextmanager
async def client_in_each(running: StunTurnFront, user: str = "mailbox") -> AsyncIterator[list[SocketClient]]:
    """A client with an allocation in worker 0 and one in worker 1."""
    found: dict[int, SocketClient] = {}
    async with AsyncExitStack() as stack:
        while len(found) < 2:
            client = await stack.enter_async_context(client_of(running, user))
            relayed = (await client.allocate()).relayed
            if found.setdefault(home_of(running, relayed), client) is not client:
                await client.close()
        yield [found[0], found[1]]


def relayed_of(client: SocketClient) -> Address:
    assert client.client.relayed is not None
    return client.client.relayed


def binding() -> bytes:
    return Message(Method.BINDING, MessageClass.REQUEST, os.urandom(12), ()).encode()
