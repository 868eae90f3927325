"""Which NAT64 prefix this network has: the resolver is asked (RFC 7050), routers may say (RFC 8781)."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Hashable
from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.nat64 import MAX_PREFIXES, WELL_KNOWN_NAME, Nat64Prefix, Pref64, find_prefixes
from crowline.net.name_lookup import look_up

Resolve: TypeAlias = Callable[[str], Awaitable[list[str]]]
"""The IPv6 addresses of a name, as this network's resolver gives them; raises `OSError`, or gives none."""

LOOKUP_LIMIT = 1.0
"""Seconds for the resolver. Gathering does not wait: the prefix is used when it is found."""

# Seconds that an answer is good for. The resolver's own time to live is not told by the system.
FOUND_LIFETIME = 600.0
NONE_LIFETIME = 60.0
# Silence may be a network that is not ready yet.
SILENCE_LIFETIME = 5.0
# Networks whose prefixes are kept, so that one that comes back need not be asked again.
MAX_NETWORKS = 8
# Interfaces whose routers are believed.
MAX_INTERFACES = 16


class Nat64Discovery:
    """The prefixes of the networks that this machine is on, one after the other. `close` it.

    `resolve` stands for the system's resolver. Neither the answer nor the router is authenticated (RFC 7050
    §3.1 wants DNSSEC, which the system does not tell): who forges them sees packets that we send, as who
    forges any address does.
    """

    def __init__(self, resolve: Resolve | None = None, *, clock: Callable[[], float] | None = None) -> None:
        self._resolve = resolve or resolve_ipv6
        self._clock = clock or asyncio.get_running_loop().time
        self._answers: dict[Hashable, _Answer] = {}
        self._questions: dict[Hashable, asyncio.Task[_Answer]] = {}
        self._routers: dict[int, dict[Nat64Prefix, float]] = {}
        self._closed = False

    async def prefixes(self, network: Hashable = None) -> tuple[Nat64Prefix, ...]:
        """What routers have said, then what the resolver says; empty without NAT64, or after `LOOKUP_LIMIT`.

        `network` stands for the network that this machine is on, for instance `Network.hosts`: its answer is
        kept for a while. Several callers share one question.
        """
        answer = self._answers.get(network)
        if not self._closed and (answer is None or answer.until <= self._clock()):
            answer = await self._ask(network)
        found = self._heard() + list(answer.prefixes if answer is not None else ())
        return tuple(dict.fromkeys(found))[:MAX_PREFIXES]

    def learn(self, said: Pref64, interface: int) -> None:
        """A router on that interface has said so (`NetworkWatch`'s `on_prefix`)."""
        now = self._clock()
        self._forget_expired(now)
        if interface not in self._routers and len(self._routers) >= MAX_INTERFACES:
            return
        known = self._routers.setdefault(interface, {})
        if said.lifetime == 0:
            known.pop(said.prefix, None)
        elif said.prefix in known or len(known) < MAX_PREFIXES:
            known[said.prefix] = now + said.lifetime
        if not known:
            del self._routers[interface]

    def leave(self, interface: int) -> None:
        """That interface is on another network now: what its routers have said is void."""
        self._routers.pop(interface, None)

    def close(self) -> None:
        """Ask nothing more; whoever waits gets what is known. May be called again."""
        self._closed = True
        for question in self._questions.values():
            question.cancel()

    async def _ask(self, network: Hashable) -> _Answer | None:
        question = self._questions.get(network)
        if question is None:
            question = asyncio.create_task(self._answer())
            self._questions[network] = question
            question.add_done_callback(lambda done: self._keep(network, done))
        await asyncio.wait({question})
        return None if question.cancelled() else question.result()

    async def _answer(self) -> _Answer:
        try:
            async with asyncio.timeout(LOOKUP_LIMIT):
                hosts = await self._resolve(WELL_KNOWN_NAME)
        except TimeoutError:
            return _Answer(self._clock() + SILENCE_LIFETIME)
        except OSError as error:
            if isinstance(error, socket.gaierror) and error.errno == socket.EAI_AGAIN:
                return _Answer(self._clock() + SILENCE_LIFETIME)
            # The resolver says that there is no such record: a network without NAT64.
            return _Answer(self._clock() + NONE_LIFETIME)
        found = tuple(find_prefixes(hosts))
        return _Answer(self._clock() + (FOUND_LIFETIME if found else NONE_LIFETIME), found)

    def _keep(self, network: Hashable, question: asyncio.Task[_Answer]) -> None:
        self._questions.pop(network, None)
        if question.cancelled() or question.exception() is not None:
            return
        self._answers.pop(network, None)
        while len(self._answers) >= MAX_NETWORKS:
            del self._answers[next(iter(self._answers))]
        self._answers[network] = question.result()

    def _heard(self) -> list[Nat64Prefix]:
        self._forget_expired(self._clock())
        return [prefix for known in self._routers.values() for prefix in known]

    def _forget_expired(self, now: float) -> None:
        """What is over leaves room; numbers of interfaces that are gone do not come back."""
        for interface, known in list(self._routers.items()):
            lasting = {prefix: until for prefix, until in known.items() if until > now}
            self._routers[interface] = lasting
            if not lasting:
                del self._routers[interface]


@dataclass(frozen=True, slots=True)
class _Answer:
    until: float
    prefixes: tuple[Nat64Prefix, ...] = ()


async def resolve_ipv6(name: str) -> list[str]:
    """The IPv6 addresses that the system knows for `name`. Raises `OSError` where it knows none."""
    return await look_up(name, socket.AF_INET6)
