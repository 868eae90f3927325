"""The self-test's bench in the kernel: real sockets, and translators whose time can be moved on."""

from __future__ import annotations

import errno
import select
import socket
import time
from contextlib import ExitStack, closing, suppress
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.lab import nat64
from crowline.lab.bench import Answer, Arrival
from crowline.lab.namespaces import Internet
from crowline.lab.places import Host
from crowline.lab.profile import Ipv6, Profile

# Seconds that a packet gets to pass through kernels after the wire is still: they deliver at once, but for
# the moments in which another processor does it.
GRACE = 0.004
# Seconds for a TCP handshake: without delays it takes one; and the kernel would repeat a SYN after a second.
CONNECT_PATIENCE = 0.4
_LARGEST_DATAGRAM = 65536
_HOSTS = 2

_REFUSALS = {
    errno.ECONNREFUSED: Answer.RST,
    errno.EHOSTUNREACH: Answer.ICMP,
    errno.ENETUNREACH: Answer.ICMP,
    errno.EACCES: Answer.ICMP,
}


@dataclass(frozen=True, slots=True)
class KernelEndpoint:
    """A UDP socket in a namespace."""

    socket: socket.socket
    local: Address

    def send(self, data: bytes, to: Address) -> None:
        with suppress(OSError):
            self.socket.sendto(data, (to.host, to.port))

    def take(self) -> list[Arrival]:
        taken: list[Arrival] = []
        while True:
            try:
                data, (host, port, *_) = self.socket.recvfrom(_LARGEST_DATAGRAM)
            except BlockingIOError:
                return taken
            except OSError:  # an ICMP error about something sent: not an arrival
                continue
            taken.append(Arrival(data, Address(host, port)))


class KernelBench:
    """Builds the place that `profile` describes in an internet that is the bench's own from then on.

    Close it, or use it as a context manager, before the internet ends.
    """

    def __init__(self, profile: Profile, internet: Internet) -> None:
        self._internet = internet
        self._is_nat64 = profile.ipv6 is Ipv6.NAT64
        self._servers = [internet.server(f"server{number}", addresses=1) for number in range(_HOSTS)]
        site = internet.site(profile, hosts=_HOSTS, delay=0.0)
        self._hosts = site.hosts
        self.external_host = site.outside[0]
        self._open = ExitStack()
        self._endpoints: dict[Address, KernelEndpoint] = {}
        self._listeners: dict[Address, socket.socket] = {}
        self._ahead = 0.0

    def __enter__(self) -> KernelBench:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close every socket."""
        self._open.close()

    @property
    def now(self) -> float:
        """Seconds of the translators' clock."""
        return time.monotonic() + self._ahead

    def inside(self, host: int, port: int, *, ipv6: bool = False) -> KernelEndpoint | None:
        local = _address(self._hosts[host], ipv6=ipv6 or self._is_nat64)
        return self._endpoint(self._hosts[host], Address(local, port)) if local else None

    def outside(self, server: int, port: int, *, ipv6: bool = False) -> KernelEndpoint:
        local = _address(self._servers[server], ipv6=ipv6)
        assert local is not None
        return self._endpoint(self._servers[server], Address(local, port))

    def named(self, address: Address) -> Address:
        return Address(nat64.synthesized(address.host), address.port) if self._is_nat64 else address

    def settle(self) -> None:
        self._internet.settle()
        time.sleep(GRACE)
        self._internet.settle()

    def pass_time(self, seconds: float) -> None:
        """Whole seconds, as kernels count the age of what they track."""
        whole = round(seconds)
        if whole > 0:
            self._internet.advance(whole)
            self._ahead += whole

    def connect_out(self, host: int, port: int, server: int, server_port: int) -> Address | None:
        there = self._listen(server, server_port)
        local = _address(self._hosts[host], ipv6=self._is_nat64)
        if local is None:
            return None
        dialler = self._tcp(self._hosts[host], Address(local, port))
        if self._connect(dialler, self.named(there)) is not Answer.ACCEPTED:
            return None
        readable, _, _ = select.select([self._listeners[there]], [], [], CONNECT_PATIENCE)
        if not readable:
            return None
        accepted, (seen, seen_port) = self._listeners[there].accept()
        self._open.enter_context(closing(accepted))
        return Address(seen, seen_port)

    def connect_in(self, server: int, to: Address) -> Answer:
        local = _address(self._servers[server], ipv6=False)
        assert local is not None
        return self._connect(self._tcp(self._servers[server], Address(local, 0)), to)

    def _connect(self, dialler: socket.socket, to: Address) -> Answer:
        """Keep trying until the wire is still and nothing has come back for a while."""
        with suppress(BlockingIOError):
            dialler.connect((to.host, to.port))
        deadline = time.monotonic() + CONNECT_PATIENCE
        while time.monotonic() < deadline:
            _, writable, _ = select.select([], [dialler], [], CONNECT_PATIENCE / 4)
            if writable:
                error = dialler.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                return _REFUSALS.get(error, Answer.SILENCE) if error else Answer.ACCEPTED
            self.settle()
        return Answer.SILENCE

    def _endpoint(self, host: Host, local: Address) -> KernelEndpoint:
        endpoint = self._endpoints.get(local)
        if endpoint is None:
            made = self._internet.socket(host, socket.SOCK_DGRAM, local.host, local.port)
            made.setblocking(False)
            self._open.enter_context(closing(made))
            endpoint = self._endpoints[local] = KernelEndpoint(made, local)
        return endpoint

    def _listen(self, server: int, port: int) -> Address:
        local = _address(self._servers[server], ipv6=False)
        assert local is not None
        there = Address(local, port)
        if there not in self._listeners:
            listener = self._internet.socket(self._servers[server], socket.SOCK_STREAM, local, port)
            self._open.enter_context(closing(listener))
            listener.listen()
            self._listeners[there] = listener
        return there

    def _tcp(self, host: Host, local: Address) -> socket.socket:
        """A socket that shares its port with others like it."""

        def opened() -> socket.socket:
            made = socket.socket(socket.AF_INET6 if local.is_ipv6 else socket.AF_INET, socket.SOCK_STREAM)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            made.bind((local.host, local.port))
            made.setblocking(False)
            return made

        return self._open.enter_context(closing(self._internet.inside(host, opened)))


def _address(host: Host, *, ipv6: bool) -> str | None:
    return next((address for address in host.addresses if (":" in address) == ipv6), None)
