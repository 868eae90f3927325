"""STUN and TURN over UDP: the sockets, Binding within its budget, and a way in and out for everything else.

What is not Binding goes to `receive`, which belongs to whoever owns the TURN machine; the answers come back
through `send`. Binding needs no state, so any number of these may share the addresses.
"""

from __future__ import annotations

import logging
import socket
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Protocol, TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net.interfaces import local_addresses
from crowline.net.udp import UdpSocket
from crowline.server.asked_socket import IS_SUPPORTED as CAN_ASK
from crowline.server.asked_socket import AskedSocket
from crowline.server.relay_ports import is_wildcard
from crowline.stun.budget import BINDING, Allowance, ReplyBudget
from crowline.stun.message import Method
from crowline.stun.responder import Alternates, Responder
from crowline.stun.sources import is_plausible_source
from crowline.turn.channel_data import is_channel_run

# RFC 5780's second port is the next one, 3479 by default.
ALTERNATE_OFFSET = 1
# Two addresses must have the same two ports; with ports of the kernel's choice that takes a few tries.
BIND_ATTEMPTS = 8

_log = logging.getLogger(__name__)

Receive: TypeAlias = Callable[[memoryview, Address, Address, int], None]
"""`receive(data, source, local, segment_size)` takes what is not Binding; then comes `flush`."""


class FrontSocket(Protocol):
    """A UDP socket for clients."""

    local: Address

    def send(self, transmit: Transmit) -> None: ...

    def close(self) -> None: ...


class UdpFront:
    """All UDP sockets of one process; `addresses` are bound after `bind`."""

    def __init__(
        self,
        listen: Sequence[Address],
        *,
        receive: Receive,
        flush: Callable[[], None],
        drop: Callable[[], int],
        outgoing_host: Callable[[bool], str | None],
        alternate_address: str | None = None,
        binding: Allowance = BINDING,
    ) -> None:
        """After each burst `flush` sends what `receive` led to; after a fault `drop` forgets it and says how
        much. `outgoing_host(is_ipv6)` is the address of this machine that leads to the internet."""
        self.counters: Counter[str] = Counter()
        self.responder = Responder()
        self.addresses: list[Address] = []
        self._listen = list(listen)
        self._receive = receive
        self._flush_others = flush
        self._drop_others = drop
        self._outgoing_host = outgoing_host
        self._alternate_address = alternate_address
        self.budget = ReplyBudget(binding)
        self._sockets: dict[Address, FrontSocket] = {}

    @property
    def sockets(self) -> tuple[FrontSocket, ...]:
        return tuple(self._sockets.values())

    @property
    def further_addresses(self) -> list[Address]:
        """What is bound beside `addresses`: second ports, and the alternate address."""
        return [address for address in self._sockets if address not in self.addresses]

    def bind(self) -> None:
        """Bind everything. Raises `LocalProblem` when an address cannot be used; `close` is due then too."""
        for address in self._listen:
            if hosts_of(address, self._listen):
                self._bind_listen(address)

    def close(self) -> None:
        for bound in self._sockets.values():
            bound.close()
        self._sockets.clear()
        self.addresses.clear()

    def adopt(self, sock: socket.socket) -> Address:
        """Serve clients by a bound socket too, which is closed with the others; its address."""
        local = Address.parse(*sock.getsockname()[:2])
        if is_wildcard(local.host):
            self._sockets[local] = AskedSocket(sock, self._from_client)
            return local

        def received(data: memoryview, source: Address, size: int) -> None:
            self._from_client(data, source, size, local)

        self._sockets[local] = UdpSocket(sock, received)
        return local

    def send(self, transmit: Transmit) -> None:
        """Send from the socket of `transmit.local`, if there is one."""
        bound = self.socket_for(transmit.local)
        if bound is not None:
            bound.send(transmit)

    # --- binding addresses ------------------------------------------------------------------------------

    def _bind_listen(self, address: Address) -> None:
        """One listen address: its port and the next one, and both on the alternate address."""
        hosts = hosts_of(address, self._listen)
        other = self._alternate_address
        wants_other = other is not None and any((":" in host) == (":" in other) for host in hosts)
        bound = [*hosts, other] if other and wants_other and not is_wildcard(address.host) else hosts
        ports = [address.port, address.port + ALTERNATE_OFFSET if address.port else 0]
        first, *rest = self._bind_ports(bound, ports, needs_second=wants_other)
        self.addresses += [Address(host, first.port) for host in hosts]
        primary_host = self._primary_host(address, other) if other and wants_other else None
        if other and primary_host is not None and rest:
            primary = Address(primary_host, first.port)
            self.responder.alternates = Alternates(primary, Address(other, rest[0].port))

    def _bind_ports(self, hosts: list[str], ports: list[int], *, needs_second: bool) -> list[Address]:
        """The second port shows clients how their NAT maps ports; without it everything else works."""
        try:
            return self._bind_grid(hosts, ports)
        except LocalProblem:
            if needs_second:
                raise
        self.counters["no_second_port"] += 1
        return self._bind_grid(hosts, ports[:1])

    def _primary_host(self, address: Address, other: str) -> str | None:
        """The address that RFC 5780 calls the primary one: behind a wildcard, any of ours but `other`."""
        if not is_wildcard(address.host):
            return address.host
        is_ipv6 = ":" in other
        outgoing = self._outgoing_host(is_ipv6)
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
        if not is_wildcard(address.host):
            return self.adopt(UdpSocket.bound(address))
        if CAN_ASK:
            return self.adopt(AskedSocket.bound(address))
        # Where the kernel does not tell which address was asked, each address gets its own socket.
        port = address.port
        for host in local_addresses(loopback=True):
            if (":" in host) == address.is_ipv6:
                port = self._bind(Address(host, port)).port
        return Address(address.host, port)

    def socket_for(self, local: Address | None) -> FrontSocket | None:
        """The socket that answers from `local`."""
        if local is None:
            return None
        bound = self._sockets.get(local)
        if bound is None:
            wildcard = "::" if local.is_ipv6 else "0.0.0.0"
            bound = self._sockets.get(Address(wildcard, local.port))
        return bound

    # --- packets ----------------------------------------------------------------------------------------

    def _from_client(self, data: memoryview, source: Address, size: int, local: Address) -> None:
        try:
            if is_channel_run(data, size):
                self._receive(data, source, local, size)
            else:
                for start in range(0, len(data), size):
                    self._dispatch(data[start : start + size], source, local)
            self._flush()
        except Exception:
            self._survive()

    def _dispatch(self, data: memoryview, source: Address, local: Address) -> None:
        """Binding to the responder, within the budget of its source; everything else to its owner."""
        if int.from_bytes(data[:2], "big") != Method.BINDING:
            self._receive(data, source, local, len(data))
            return
        if not is_plausible_source(source):
            self.counters["implausible_source"] += 1
            return
        now = time.monotonic()
        if not self.budget.take(source, now):
            self.counters["over_budget"] += 1
            return
        self.responder.receive(data, source, now, local)

    def _flush(self) -> None:
        """Send everything at once: bulk data still lies in the buffer it was received into."""
        while (transmit := self.responder.next_transmit()) is not None:
            self.send(transmit)
        self._flush_others()

    def _survive(self) -> None:
        """A fault of ours costs its packet, not the front."""
        self.counters["handler_error"] += 1
        # Bulk data that is still to leave lies in a buffer that the next packet overwrites.
        dropped = self._drop_others()
        while self.responder.next_transmit() is not None:
            dropped += 1
        self.counters["dropped_by_error"] += dropped
        _log.debug("a packet could not be handled", exc_info=True)


def hosts_of(address: Address, listen: Sequence[Address]) -> list[str]:
    """What to bind: `::` is IPv4 too, unless that is listed itself, and IPv4 alone without IPv6."""
    if address.host != "::":
        return [address.host]
    ipv4 = [] if Address("0.0.0.0", address.port) in listen else ["0.0.0.0"]
    return [*ipv4, "::"] if _has_ipv6() else ipv4


def _has_ipv6() -> bool:
    try:
        with socket.socket(socket.AF_INET6, socket.SOCK_DGRAM) as probe:
            probe.bind(("::", 0))
    except OSError:
        return False
    return True
