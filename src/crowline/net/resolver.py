"""Names of servers to addresses."""

from __future__ import annotations

import asyncio

from crowline.base.addresses import Address
from crowline.net.name_lookup import look_up

# Addresses of one server that are worth asking: one or two of each family.
_MAX_ADDRESSES = 4
# Seconds for one name. Behind a proxy there may be no name service at all, and streams need none.
LOOKUP_LIMIT = 3.0


async def resolve(servers: list[tuple[str, int]], hub_host: str) -> list[Address]:
    """Addresses of `servers`, in order and without repeats; an empty host stands for `hub_host`.

    A name that does not resolve in time is left out: another server may do, or a stream through a proxy.
    """
    found: list[Address] = []
    for host, port in servers:
        for address in await _lookup(host or hub_host, port):
            if address not in found:
                found.append(address)
    return found


async def _lookup(host: str, port: int) -> list[Address]:
    try:
        return [Address.parse(host, port)]
    except ValueError:
        pass
    try:
        async with asyncio.timeout(LOOKUP_LIMIT):
            hosts = await look_up(host)
    except (OSError, ValueError):
        # No such name, or one that cannot be a name: empty or overlong parts.
        return []
    addresses = dict.fromkeys(Address.parse(each, port) for each in hosts if "%" not in each)
    return list(addresses)[:_MAX_ADDRESSES]
