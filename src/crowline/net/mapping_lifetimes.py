"""How long the mappings of this machine's translator live: measured for minutes, idle and in use."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence

from crowline.base.addresses import Address
from crowline.base.nat64 import Nat64Prefix
from crowline.net.fresh_sockets import measured
from crowline.net.nat_discovery import MAX_SERVERS, choose_server, own_host
from crowline.punch.nat_profile import Lifetimes
from crowline.stun.binding_lifetime import WAITS, BindingLifetime, LifetimeFound
from crowline.stun.mapping_watch import BUSY, MappingWatch
from crowline.stun.nat_findings import Reason

LONGEST = max(WAITS[-1], sum(BUSY[0]))
"""Seconds that a measurement takes at most, but for some round trips."""

# Why RESPONSE-PORT told nothing, where asking again may.
_UNTOLD = (Reason.ONE_ADDRESS, Reason.REFUSED, Reason.NOT_CHANGED)


async def measure_lifetimes(
    servers: Sequence[Address],
    *,
    own: str | None = None,
    prefix: Nat64Prefix | None = None,
    waits: Sequence[float] = WAITS,
    busy: Sequence[float] = BUSY[0],
) -> Lifetimes:
    """How long idle and busy UDP mappings live, between `waits` seconds of silence, in at most `LONGEST`.

    `servers`, `own` and `prefix` are those of `discover_nat`; `busy` are the pauses of the socket that is in
    use. Raises `UsageError` and `LocalProblem` as that does.
    """
    host = own_host(servers, own)
    choice = await choose_server(tuple(dict.fromkeys(servers))[:MAX_SERVERS], host, prefix)
    if not choice.answers:
        return Lifetimes(reason=Reason.NO_ANSWER, busy_reason=Reason.NO_ANSWER)
    in_use = MappingWatch(choice.server, (busy,), since_first=True, entropy=os.urandom)
    watching = asyncio.ensure_future(measured(in_use, host))
    try:
        idle = await _idle(choice.server, host, waits)
        used = await watching
    finally:
        watching.cancel()
        await asyncio.wait([watching])
    return Lifetimes(idle.alive, idle.dead, used.alive, used.dead, idle.reason, used.reason)


async def _idle(server: Address, host: str, waits: Sequence[float]) -> LifetimeFound:
    """By RESPONSE-PORT where the server has it, which sees what keeps ports too; else by asking again."""
    found = await measured(BindingLifetime(server, entropy=os.urandom, waits=waits), host)
    if found.reason not in _UNTOLD:
        return found
    silences = [(wait,) for wait in waits]
    return await measured(MappingWatch(server, silences, since_first=False, entropy=os.urandom), host)
