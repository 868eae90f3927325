"""What is asked of servers: under which address they see this side, and for relayed addresses."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable

from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.relay import Login
from crowline.api.traversal.relay_server import RelayServer
from crowline.base.addresses import Address
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.net.resolver import resolve
from crowline.net.stream import StreamTarget
from crowline.rendezvous.candidates import REFRESH_INTERVAL
from crowline.rendezvous.wire import ServerAddress, TurnGrant
from crowline.stun.shapes import FAMILY_IPV4, FAMILY_IPV6


class Questions:
    """Asked through a gatherer, each server as soon as its address is known: none waits for another.

    `hub_host` is the hub's address as this side reached it, `towards` says where to send what is meant for an
    address.
    """

    def __init__(
        self, gatherer: Gatherer, hub_host: str, towards: Callable[[Address], Address] = lambda to: to
    ) -> None:
        self.stun_servers: list[ServerAddress] = []
        self._gatherer = gatherer
        self._hub_host = hub_host
        self._towards = towards
        self._has_asked_all = False

    async def keep_asking(self, servers: Iterable[ServerAddress], is_enough: Callable[[], bool]) -> None:
        """Ask those STUN servers from all sockets, again and again until that is enough."""
        self.stun_servers = list(servers)
        while True:
            await self.query_stun()
            await asyncio.sleep(REFRESH_INTERVAL)
            if is_enough():
                return

    async def query_stun(self) -> None:
        """Ask all STUN servers from all sockets."""
        await asyncio.gather(*(self._query_at(server) for server in self.stun_servers))

    async def udp_servers(self) -> list[Address]:
        """The STUN servers that take UDP, those that have answered first."""
        found = await self._resolve(self.stun_servers)
        return sorted(found, key=lambda server: not self._gatherer.has_heard(server))

    async def tcp_servers(self) -> list[Address]:
        """The STUN servers that take TCP, as far as their names are known in time."""
        names = [(each.host, each.port) for each in self.stun_servers if each.transport == "tcp"]
        found = await asyncio.gather(*(resolve([name], self._hub_host) for name in names))
        return [self._towards(address) for addresses in found for address in addresses]

    async def allocate(self, grant: TurnGrant | None) -> None:
        """The last questions: relayed addresses, where there is a grant for them."""
        if grant is not None:
            login = Login(grant.username, Secret(grant.password.encode()))
            hosts = dict.fromkeys(each.host for each in grant.servers)
            await asyncio.gather(
                *(self._allocate_at([s for s in grant.servers if s.host == host], login) for host in hosts)
            )
        self._has_asked_all = True
        self._gatherer.asked_all()

    def restart(self) -> None:
        """The other side has to be told again when there is nothing more to come."""
        if self._has_asked_all:
            self._gatherer.asked_all()

    async def _query_at(self, server: ServerAddress) -> None:
        self._gatherer.query_stun(await self._resolve([server]))

    async def _allocate_at(self, services: list[ServerAddress], login: Login) -> None:
        """At one server, whose UDP addresses and streams lead to the same relays.

        With addresses of both families each may be asked for its own; otherwise one is asked for both.
        """
        streams = tuple(self._target(each) for each in services if each.transport != "udp")
        found = await self._resolve(services)
        by_family = [tuple(each for each in found if each.is_ipv6 is wanted) for wanted in (False, True)]
        if all(by_family):
            self._gatherer.allocate(RelayServer(by_family[0], streams, (FAMILY_IPV4,)), login)
            self._gatherer.allocate(RelayServer(by_family[1], (), (FAMILY_IPV6,)), login)
        else:
            self._gatherer.allocate(RelayServer(tuple(found), streams), login)

    async def _resolve(self, servers: Iterable[ServerAddress]) -> list[Address]:
        names = [(each.host, each.port) for each in servers if each.transport == "udp"]
        return [self._towards(found) for found in await resolve(names, self._hub_host)]

    def _target(self, service: ServerAddress) -> StreamTarget:
        host, transport = service.host or self._hub_host, Transport(service.transport)
        try:
            reached = self._towards(Address.parse(host, service.port)).host
        except ValueError:
            reached = host
        name = host if reached != host else ""
        return StreamTarget(reached, service.port, transport, service.fingerprint, name)
