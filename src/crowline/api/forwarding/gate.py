"""What the other side may have from this one: written down before, or agreed to when it asks."""

from __future__ import annotations

import asyncio
import ipaddress
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import replace
from typing import TypeAlias

import msgspec

from crowline.api.forwarding.talk import NotReached
from crowline.forward.messages import Arrived, Connect, Head, Listen, Reach, Reason, Request, Roam
from crowline.forward.permits import ALL_PORTS, Permit, Permits, is_open, says_where
from crowline.forward.rules import LOOPBACK, Remote, Target
from crowline.net.name_lookup import look_up

Consent: TypeAlias = Callable[[Request], Awaitable[bool]]
# Seconds for one name.
_LOOKUP_LIMIT = 5.0
# Times that a person says no before nothing more is asked.
_MOST_REFUSALS = 3


class Gate:
    """`permits`: what may be reached from here; `listens`: where may be listened here. `consent` is asked for
    what neither covers. `remotes`: rules of this side for which the other one listens, by number.
    """

    def __init__(self, permits: Iterable[Permit], listens: Iterable[Permit], consent: Consent) -> None:
        self.remotes: dict[int, Remote] = {}
        self._permits = Permits(permits)
        self._listens = list(listens)
        self._consent = consent
        self._granted: dict[int, tuple[Request, Permits]] = {}
        self._refusals = 0

    async def decide(self, request: Request) -> bool:
        """Whether the other side's request is granted."""
        permits = self._permits
        if not await self._is_covered(request):
            agreed = await self._ask(request) if self._refusals < _MOST_REFUSALS else []
            if not agreed:
                return False
            permits = Permits(agreed)
        self._granted[request.rule] = request, permits
        return True

    async def lead(self, head: Head) -> tuple[Target, list[str]]:
        """Where a connection of the other side leads, and the addresses at which that may be reached.

        Raises `NotReached`.
        """
        if isinstance(head, Arrived):
            rule = self.remotes.get(head.rule)
            if rule is None or (rule.transport == "udp") != (head.flow is not None):
                raise NotReached(Reason.NOT_ALLOWED)
            return rule.target, await addresses_of(rule.target.host)
        request, permits = self._granted_to(head)
        named = head if isinstance(request, Roam) else request
        target = Target(named.host, named.port)
        addresses = permits.choose(target.host, target.port, await addresses_of(target.host))
        if not addresses:
            raise NotReached(Reason.NOT_ALLOWED)
        return target, addresses

    def roaming(self, head: Head) -> Permits | None:
        """What a flow may reach that names a host in each datagram; None where `head` is none of these."""
        request, permits = self._granted.get(head.rule, (None, self._permits))
        is_flow = isinstance(head, Connect) and head.transport == "udp" and head.flow is not None
        return permits if is_flow and isinstance(request, Roam) else None

    def _granted_to(self, head: Connect) -> tuple[Reach | Roam, Permits]:
        request, permits = self._granted.get(head.rule, (None, self._permits))
        fits = isinstance(request, Roam) or (
            isinstance(request, Reach) and request.transport == head.transport
        )
        if not fits or (head.transport == "udp") != (head.flow is not None):
            raise NotReached(Reason.NOT_ALLOWED)
        assert isinstance(request, Reach | Roam)
        return request, permits

    async def _is_covered(self, request: Request) -> bool:
        if isinstance(request, Roam):
            return bool(self._permits)
        if isinstance(request, Listen):
            host = LOOPBACK if request.host in ("", "localhost") else request.host
            return any(each.allows_listening(host, request.port) for each in self._listens)
        if not self._permits:
            return False
        try:
            addresses = await addresses_of(request.host)
        except NotReached:
            return False
        return bool(self._permits.choose(request.host, request.port, addresses))

    async def _ask(self, request: Request) -> list[Permit]:
        """What a person agrees to; nothing where they say no."""
        if not await self._consent(request):
            self._refusals += 1
            return []
        if isinstance(request, Roam):
            return [Permit("*", ALL_PORTS)]
        exactly = Permit.exactly(request.host, request.port)
        if isinstance(request, Listen) or says_where(request.host):
            return [exactly]
        # The other side chose the name, and may have it lead anywhere: what is inside is agreed to as such.
        exactly = replace(exactly, is_internet=True)
        try:
            inside = [each for each in await addresses_of(request.host) if not is_open(each)]
        except NotReached:
            inside = []
        if not inside:
            return [exactly]
        there = await self._ask(msgspec.structs.replace(request, host=inside[0]))
        return [exactly, *there] if there else []


async def addresses_of(host: str) -> list[str]:
    """Raises `NotReached` where there are none."""
    try:
        return [str(ipaddress.ip_address(host))]
    except ValueError:
        pass
    try:
        async with asyncio.timeout(_LOOKUP_LIMIT):
            return list(dict.fromkeys(await look_up(host)))
    except (OSError, ValueError) as error:
        raise NotReached(Reason.UNKNOWN_NAME) from error
