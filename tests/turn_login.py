"""A login at a running TURN server on loopback: ours, or coturn."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from coturn import LOGIN, coturn
from crowline.base.addresses import Address
from crowline.net.relayed_address import TurnAccount
from turn_front import front


@asynccontextmanager
async def account(server: str, folder: Path) -> AsyncIterator[TurnAccount]:
    """`server`: `ours` or `coturn`."""
    if server == "ours":
        async with front() as running:
            yield TurnAccount(running.address, "user", "password")
    else:
        async with coturn(folder) as (plain, _):
            yield TurnAccount(Address("127.0.0.1", plain), *LOGIN)
