"""Meeting in one network without a server: the code's number is looked for by multicast (RFC 6762).

The hosting side has the meeting's hub in its pocket and tells who asks for the code's number where it is; it
announces nothing. The other side connects there, and the code does the rest, as with a server.
"""

from __future__ import annotations

import asyncio
import errno
import hashlib
import ipaddress
import os
from collections.abc import Collection
from contextlib import suppress
from dataclasses import replace

from crowline.api.hub_channel import AtServer, HubChannel
from crowline.api.meeting_point import Callbacks
from crowline.api.pocket_hub import PocketHub
from crowline.api.traversal.traversal import Traversal
from crowline.base.addresses import Address
from crowline.base.errors import CrowlineError, LocalProblem, NobodyCame, NoPath, ServerUnreachable, WrongCode
from crowline.base.mdns_name import mdns_name
from crowline.base.secrets import Secret
from crowline.link.quic import warm_up
from crowline.net.framed_messages import FramedMessages
from crowline.net.interfaces import interface_addresses, local_addresses
from crowline.net.mdns import MdnsNames
from crowline.net.patience import within
from crowline.rendezvous.code import LAN_NUMBERS, Code
from crowline.rendezvous.events import CodeReady, MeetingEvent
from crowline.rendezvous.meeting import Meeting
from crowline.rendezvous.numbers import Numbers
from crowline.rendezvous.pake import Spake2Pake
from crowline.rendezvous.role import Role
from crowline.rendezvous.signals import Signal

# Seconds that the network has to answer before the server is asked, which has such a number seldom.
HEAD_START = 1.5
# Tries to find a port that is free at all of this machine's addresses.
_PORT_TRIES = 10


def service_name(number: int) -> str:
    """What is asked for: a name that says nothing to who does not know the number."""
    digest = hashlib.sha256(f"crowline/1 lan {number}".encode()).digest()
    return f"{mdns_name(digest[:16]).removesuffix('.local')}._crowline._tcp.local"


class OnLan:
    """Without a server. `loopback`: both sides are on this machine."""

    url = "lan"
    has_server = False
    caution = ""

    def __init__(self, *, loopback: bool = False) -> None:
        self._loopback = loopback

    def nobody_came(self) -> NobodyCame:
        return NobodyCame(hint="Is the other side in this very network, and the code the one on this screen?")

    def no_path(self) -> NoPath:
        return NoPath(
            "The other side was found in this network, and no path to it works.",
            hint="Does a firewall on one of the two machines block what comes in?",
        )

    async def open(self, role: Role, code: Code | None, callbacks: Callbacks) -> LanHost | HubChannel:
        """Raises `LocalProblem` without a network, `WrongCode` where nobody here has that code."""
        hosts = local_addresses(loopback=self._loopback)
        if role is Role.HOST:
            return await LanHost.open(hosts, callbacks, loopback=self._loopback)
        assert code is not None
        address = await find(code, hosts)
        if address is None:
            raise WrongCode("Nobody in this network has that code.", hint="Check it, and the network.")
        return await connect(address, code, callbacks)


class NearbyOrServer:
    """For a code that may be of this network: whoever has it here, else the server. `url` may be empty."""

    caution = ""

    def __init__(self, url: str) -> None:
        self.url = url
        self._server = AtServer(url)
        self._lan = OnLan()
        self.has_server = True

    def nobody_came(self) -> NobodyCame:
        return self._server.nobody_came()

    def no_path(self) -> NoPath:
        return self._lan.no_path()

    async def open(self, role: Role, code: Code | None, callbacks: Callbacks) -> HubChannel:
        """Raises `WrongCode` where neither has it."""
        assert code is not None and role is Role.JOIN
        finding = asyncio.create_task(find(code, local_addresses(loopback=False)))
        try:
            await asyncio.wait({finding}, timeout=HEAD_START if self.url else None)
            if self.url and not (finding.done() and finding.result()):
                try:
                    return await self._server.open(role, code, callbacks)
                except ServerUnreachable:
                    if await finding is None:
                        raise
            if (address := await finding) is None:
                raise WrongCode("Nobody in this network has that code, and no server is named.")
        finally:
            finding.cancel()
            await asyncio.gather(finding, return_exceptions=True)
        self.has_server = False
        return await connect(address, code, callbacks)


async def find(code: Code, hosts: Collection[str]) -> Address | None:
    """Where in this network the meeting of that code is, if anybody says so."""
    names = MdnsNames(hosts)
    try:
        return await names.find(service_name(code.number))
    finally:
        names.close()


async def connect(address: Address, code: Code, callbacks: Callbacks) -> HubChannel:
    """Take part in the meeting there. Raises `ServerUnreachable`."""
    socket = await FramedMessages.connect(address)
    warm_up()
    meeting = Meeting(Role.JOIN, pake_factory=Spake2Pake, entropy=os.urandom, code=code)
    return HubChannel(
        socket,
        meeting,
        callbacks,
        reach=lambda: FramedMessages.connect(address),
        carries=False,
        peer_hosts={address.host},
    )


class LanHost:
    """The hosting side: listens, answers who asks for its number, and takes part in its own hub."""

    server_host = ""
    link = None

    def __init__(self, names: MdnsNames, callbacks: Callbacks, hub: PocketHub, *, loopback: bool) -> None:
        self.is_loopback = loopback
        self._names = names
        self._port = 0
        self._loopback = loopback
        self._callbacks = callbacks
        self._hub = hub
        # One for each neighbour; and those that are about to listen.
        self._tasks: set[asyncio.Task[None]] = set()
        self._listening: set[asyncio.Task[None]] = set()
        self._servers: dict[str, asyncio.Server] = {}  # by host
        meeting = Meeting(Role.HOST, pake_factory=Spake2Pake, entropy=os.urandom)
        self._channel = HubChannel(
            hub.attach("lan", loopback=loopback),
            meeting,
            replace(callbacks, on_event=self._on_event),
            returns=False,
            carries=False,
        )

    @classmethod
    async def open(cls, hosts: list[str], callbacks: Callbacks, *, loopback: bool) -> LanHost:
        """Raises `LocalProblem` where there is no network to be found in."""
        names = MdnsNames(hosts)
        if not names.is_open:
            names.close()
            raise LocalProblem("No network of this machine lets it be found.", hint="Use a server, or --to.")
        hub = PocketHub(Numbers(os.urandom, 0.0, LAN_NUMBERS.start))
        warm_up()
        host = cls(names, callbacks, hub, loopback=loopback)
        for _ in range(_PORT_TRIES):
            try:
                await host._listen(hosts)
                return host
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    await host.close()
                    raise LocalProblem(f"Nothing can be listened at: {error.strerror}.") from error
        await host.close()
        raise LocalProblem("No port is free at all addresses of this machine.")

    @property
    def received_at(self) -> float:
        return self._channel.received_at

    def start(self, traversal: Traversal) -> None:
        self._channel.start(traversal)

    def signal(self, signal: Signal) -> None:
        self._channel.signal(signal)

    def vouch(self, host: str) -> None:
        self._channel.vouch(host)

    def open_link(self, role: object, key: Secret) -> None:
        """Two machines of one network reach each other without it."""

    def flush_link(self) -> None: ...

    def follow(self, gone: Collection[str]) -> None:
        """Who asks from now on asks by the networks that there are now, and comes by them."""
        hosts = local_addresses(loopback=self._loopback)
        self._names.follow(hosts)
        task = asyncio.create_task(self._listen_also(hosts))
        self._listening.add(task)
        task.add_done_callback(self._listening.discard)
        self._callbacks.on_returned()

    def verify(self) -> None:
        """The way to the hub is as long as that to the other side."""

    async def close(self) -> None:
        self._names.close()
        await asyncio.gather(*self._listening)
        for server in self._servers.values():
            server.close()
        await self._channel.close()
        # What the hub said last has a moment to be read.
        if self._tasks:
            await within(1.0, asyncio.wait(self._tasks, timeout=0.2))
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._hub.close()

    async def _listen(self, hosts: list[str]) -> None:
        """At one port of all addresses. Raises `OSError`."""
        port = 0
        try:
            for host in hosts:
                server = self._servers[host] = await asyncio.start_server(self._on_connection, host, port)
                port = server.sockets[0].getsockname()[1]
        except OSError:
            for server in self._servers.values():
                server.close()
            self._servers.clear()
            raise
        self._port = port

    async def _listen_also(self, hosts: list[str]) -> None:
        """At the same port of addresses that are new; nobody comes by one at which somebody else has it."""
        for host in hosts:
            if host not in self._servers:
                with suppress(OSError):
                    self._servers[host] = await asyncio.start_server(self._on_connection, host, self._port)

    async def _on_connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """A neighbour; whoever is elsewhere has no business here."""
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            with suppress(CrowlineError, asyncio.CancelledError):
                socket = FramedMessages(reader, writer)
                if _is_near(socket.remote.host):
                    await self._hub.serve(socket, socket.remote)
                else:
                    socket.abort()
        finally:
            self._tasks.discard(task)

    def _on_event(self, event: MeetingEvent) -> None:
        if isinstance(event, CodeReady):
            self._names.announce(service_name(event.code.number), self._port)
        self._callbacks.on_event(event)


def _is_near(host: str) -> bool:
    address = ipaddress.ip_address(host.partition("%")[0])
    return any(address in each.network for each in interface_addresses())
