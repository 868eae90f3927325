"""A real server on loopback, ports chosen by the kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace

from crowline.base.addresses import Address
from crowline.rendezvous.limits import HubLimits
from crowline.server.config import ServerConfig
from crowline.server.server import Server

LOOPBACK = Address("127.0.0.1", 0)


@asynccontextmanager
async def serving(limits: HubLimits | None = None) -> AsyncIterator[Server]:
    """Generous with rates, since every test comes from the same address."""
    generous = replace(limits or HubLimits(), claims_per_minute=10_000, allocations_per_minute=10_000)
    config = ServerConfig(listen=LOOPBACK, stun_listen=LOOPBACK, limits=generous)
    async with Server(config) as server:
        yield server
