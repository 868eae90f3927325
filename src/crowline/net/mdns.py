"""Names that stand for host addresses on this network alone: draft-ietf-mmusic-mdns-ice-candidates, RFC 6762.

A name tells the other side nothing, and leads it here only where its questions by multicast are heard.
Nothing is announced, and no name is claimed by asking for it first: it is random.
"""

from __future__ import annotations

import asyncio
import ipaddress
import os
import socket
import struct
from collections.abc import Collection, Iterable
from contextlib import suppress
from typing import Generic, TypeAlias, TypeVar

from msgspec import Struct

from crowline.base.addresses import Address, IPNetwork
from crowline.base.mdns_name import is_mdns_name, mdns_name
from crowline.net.dns_message import (
    ANY,
    SRV,
    DnsMessage,
    MalformedDns,
    Question,
    kind_of,
    parse,
    write_answer,
    write_legacy_answer,
    write_query,
    write_service_answer,
    write_service_query,
)
from crowline.net.interfaces import interface_addresses

PORT = 5353
GROUPS = {socket.AF_INET: "224.0.0.251", socket.AF_INET6: "ff02::fb"}

# Seconds after the first question at which it is repeated, and after which nobody will answer any more. A
# question by multicast may be lost, on radio more than others.
REPEATS = (0.25, 1.0, 2.0)
RESOLVE_LIMIT = 4.0
# Names of others that are being looked for at a time: whoever sends them makes us ask this whole network.
MAX_QUESTIONS = 16
# Seconds between two answers to everybody on one network about one name (RFC 6762 §6).
ANSWER_INTERVAL = 1.0
# Services that are looked for have ports of clients.
_LOWEST_PORT = 1024
# Datagrams for one wake-up, and the largest one worth reading: an address needs 80 bytes.
_READS_PER_WAKE = 16
_LARGEST = 9000

T = TypeVar("T")
# Host and port, and for IPv6 the flow and the number of the interface that a link-local host is on.
_Source: TypeAlias = tuple[str, int] | tuple[str, int, int, int]


class MdnsNames:
    """The names of this machine's addresses, and the search for those of others. `close` it.

    `hosts` are the addresses whose networks are asked. Made in a running loop. Where no network can be asked,
    every name is in vain, and none is resolved.
    """

    def __init__(self, hosts: Iterable[str], *, port: int | None = None) -> None:
        self._port = PORT if port is None else port
        self._loop = asyncio.get_running_loop()
        self._names: dict[str, str] = {}  # by host
        self._hosts: dict[str, str] = {}  # by name
        # When a name was last answered for on the network of an interface.
        self._answered: dict[tuple[str, int], float] = {}
        self._searches: dict[str, _Search[str]] = {}
        # Services of this machine, by name their port; and those of others that are looked for.
        self._services: dict[str, int] = {}
        self._finds: dict[str, _Search[Address]] = {}
        self._ways: list[_Way] = []
        # With the numbers of their interfaces.
        self._networks: list[tuple[IPNetwork, int]] = []
        self._sockets: dict[socket.AddressFamily, socket.socket] = {}
        self.follow(hosts)

    @property
    def is_open(self) -> bool:
        """Whether some network can be asked."""
        return bool(self._ways)

    def follow(self, hosts: Iterable[str]) -> None:
        """This machine has these addresses now. The names of those that it had before are void."""
        wanted = set(hosts)
        for host in [host for host in self._names if host not in wanted]:
            self._hosts.pop(self._names.pop(host), None)
        self._close_sockets()
        known = interface_addresses()
        indexes = {each.host: each.index for each in known}
        asked: set[tuple[bool, int]] = set()
        for host in sorted(wanted):
            index = indexes.get(host, 0)
            if (":" in host, index) not in asked:
                asked.add((":" in host, index))
                self._join(host, index)
        joined = {index for _, index in asked}
        self._networks = [(each.network, each.index) for each in known if each.index in joined]
        self._answered.clear()

    def name_of(self, host: str) -> str:
        """The name that stands for `host`, a new one at the first time."""
        name = self._names.get(host)
        if name is None:
            name = self._names[host] = mdns_name(os.urandom(16))
            self._hosts[name] = host
        return name

    async def resolve(self, name: str) -> str | None:
        """The address that somebody says is behind `name`; ``None`` if nobody does.

        Judge it as if the other side had named it. The first one counts where there are several, and IPv6
        before IPv4 in one answer.
        """
        name = name.lower()
        if not is_mdns_name(name) or not self._ways:
            return None
        return await self._search(self._searches, name, write_query(name))

    def announce(self, service: str, port: int) -> None:
        """Tell who asks for that name, and nobody else, that it is at `port` of this machine."""
        self._services[service.lower()] = port

    async def find(self, service: str) -> Address | None:
        """Where somebody in this network says that the service is: where the answer came from."""
        service = service.lower()
        if not self._ways:
            return None
        return await self._search(self._finds, service, write_service_query(service))

    def close(self) -> None:
        """Answer nothing more; whoever waits gets nothing."""
        self._close_sockets()
        for answer in [each.answer for each in self._searches.values()]:
            answer.cancel()
        for found in [each.answer for each in self._finds.values()]:
            found.cancel()

    async def _search(self, searches: dict[str, _Search[T]], name: str, query: bytes) -> T | None:
        search = searches.get(name)
        if search is None:
            if len(searches) >= MAX_QUESTIONS:
                return None
            search = searches[name] = _Search(self._loop.create_future())
        search.waiting += 1
        try:
            return await self._ask(query, search.answer)
        finally:
            search.waiting -= 1
            if not search.waiting:
                del searches[name]

    async def _ask(self, query: bytes, answer: asyncio.Future[T]) -> T | None:
        began = self._loop.time()
        for until in (*REPEATS, RESOLVE_LIMIT):
            self._to_all(query)
            await asyncio.wait({answer}, timeout=began + until - self._loop.time())
            if answer.done():
                return None if answer.cancelled() else answer.result()
        return None

    # --- sockets ----------------------------------------------------------------------------------------

    def _join(self, host: str, index: int) -> None:
        """Hear and be heard on the network of that address; where that is forbidden, do without."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        if family == socket.AF_INET6 and not index:
            return
        with suppress(OSError):
            sock = self._sockets.get(family) or self._open(family)
            way = _Way(sock, family, host, index)
            way.join()
            self._ways.append(way)

    def _open(self, family: socket.AddressFamily) -> socket.socket:
        """Beside whoever else has the port on this machine. Raises `OSError`."""
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if hasattr(socket, "SO_REUSEPORT"):
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6:
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 255)
            else:
                sock.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 255)
            sock.bind(("", self._port))
        except OSError:
            sock.close()
            raise
        self._sockets[family] = sock
        self._loop.add_reader(sock.fileno(), self._read, sock)
        return sock

    def _close_sockets(self) -> None:
        self._ways.clear()
        for sock in self._sockets.values():
            self._loop.remove_reader(sock.fileno())
            sock.close()
        self._sockets.clear()

    def _to_all(self, data: bytes, interfaces: Collection[int] | None = None) -> None:
        """On all networks, or on those of the interfaces of these numbers."""
        for way in self._ways:
            if interfaces is None or way.index in interfaces:
                with suppress(OSError):
                    way.send(data, self._port)

    def _read(self, sock: socket.socket) -> None:
        for _ in range(_READS_PER_WAKE):
            try:
                data, source = sock.recvfrom(_LARGEST)
            except OSError:
                return
            if near := self._near(source):
                with suppress(MalformedDns):
                    self._on_message(sock, parse(data), source, near)
            if sock.fileno() < 0:
                return

    # --- messages ---------------------------------------------------------------------------------------

    def _on_message(
        self, sock: socket.socket, message: DnsMessage, source: _Source, near: Collection[int]
    ) -> None:
        if message.is_response:
            # RFC 6762 §11: an answer comes from the port, else a program without rights may have sent it.
            if source[1] == self._port:
                self._on_addresses(message)
                self._on_services(message, source[0])
            return
        for question in message.questions:
            if question.name in self._services and question.kind in (SRV, ANY):
                self._answer_all(question.name, self._service_answer(question.name), near)
                continue
            host = self._hosts.get(question.name)
            if host is None or question.kind not in (kind_of(host), ANY):
                continue
            if source[1] != self._port:
                # Usual name servers are asked one thing at a time (RFC 6762 §6.7); whose address is forged
                # gets no more than that.
                self._answer_one(sock, question, message.id, host, source)
                return
            self._answer_all(question.name, write_answer(question.name, host), near)

    def _near(self, source: _Source) -> set[int]:
        """The numbers of the interfaces on whose networks it is; none where it is elsewhere (RFC 6762 §11):
        the other side, which knows our names, is not to learn what is behind them by asking from afar.
        """
        address = ipaddress.ip_address(source[0].partition("%")[0])
        scope = source[3] if len(source) == 4 else 0
        return {
            index
            for network, index in self._networks
            if address in network and (index == scope or 0 in (index, scope))
        }

    def _on_addresses(self, message: DnsMessage) -> None:
        for name, host in sorted(message.addresses, key=lambda each: ":" not in each[1]):
            search = self._searches.get(name)
            if search is not None and not search.answer.done():
                search.answer.set_result(host)

    def _on_services(self, message: DnsMessage, host: str) -> None:
        """A host that can only be named with its interface is none that a connection can be made to. A low
        port is none that a meeting has, but perhaps one of a neighbour whose address was forged.
        """
        for name, port in message.services:
            search = self._finds.get(name)
            if search is not None and not search.answer.done() and port >= _LOWEST_PORT and "%" not in host:
                search.answer.set_result(Address(host, port))

    def _service_answer(self, service: str) -> bytes:
        return write_service_answer(service, self._services[service], mdns_name(os.urandom(16)))

    def _answer_all(self, name: str, answer: bytes, near: Collection[int]) -> None:
        """Who asked is on the networks `near`; the others are not told of the address."""
        now = self._loop.time()
        due = {
            index
            for index in near
            if now - self._answered.get((name, index), now - ANSWER_INTERVAL) >= ANSWER_INTERVAL
        }
        self._answered.update(((name, index), now) for index in due)
        self._to_all(answer, due)

    @staticmethod
    def _answer_one(sock: socket.socket, question: Question, number: int, host: str, source: _Source) -> None:
        with suppress(OSError):
            sock.sendto(write_legacy_answer(question, number, host), source)


class _Search(Struct, Generic[T]):
    """One name that is being looked for, by so many callers."""

    answer: asyncio.Future[T]
    waiting: int = 0


class _Way:
    """One network in one family."""

    def __init__(self, sock: socket.socket, family: socket.AddressFamily, host: str, index: int) -> None:
        self._socket = sock
        self._family = family
        self._host = host
        self.index = index

    def join(self) -> None:
        """Raises `OSError`."""
        group = socket.inet_pton(self._family, GROUPS[self._family])
        if self._family == socket.AF_INET6:
            request = group + struct.pack("@I", self.index)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_JOIN_GROUP, request)
        else:
            request = group + socket.inet_aton(self._host)
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, request)

    def send(self, data: bytes, port: int) -> None:
        """Raises `OSError`."""
        if self._family == socket.AF_INET6:
            interface = struct.pack("@I", self.index)
            self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, interface)
        else:
            self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(self._host))
        self._socket.sendto(data, (GROUPS[self._family], port))
