"""The checks of one examination, each of which may fail, or be cut short, without the others."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Awaitable, Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import replace
from urllib.parse import urlsplit

from crowline.api.port_mapping.router_report import look_at_routers
from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, ServerUnreachable
from crowline.base.nat64 import Nat64Prefix
from crowline.diagnosis.facts import (
    Facts,
    FamilyFacts,
    FirewallFacts,
    MtuFacts,
    Portal,
    PortalFacts,
    PortFacts,
    Privacy,
    ProxyFacts,
    RouterFacts,
    ServerFacts,
)
from crowline.diagnosis.portals import judge
from crowline.net.hops import first_hops
from crowline.net.interfaces import InterfaceAddress, InterfaceKind
from crowline.net.local_firewall import local_firewalls
from crowline.net.nat64 import Nat64Discovery
from crowline.net.nat_discovery import discover_nat
from crowline.net.network import SOMEWHERE, Network, look
from crowline.net.path_mtu import measure_path
from crowline.net.patience import within
from crowline.net.plain_http import fetch_plain
from crowline.net.proxies import proxy_for, without_secrets
from crowline.net.resolver import resolve
from crowline.net.server_ports import answering_ports
from crowline.net.tcp_discovery import PATIENCE as TCP_PATIENCE
from crowline.net.websocket import HubSocket, hub_url
from crowline.punch.nat_profile import NatProfile
from crowline.rendezvous import wire

SERVER_SHARE = 0.5
"""Of the time for everything: what the server names can be asked only after it was reached."""

FAREWELL_LIMIT = 0.5
"""Seconds to leave the server in good manners."""

PORTAL_LIMIT = 2.0
"""Seconds for a page of a server that answers its WebSocket at the same time."""

ROUTER_LIMIT = 3.0
"""Seconds; routers answer UPnP within two."""

# Seconds until more ports are opened: those of the discovery show how the translator gives them out.
_LATER = 0.4
_HTTP_PORT = 80
_LAST_PORT = 65535


class Checks:
    """Run everything in `all`, side by side, as far as time allows; `facts` has what was found.

    `url` is the hub's, "" where none is known; `problem` then says why.
    """

    def __init__(self, url: str, limit: float, problem: CrowlineError | None = None) -> None:
        self._limit = limit
        self._network = look()
        self._target = urlsplit(hub_url(url)) if url else urlsplit("")
        self._is_secure = self._target.scheme == "wss"
        self._host = self._target.hostname or ""
        self._port = self._target.port or (443 if self._is_secure else _HTTP_PORT)
        self._proxy = proxy_for(self._host, self._port, secure=self._is_secure) if url else None
        self._server = ServerFacts(url)
        if problem is not None:
            self._server = _unreached(url, problem)
        self._stun: asyncio.Future[list[Address]] = asyncio.get_running_loop().create_future()
        self._nats: dict[bool, NatProfile] = {}  # by whether the family is IPv6
        self._is_translated = False
        self._takes_tcp = False
        self._routers: tuple[RouterFacts, ...] = ()
        self._portal = PortalFacts()
        self._firewalls: tuple[FirewallFacts, ...] = ()
        self._mtu = MtuFacts()
        self._ports = PortFacts()
        self._hops: tuple[str | None, ...] = ()
        self._has_followed = asyncio.Event()

    @property
    def all(self) -> Mapping[str, Callable[[], Awaitable[None]]]:
        """By names for people."""
        local = {"the router": self._ask_routers, "the local firewall": self._ask_firewalls}
        if not self._host:
            return local
        return {
            **local,
            "the server": self._reach_server,
            "the captive portal": self._ask_plainly,
            "IPv4": lambda: self._discover(ipv6=False),
            "IPv6": lambda: self._discover(ipv6=True),
            "the path MTU": self._measure_path,
            "the routers on the way": self._follow_path,
            "the server's ports": self._ask_ports,
        }

    def facts(self, left_out: Iterable[str]) -> Facts:
        """What is known so far."""
        addresses = self._network.addresses
        return Facts(
            self._server,
            self._family(ipv6=False),
            self._family(ipv6=True),
            tcp=self._gets_out_by_tcp,
            routers=self._routers,
            proxy=None if self._proxy is None else ProxyFacts(without_secrets(self._proxy)),
            portal=self._likely_portal,
            firewalls=self._firewalls,
            mtu=self._mtu,
            ports=self._ports,
            hops=self._known_hops,
            tunnel=tunnel_of(self._network),
            privacy=privacy_of(addresses),
            left_out=tuple(left_out),
        )

    def _family(self, *, ipv6: bool) -> FamilyFacts:
        hosts = tuple(each.host for each in self._network.addresses if each.is_ipv6 is ipv6)
        has_route = self._network.way_towards(SOMEWHERE[ipv6]) is not None
        return FamilyFacts(hosts, has_route, self._nats.get(ipv6), self._is_translated and not ipv6)

    @property
    def _gets_out_by_tcp(self) -> bool | None:
        """Silence says something of a server alone that takes TCP, and is near enough to have answered."""
        answers = {nat.tcp.answers for nat in self._nats.values() if nat.tcp is not None}
        if True in answers:
            return True
        is_near = 2 * (self._server.round_trip or 0.0) < TCP_PATIENCE
        return False if False in answers and self._takes_tcp and is_near else None

    @property
    def _likely_portal(self) -> PortalFacts:
        """Where the hub itself was reached, nobody stands in its place: its host has a web site beside it,
        which leads to another name."""
        is_mistaken = self._server.is_reached and self._portal.portal is Portal.FOUND
        return PortalFacts(Portal.NONE) if is_mistaken else self._portal

    @property
    def _known_hops(self) -> tuple[str | None, ...]:
        """The first router is known without its complaint, which it may owe to too many others at a time."""
        if self._hops[:1] == (None,) and self._routers and not tunnel_of(self._network):
            return (self._routers[0].gateway, *self._hops[1:])
        return self._hops

    # --- the server ---------------------------------------------------------------------------------------

    async def _reach_server(self) -> None:
        """Its welcome names the STUN servers, for which other checks wait."""
        try:
            async with asyncio.timeout(self._limit * SERVER_SHARE):
                socket = await HubSocket.connect(self._server.url)
                try:
                    self._stun.set_result(await self._greet(socket))
                    self._server = replace(self._server, round_trip=await socket.round_trip())
                finally:
                    # Whoever says nothing does not say goodbye either.
                    await within(FAREWELL_LIMIT, socket.close())
        except CrowlineError as error:
            self._server = _unreached(self._server.url, error)
        except TimeoutError:
            if not self._server.is_reached:
                self._server = _unreached(self._server.url, _silence(self._server.url))
        finally:
            if not self._stun.done():
                self._stun.set_result([])

    async def _greet(self, socket: HubSocket) -> list[Address]:
        """The addresses of its STUN servers. Raises `ServerUnreachable`."""
        welcome = await _welcome(socket)
        named = [(each.host, each.port) for each in welcome.stun if each.transport == "udp"]
        self._server = replace(self._server, is_reached=True, has_stun=bool(named))
        self._takes_tcp = any(each.transport == "tcp" for each in welcome.stun)
        return await resolve(named, socket.server_host)

    async def _ask_plainly(self) -> None:
        """Ask for a page by plain HTTP, which portals answer in the server's place; proxies have none."""
        if self._proxy is not None:
            return
        token = os.urandom(16).hex()
        port = _HTTP_PORT if self._is_secure else self._port
        with suppress(TimeoutError):
            async with asyncio.timeout(PORTAL_LIMIT):
                answer = await fetch_plain(self._host, port, f"/probe/{token}")
            if answer is not None:
                parts = (answer.status, answer.location, answer.body)
                self._portal = judge(self._host, token, *parts, is_hub=not self._is_secure)

    # --- the way to it ------------------------------------------------------------------------------------

    async def _discover(self, *, ipv6: bool) -> None:
        servers = [each for each in await self._stun if each.is_ipv6 is ipv6]
        prefix = None
        if not ipv6 and servers and self._has_ipv6_alone:
            prefix = await self._prefix()
            servers = [] if prefix is None else [_through(prefix, each) for each in servers]
            self._is_translated = prefix is not None
        if servers and self._has_way(servers[0]):
            self._nats[ipv6] = await discover_nat(servers, prefix=prefix)

    async def _measure_path(self) -> None:
        server = await self._nearest()
        if server is not None:
            measured = await measure_path(server)
            self._mtu = MtuFacts(measured.passed, measured.lost)

    async def _follow_path(self) -> None:
        server = await self._nearest()
        try:
            if server is not None:
                self._hops = await first_hops(server)
        finally:
            self._has_followed.set()

    async def _ask_ports(self) -> None:
        """Ask the nearest server's second port, too; where it is silent, see how far packets to it get."""
        server = await self._nearest()
        if server is None:
            return
        # Ours have a second port there, with or without a second address.
        ports = tuple(port for port in (server.port, server.port + 1) if port <= _LAST_PORT)
        answering = await answering_ports(server.host, ports)
        silent = tuple(port for port in ports if port not in answering)
        self._ports = PortFacts(answering, silent if answering else ())
        if self._ports.silent:
            await self._has_followed.wait()
            leaves = await self._gets_as_far(Address(server.host, silent[0])) if self._hops else None
            self._ports = replace(self._ports, leaves=leaves)

    async def _gets_as_far(self, server: Address) -> bool:
        """Whether packets to that port get past as many routers as those to the first. Routers complain of
        so many packets a second only, and complaints get lost: whoever seems silent is asked again."""
        for _ in range(2):
            if len(await first_hops(server)) >= len(self._hops):
                return True
        return False

    async def _nearest(self) -> Address | None:
        """A STUN server that packets have a way to, of IPv4 where there is one, once ports may be opened."""
        servers = sorted(await self._stun, key=lambda each: each.is_ipv6)
        await asyncio.sleep(_LATER)
        return next((each for each in servers if self._has_way(each)), None)

    def _has_way(self, server: Address) -> bool:
        """Whether this machine has an address of that family, or needs none: the server is here."""
        return any(each.is_ipv6 is server.is_ipv6 for each in self._network.addresses) or server.host in (
            "127.0.0.1",
            "::1",
        )

    @property
    def _has_ipv6_alone(self) -> bool:
        hosts = self._network.addresses
        return bool(hosts) and all(each.is_ipv6 for each in hosts)

    async def _prefix(self) -> Nat64Prefix | None:
        discovery = Nat64Discovery()
        try:
            return next(iter(await discovery.prefixes()), None)
        finally:
            discovery.close()

    # --- what is near -------------------------------------------------------------------------------------

    async def _ask_routers(self) -> None:
        reports = await look_at_routers(ROUTER_LIMIT)
        self._routers = tuple(
            RouterFacts(each.gateway, tuple(each.protocols), each.outside_host) for each in reports
        )

    async def _ask_firewalls(self) -> None:
        self._firewalls = await local_firewalls()


async def _welcome(socket: HubSocket) -> wire.Welcome:
    """The hub's first message. Raises `ServerUnreachable` for anything else."""
    async for message in socket.messages():
        try:
            welcome = wire.decode_hub(message if isinstance(message, bytes) else message.encode())
        except wire.MalformedWire:
            break
        if isinstance(welcome, wire.Welcome) and welcome.v == wire.VERSION:
            return welcome
        break
    raise ServerUnreachable(
        "What answers there is not a Crowline server, or one that speaks another version.",
        hint="Check the server's address, and update the older of the two.",
    )


def _silence(url: str) -> ServerUnreachable:
    return ServerUnreachable(
        f"The server at {url} does not answer.",
        hint="Is it running, and is the address right? Choose another with --server.",
    )


def _unreached(url: str, error: CrowlineError) -> ServerFacts:
    return ServerFacts(url, problem=error.message, hint=error.hint)


def _through(prefix: Nat64Prefix, server: Address) -> Address:
    return Address(prefix.synthesize(server.host), server.port)


def tunnel_of(network: Network) -> str:
    """The name of the VPN's interface by which packets to the internet leave; "" without one.

    A tunnel is a VPN only where something else is beneath it. One for IPv6 alone, beside IPv4 that goes
    another way, is none: it is how this machine has IPv6.
    """
    way = next((way for _, way in network.ways if way is not None), None)
    beneath = [each for each in network.addresses if each.kind is InterfaceKind.ORDINARY]
    if way is None or not beneath:
        return ""
    for each in network.addresses:
        leads = each.index == way.device if way.device else each.host == way.source
        if leads and each.kind is InterfaceKind.TUNNEL:
            return each.interface
    return ""


def privacy_of(addresses: Iterable[InterfaceAddress]) -> Privacy:
    """Of the IPv6 addresses among them; only Linux tells which are temporary."""
    ours = [each for each in addresses if each.is_ipv6]
    if any(each.is_temporary for each in ours):
        return Privacy.TEMPORARY
    if any(each.shows_hardware for each in ours):
        return Privacy.HARDWARE
    return Privacy.STABLE if ours and sys.platform.startswith("linux") else Privacy.UNKNOWN
