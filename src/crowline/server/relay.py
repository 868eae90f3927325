"""The server's STUN and TURN front: its sockets, and the machines behind them.

UDP brings Binding and TURN, TCP brings Binding. Everything that decides is in `stun/` and `turn/`; here are
sockets, the dispatch between the two, and the promise that no packet stops the front.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.errors import LocalProblem, UsageError
from crowline.base.machine import Transmit
from crowline.base.secrets import Secret
from crowline.net.interfaces import local_addresses
from crowline.net.udp import UdpSocket
from crowline.server.asked_socket import IS_SUPPORTED as CAN_ASK
from crowline.server.asked_socket import AskedSocket
from crowline.server.relay_ports import SocketRelayPorts, is_wildcard
from crowline.server.stun_tcp import BindingServer
from crowline.stun.budget import BINDING, CHALLENGE, Allowance, ReplyBudget
from crowline.stun.message import Method
from crowline.stun.responder import Alternates, Responder
from crowline.stun.sources import is_plausible_source
from crowline.turn.auth import DEFAULT_REALM, Authenticator
from crowline.turn.channel_data import is_channel_run
from crowline.turn.quota import Limits
from crowline.turn.server import TurnServer

# RFC 5780's second port is the next one, 3479 by default.
ALTERNATE_OFFSET = 1
# Two addresses must have the same two ports; with ports of the kernel's choice that takes a few tries.
BIND_ATTEMPTS = 8

if sys.platform != "win32":
    import resource

_log = logging.getLogger(__name__)


class StunTurnFront:
    """STUN and TURN on the given addresses. After `start`, `udp_addresses` and `tcp_addresses` are bound.

    `permits(user, peer)` says whether the user that `turn.auth.issue_credentials` was called with may
    exchange datagrams with `peer`; `policy` must agree. Relayed addresses of this server are always allowed.
    `is_current(user)` says whether that user may still make new allocations.
    """

    def __init__(
        self,
        listen: Address | Sequence[Address],
        *,
        secret: Secret,
        permits: Callable[[str, Address], bool],
        is_current: Callable[[str], bool] = lambda user: True,
        policy: AddressPolicy | None = None,
        public_address: str | None = None,
        relay_ports: tuple[int, int] | None = None,
        alternate_address: str | None = None,
        realm: str = DEFAULT_REALM,
        users: Mapping[str, Secret] | None = None,
        limits: Limits | None = None,
        binding: Allowance = BINDING,
        challenge: Allowance = CHALLENGE,
        tcp: bool = True,
    ) -> None:
        """`listen` addresses may be wildcards (`::` is IPv4 too), their port 0.

        `public_address` is what clients see of a server behind a 1:1 NAT. `relay_ports` is an inclusive
        range. With `alternate_address`, a second address of this machine, RFC 5780 works.
        """
        if not listen:
            raise UsageError("A STUN and TURN server needs an address to listen on.")
        self.udp_addresses: list[Address] = []
        self.tcp_addresses: list[Address] = []
        self._listen = [listen] if isinstance(listen, Address) else list(listen)
        self._public_address = public_address
        self._alternate_address = alternate_address
        self._wants_tcp = tcp
        self._own: Counter[str] = Counter()
        self._sockets: dict[Address, UdpSocket | AskedSocket] = {}
        self._tcp_servers: list[asyncio.Server] = []
        self._timer: asyncio.TimerHandle | None = None
        self._timer_at = 0.0
        self._responder = Responder()
        # A TCP connection cannot be answered from another address, so RFC 5780 stays out of it.
        self._tcp_responder = Responder()
        self._binding_budget = ReplyBudget(binding)
        self._ports = SocketRelayPorts(
            [host for address in self._listen for host in self._hosts_of(address)],
            self._from_peer,
            clock=time.monotonic,
            public_address=public_address,
            port_range=relay_ports,
        )
        self._turn = TurnServer(
            Authenticator(
                secret,
                entropy=os.urandom,
                epoch=time.time() - time.monotonic(),
                realm=realm,
                users=users,
                is_current=is_current,
            ),
            self._ports,
            permits=permits,
            policy=policy or AddressPolicy(),
            entropy=os.urandom,
            limits=limits or _default_limits(),
            budget=ReplyBudget(challenge),
        )

    @property
    def address(self) -> Address:
        """The first UDP address."""
        return self.udp_addresses[0]

    async def start(self) -> None:
        """Bind everything. Raises `LocalProblem` and leaves nothing open when an address cannot be used."""
        # A port that the kernel chose for UDP may be taken for TCP: then another one is tried.
        attempts = BIND_ATTEMPTS if any(address.port == 0 for address in self._listen) else 1
        for attempt in range(attempts):
            try:
                await self._start_once()
                return
            except BaseException as error:
                await self.close()
                if not isinstance(error, LocalProblem) or attempt + 1 == attempts:
                    raise

    async def close(self) -> None:
        """End all allocations and close every socket."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._turn.close()
        self._ports.close_all()
        for bound in self._sockets.values():
            bound.close()
        self._sockets.clear()
        for server in self._tcp_servers:
            server.close()
            if hasattr(server, "abort_clients"):
                server.abort_clients()
        self._tcp_servers.clear()
        self.udp_addresses.clear()
        self.tcp_addresses.clear()

    @property
    def counters(self) -> dict[str, int]:
        """What happened, by name; `allocations` is how many there are now."""
        merged: Counter[str] = Counter()
        merged.update(self._own)
        merged.update({f"stun_{name}": count for name, count in self._responder.counters.items()})
        merged.update({f"tcp_{name}": count for name, count in self._tcp_responder.counters.items()})
        merged.update({f"turn_{name}": count for name, count in self._turn.counters.items()})
        merged["allocations"] = len(self._turn.allocations)
        return dict(merged)

    # --- binding addresses ------------------------------------------------------------------------------

    async def _start_once(self) -> None:
        for address in self._listen:
            if self._hosts_of(address):
                self._start_udp(address)
        if self._wants_tcp:
            for address in self.udp_addresses:
                await self._start_tcp(address)

    def _start_udp(self, address: Address) -> None:
        """One listen address: its port and the next one, and both on the alternate address."""
        hosts = self._hosts_of(address)
        other = self._alternate_address
        wants_other = other is not None and any((":" in host) == (":" in other) for host in hosts)
        bound = [*hosts, other] if other and wants_other and not is_wildcard(address.host) else hosts
        ports = [address.port, address.port + ALTERNATE_OFFSET if address.port else 0]
        first, *rest = self._bind_ports(bound, ports, needs_second=wants_other)
        self.udp_addresses += [Address(host, first.port) for host in hosts]
        primary_host = self._primary_host(address, other) if other and wants_other else None
        if other and primary_host is not None and rest:
            primary = Address(primary_host, first.port)
            self._responder.alternates = Alternates(primary, Address(other, rest[0].port))

    def _hosts_of(self, address: Address) -> list[str]:
        """What to bind: `::` is IPv4 too, unless that is listed itself, and IPv4 alone without IPv6."""
        if address.host != "::":
            return [address.host]
        ipv4 = [] if Address("0.0.0.0", address.port) in self._listen else ["0.0.0.0"]
        return [*ipv4, "::"] if _has_ipv6() else ipv4

    def _bind_ports(self, hosts: list[str], ports: list[int], *, needs_second: bool) -> list[Address]:
        """The second port shows clients how their NAT maps ports; without it everything else works."""
        try:
            return self._bind_grid(hosts, ports)
        except LocalProblem:
            if needs_second:
                raise
        self._own["no_second_port"] += 1
        return self._bind_grid(hosts, ports[:1])

    def _primary_host(self, address: Address, other: str) -> str | None:
        """The address that RFC 5780 calls the primary one: behind a wildcard, any of ours but `other`."""
        if not is_wildcard(address.host):
            return address.host
        is_ipv6 = ":" in other
        outgoing = self._ports.outgoing_host(is_ipv6)
        if outgoing not in (None, other):
            return outgoing
        return next((h for h in local_addresses() if (":" in h) == is_ipv6 and h != other), None)

    def _bind_grid(self, hosts: list[str], ports: list[int]) -> list[Address]:
        """Bind every port on every host, the same ports on each; the addresses on the first host."""
        attempts = BIND_ATTEMPTS if 0 in ports else 1
        for attempt in range(attempts):
            opened: list[Address] = []
            try:
                for port in ports:
                    opened.append(self._bind(Address(hosts[0], port)))
                for host in hosts[1:]:
                    for first in opened[: len(ports)]:
                        opened.append(self._bind(Address(host, first.port)))
            except LocalProblem:
                for address in opened:
                    self._sockets.pop(address).close()
                if attempt + 1 == attempts:
                    raise
            else:
                return opened[: len(ports)]
        raise LocalProblem("No free UDP ports were found.")

    def _bind(self, address: Address) -> Address:
        if is_wildcard(address.host):
            return self._bind_wildcard(address)
        names: list[Address] = []

        def received(data: memoryview, source: Address, size: int) -> None:
            self._from_client(data, source, size, names[0])

        bound = UdpSocket.bind(address, received)
        names.append(bound.local)
        self._sockets[bound.local] = bound
        return bound.local

    def _bind_wildcard(self, address: Address) -> Address:
        if CAN_ASK:
            bound = AskedSocket.bind(address, self._from_client)
            self._sockets[bound.local] = bound
            return bound.local
        # Where the kernel does not tell which address was asked, each address gets its own socket.
        port = address.port
        for host in local_addresses(loopback=True):
            if (":" in host) == address.is_ipv6:
                port = self._bind(Address(host, port)).port
        return Address(address.host, port)

    async def _start_tcp(self, address: Address) -> None:
        loop = asyncio.get_running_loop()
        server = BindingServer(self._tcp_responder, self._own)
        try:
            listener = await loop.create_server(server.connection, address.host, address.port)
        except OSError as error:
            raise LocalProblem(
                f"TCP {address} cannot be used: {error.strerror}.",
                hint="Another program may have the port; choose another one.",
            ) from error
        self._tcp_servers.append(listener)
        self.tcp_addresses.append(address)

    # --- packets ----------------------------------------------------------------------------------------

    def _from_client(self, data: memoryview, source: Address, size: int, local: Address) -> None:
        try:
            if is_channel_run(data, size):
                self._turn.receive(data, source, time.monotonic(), local, size)
            else:
                for start in range(0, len(data), size):
                    self._dispatch(data[start : start + size], source, local)
            self._flush()
        except Exception:
            self._survive()

    def _from_peer(self, data: memoryview, peer: Address, size: int, relayed: Address) -> None:
        try:
            segment_size = size if size < len(data) else None
            self._turn.receive_from_peer(data, peer, time.monotonic(), relayed, segment_size)
            self._flush()
        except Exception:
            self._survive()

    def _dispatch(self, data: memoryview, source: Address, local: Address) -> None:
        """Binding to the responder, within the budget of its source; everything else to TURN."""
        now = time.monotonic()
        if int.from_bytes(data[:2], "big") != Method.BINDING:
            self._turn.receive(data, source, now, local)
            return
        if not is_plausible_source(source):
            self._own["implausible_source"] += 1
            return
        if not self._binding_budget.take(source, now):
            self._own["over_budget"] += 1
            return
        self._responder.receive(data, source, now, local)

    def _flush(self) -> None:
        """Send everything at once: bulk data still lies in the buffer it was received into."""
        while (transmit := self._responder.next_transmit()) is not None:
            self._send(transmit)
        while (transmit := self._turn.next_transmit()) is not None:
            self._send(transmit)
        self._set_timer()

    def _send(self, transmit: Transmit) -> None:
        if self._ports.send(transmit):
            return
        bound = self._socket_for(transmit.local)
        if bound is not None:
            bound.send(transmit)

    def _socket_for(self, local: Address | None) -> UdpSocket | AskedSocket | None:
        if local is None:
            return None
        bound = self._sockets.get(local)
        if bound is None:
            wildcard = "::" if local.is_ipv6 else "0.0.0.0"
            bound = self._sockets.get(Address(wildcard, local.port))
        return bound

    def _set_timer(self) -> None:
        at = self._turn.next_timeout()
        if at is None or (self._timer is not None and self._timer_at <= at):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_at = at
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(max(0.0, at - time.monotonic()), self._expire)

    def _expire(self) -> None:
        self._timer = None
        try:
            self._turn.handle_timeout(time.monotonic())
            self._flush()
        except Exception:
            self._survive()

    def _survive(self) -> None:
        """A packet met a fault of ours: it is lost, the front lives, and the counter shows it."""
        self._own["handler_error"] += 1
        # Bulk data that is still to leave lies in a buffer that the next packet overwrites.
        for machine in (self._responder, self._turn):
            while machine.next_transmit() is not None:
                self._own["dropped_by_error"] += 1
        _log.debug("a packet could not be handled", exc_info=True)


def _default_limits() -> Limits:
    """Each allocation is a descriptor; half of them stay for clients of the hub and everything else."""
    if sys.platform == "win32":
        return Limits()
    descriptors, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if descriptors == resource.RLIM_INFINITY:
        return Limits()
    return Limits(allocations=min(Limits().allocations, descriptors // 2))


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
