"""Relayed addresses: one UDP socket each, at a random port."""

from __future__ import annotations

import ipaddress
import secrets
from collections.abc import Callable, Iterable, Iterator
from typing import TypeAlias

import ifaddr

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.net.interfaces import local_addresses, source_towards
from crowline.net.udp import UdpSocket
from crowline.stun.attributes import FAMILY_IPV4, FAMILY_IPV6

# A bind that fails costs a system call; past so many the range is as good as full.
MAX_ATTEMPTS = 64
# Interfaces come and go; asking for them takes a millisecond.
OWN_HOSTS_LIFETIME = 10.0  # seconds

# Which interface leads to the internet: a route is looked up, nothing is sent.
_SOMEWHERE = {FAMILY_IPV4: Address("1.1.1.1", 9), FAMILY_IPV6: Address("2606:4700:4700::1111", 9)}

PeerReceiver: TypeAlias = Callable[[memoryview, Address, int, Address], None]


class SocketRelayPorts:
    """Implements `turn.server.RelayPorts` with sockets of this process."""

    def __init__(
        self,
        listen_hosts: Iterable[str],
        on_receive: PeerReceiver,
        *,
        clock: Callable[[], float],
        public_address: str | None = None,
        port_range: tuple[int, int] | None = None,
    ) -> None:
        """`on_receive(data, peer, segment_size, relayed)` gets what peers send.

        `port_range` is inclusive; without it the kernel chooses.
        """
        self._listen_hosts = tuple(listen_hosts)
        self._on_receive = on_receive
        self._clock = clock
        self._public = public_address
        self._range = port_range
        self._sockets: dict[Address, UdpSocket] = {}
        self._own_hosts: frozenset[str] = frozenset()
        self._own_hosts_until = float("-inf")

    def open(self, family: int, local: Address | None, *, even: bool) -> Address | None:
        host = self._bind_host(family, local)
        if host is None:
            return None
        for port in self._ports_to_try(even=even):
            relayed = self._open_port(host, self._public_host(family) or host, port, even=even)
            if relayed is not None:
                return relayed
        return None

    def close(self, relayed: Address) -> None:
        socket = self._sockets.pop(relayed, None)
        if socket is not None:
            socket.close()

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
        socket = self._sockets.get(transmit.local) if transmit.local is not None else None
        if socket is None:
            return False
        socket.send(transmit)
        return True

    def close_all(self) -> None:
        for relayed in list(self._sockets):
            self.close(relayed)

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

    def _ports_to_try(self, *, even: bool) -> Iterator[int]:
        """Random ports that we have not taken ourselves (RFC 6056), or 0 for the kernel's choice."""
        if self._range is None:
            yield from [0] * (MAX_ATTEMPTS if even else 1)
            return
        low, high = self._range
        taken = {relayed.port for relayed in self._sockets}
        size = high - low + 1
        if len(taken) >= size:
            return
        if size <= MAX_ATTEMPTS:
            ports = [port for port in range(low, high + 1) if port not in taken]
            secrets.SystemRandom().shuffle(ports)
        else:
            ports = [low + secrets.randbelow(size) for _ in range(MAX_ATTEMPTS)]
        yield from (port for port in ports if port not in taken and not (even and port % 2))

    def _open_port(self, bind_host: str, public_host: str, port: int, *, even: bool) -> Address | None:
        """Bind one port; None if it is taken, odd where an even one is wanted, or descriptors ran out."""
        names: list[Address] = []

        def received(data: memoryview, peer: Address, size: int) -> None:
            self._on_receive(data, peer, size, names[0])

        try:
            socket = UdpSocket.bind(Address(bind_host, port), received)
        except (LocalProblem, OSError):
            return None
        relayed = Address(public_host, socket.local.port)
        if (even and relayed.port % 2) or relayed in self._sockets:
            # Two of our addresses may share one public name, and then a port of it is given once.
            socket.close()
            return None
        names.append(relayed)
        self._sockets[relayed] = socket
        return relayed


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
