"""Relayed addresses: one UDP socket or one listening TCP socket each, at a random port."""

from __future__ import annotations

import ipaddress
import secrets
import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeAlias

import ifaddr

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.net.interfaces import local_addresses, source_towards
from crowline.net.udp import CAN_SET_DONT_FRAGMENT, Receiver, UdpSocket
from crowline.net.udp_options import IcmpReceiver
from crowline.server.tcp_listener import Connected, TcpListener, reject
from crowline.stun.attributes import FAMILY_IPV4, FAMILY_IPV6

# A bind that fails costs a system call; past so many the range is as good as full.
MAX_ATTEMPTS = 64
# Interfaces come and go; asking for them takes a millisecond.
OWN_HOSTS_LIFETIME = 10.0  # seconds

# Which interface leads to the internet: a route is looked up, nothing is sent.
_SOMEWHERE = {FAMILY_IPV4: Address("1.1.1.1", 9), FAMILY_IPV6: Address("2606:4700:4700::1111", 9)}

PeerReceiver: TypeAlias = Callable[[memoryview, Address, int, Address], None]
RelayIcmpReceiver: TypeAlias = Callable[[Address, Address, int, int, int], None]


class RelaySocket(Protocol):
    """A UDP socket behind a relayed address."""

    local: Address

    def send(self, transmit: Transmit) -> None: ...

    def close(self) -> None: ...


SocketMaker: TypeAlias = Callable[[Address, Receiver, IcmpReceiver], RelaySocket]
"""`make_socket(address, on_receive, on_icmp)` binds one; raises `LocalProblem`."""


class SocketRelayPorts:
    """Implements `turn.ports.RelayPorts` with sockets of this process."""

    def __init__(
        self,
        listen_hosts: Iterable[str],
        on_receive: PeerReceiver,
        *,
        clock: Callable[[], float],
        public_address: str | None = None,
        port_range: tuple[int, int] | None = None,
        on_connect: Connected = reject,
        on_icmp: RelayIcmpReceiver | None = None,
        make_socket: SocketMaker | None = None,
    ) -> None:
        """`on_receive(data, peer, segment_size, relayed)` gets what peers send, `on_connect(relayed, peer,
        sock)` their TCP connections, `on_icmp(relayed, peer, type, code, data)` what routers say to that.

        `port_range` is inclusive; without it the kernel chooses. `make_socket` binds the UDP sockets.
        """
        self._listen_hosts = tuple(listen_hosts)
        self._on_receive = on_receive
        self._clock = clock
        self._public = public_address
        self._range = port_range
        self._on_connect = on_connect
        self._on_icmp = on_icmp
        self._make_socket = make_socket or _udp_socket
        self._sockets: dict[Address, RelaySocket] = {}
        self._listeners: dict[Address, TcpListener] = {}
        self.on_open: Callable[[Address, RelaySocket], None] | None = None
        """Gets each relayed UDP address that was opened, and its socket."""
        self._own_hosts: frozenset[str] = frozenset()
        self._own_hosts_until = float("-inf")

    def open(
        self,
        family: int,
        local: Address | None,
        *,
        even: bool = False,
        reserve: bool = False,
        transport: Transport = Transport.UDP,
    ) -> Address | None:
        host = self._bind_host(family, local)
        if host is None:
            return None
        public = self._public_host(family) or host
        for port in self._ports_to_try(transport, even=even):
            if transport is not Transport.UDP:
                relayed = self._open_listener(host, public, port)
            else:
                relayed = self._open_port(host, public, port, even=even)
            if relayed is None:
                continue
            if not reserve or self._open_port(host, public, relayed.port + 1, even=False) is not None:
                return relayed
            self.close(relayed)
        return None

    def close(self, relayed: Address, transport: Transport = Transport.UDP) -> None:
        table = self._sockets if transport is Transport.UDP else self._listeners
        opened: RelaySocket | TcpListener | None = table.pop(relayed, None)
        if opened is not None:
            opened.close()

    def dialler(self, relayed: Address) -> socket.socket | None:
        """A TCP socket that connects from the relayed address; ``None`` if there is none."""
        listener = self._listeners.get(relayed)
        return listener.dialler() if listener is not None else None

    @property
    def can_set_dont_fragment(self) -> bool:
        return CAN_SET_DONT_FRAGMENT

    def socket_of(self, relayed: Address) -> RelaySocket | None:
        """What `make_socket` made for a relayed UDP address."""
        return self._sockets.get(relayed)

    def has_family(self, family: int, local: Address | None) -> bool:
        return self._bind_host(family, local) is not None

    def is_relay_host(self, host: str) -> bool:
        if host == self._public or host in self._listen_hosts:
            return True
        # Behind a wildcard a relayed address has whichever address the client asked.
        return _has_wildcard(self._listen_hosts, host) and self.is_own_host(host)

    def is_own_host(self, host: str) -> bool:
        now = self._clock()
        if now >= self._own_hosts_until:
            self._own_hosts = frozenset(_machine_hosts()) | set(self._listen_hosts)
            self._own_hosts_until = now + OWN_HOSTS_LIFETIME
        return host in self._own_hosts or host == self._public

    def outgoing_host(self, is_ipv6: bool) -> str | None:
        """The address that leads to the internet; without a route, any but loopback."""
        host = source_towards(_SOMEWHERE[FAMILY_IPV6 if is_ipv6 else FAMILY_IPV4])
        if host is not None:
            return host
        return next((h for h in local_addresses() if (":" in h) == is_ipv6), None)

    def send(self, transmit: Transmit) -> bool:
        """Send from the relayed address `transmit.local`; False if it is none of ours."""
        found = self._sockets.get(transmit.local) if transmit.local is not None else None
        if found is None:
            return False
        found.send(transmit)
        return True

    def close_all(self) -> None:
        for relayed in list(self._sockets):
            self.close(relayed)
        for relayed in list(self._listeners):
            self.close(relayed, Transport.TCP)

    def _bind_host(self, family: int, local: Address | None) -> str | None:
        """The local address to bind: the one the client asked, or one of the wanted family."""
        is_ipv6 = family == FAMILY_IPV6
        if local is not None and local.is_ipv6 == is_ipv6:
            return local.host
        for host in self._listen_hosts:
            if (":" in host) != is_ipv6:
                continue
            return self.outgoing_host(is_ipv6) if is_wildcard(host) else host
        return None

    def _public_host(self, family: int) -> str | None:
        if self._public is None or (":" in self._public) != (family == FAMILY_IPV6):
            return None
        return self._public

    def _ports_to_try(self, transport: Transport, *, even: bool) -> Iterator[int]:
        """Random ports that we have not taken ourselves (RFC 6056), or 0 for the kernel's choice."""
        if self._range is None:
            yield from [0] * (MAX_ATTEMPTS if even else 1)
            return
        low, high = self._range
        size = high - low + 1
        if size > MAX_ATTEMPTS:
            ports = (low + secrets.randbelow(size) for _ in range(MAX_ATTEMPTS))
            yield from (port for port in ports if not (even and port % 2))
            return
        table = self._sockets if transport is Transport.UDP else self._listeners
        taken = {relayed.port for relayed in table}
        few = [port for port in range(low, high + 1) if port not in taken and not (even and port % 2)]
        secrets.SystemRandom().shuffle(few)
        yield from few

    def _open_port(self, bind_host: str, public_host: str, port: int, *, even: bool) -> Address | None:
        """Bind one port; None if it is taken, odd where an even one is wanted, or descriptors ran out."""
        names: list[Address] = []

        def received(data: memoryview, peer: Address, size: int) -> None:
            self._on_receive(data, peer, size, names[0])

        def refused(peer: Address, icmp_type: int, icmp_code: int, data: int) -> None:
            if self._on_icmp is not None and names:
                self._on_icmp(names[0], peer, icmp_type, icmp_code, data)

        try:
            opened = self._make_socket(Address(bind_host, port), received, refused)
        except (LocalProblem, OSError, OverflowError):
            return None
        relayed = Address(public_host, opened.local.port)
        if (even and relayed.port % 2) or relayed in self._sockets:
            # Two of our addresses may share one public name, and then a port of it is given once.
            opened.close()
            return None
        names.append(relayed)
        self._sockets[relayed] = opened
        if self.on_open is not None:
            self.on_open(relayed, opened)
        return relayed

    def _open_listener(self, bind_host: str, public_host: str, port: int) -> Address | None:
        try:
            listener = TcpListener(Address(bind_host, port), public_host, self._on_connect)
        except OSError:
            return None
        if listener.relayed in self._listeners:
            listener.close()
            return None
        self._listeners[listener.relayed] = listener
        return listener.relayed


def _udp_socket(address: Address, on_receive: Receiver, on_icmp: IcmpReceiver) -> RelaySocket:
    return UdpSocket.bind(address, on_receive, on_icmp=on_icmp)


def is_wildcard(host: str) -> bool:
    return ipaddress.ip_address(host).is_unspecified


def _has_wildcard(listen_hosts: Iterable[str], host: str) -> bool:
    """Whether one of the listening hosts is the wildcard of `host`'s family."""
    return any((":" in listen) == (":" in host) and is_wildcard(listen) for listen in listen_hosts)


def _machine_hosts() -> Iterator[str]:
    for adapter in ifaddr.get_adapters():
        for entry in adapter.ips:
            text = entry.ip if isinstance(entry.ip, str) else entry.ip[0]
            yield str(ipaddress.ip_address(text.partition("%")[0]))
