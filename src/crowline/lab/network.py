"""The map of a virtual internet: networks inside networks, hosts in them, and packets that find their way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import UDP
from crowline.lab.boundary import Boundary
from crowline.lab.impairment import IPV4_UDP_HEADERS, IPV6_UDP_HEADERS

ROUTER_HOPS = 1  # what crossing a boundary takes off a packet's time to live


@dataclass(slots=True, eq=False)
class Packet:
    """One packet on its way: `source` and `destination` are what they are where it is now.

    `data` is the UDP payload, or the segment of whoever receives the packet; `size` its bytes. `hops` are
    left until it dies, ``None``: enough. `on_lost` is told when it ends before its destination.
    """

    protocol: int
    source: Address
    destination: Address
    data: Any
    size: int
    hops: int | None = None
    on_lost: Callable[[], None] | None = None
    sent_at: float = 0.0

    @classmethod
    def udp(cls, source: Address, destination: Address, data: bytes, hops: int | None = None) -> Packet:
        headers = IPV6_UDP_HEADERS if source.is_ipv6 else IPV4_UDP_HEADERS
        return cls(UDP, source, destination, data, len(data) + headers, hops)

    def copies(self, count: int) -> list[Packet]:
        """This packet, and as many like it as it takes to come so often; none for 0."""
        return [self, *(replace(self) for _ in range(1, count))][:count]

    def lost(self) -> None:
        if self.on_lost is not None:
            self.on_lost()

    def hop(self, count: int = ROUTER_HOPS) -> bool:
        """Whether the packet survives so many routers more."""
        if self.hops is None:
            return True
        self.hops -= count
        return self.hops > 0


@dataclass(eq=False)
class Network:
    """The internet itself, or what lies behind a boundary. Networks nest: a carrier's is a parent.

    `sites` are the networks inside, by each address that leads into them.
    """

    name: str
    parent: Network | None = None
    boundary: Boundary | None = None
    hosts: dict[str, Host] = field(default_factory=dict)
    sites: dict[str, Network] = field(default_factory=dict)

    def knows(self, host: str) -> bool:
        return host in self.hosts or host in self.sites

    def claim(self, address: str) -> None:
        """Raises `UsageError` when somebody has that address."""
        if self.knows(address):
            raise UsageError(f"{address} is taken in {self.name}")


@dataclass(eq=False)
class Host:
    """A computer. Each of its addresses is in one network; `sockets` take datagrams, `tcp` takes segments."""

    name: str
    networks: dict[str, Network] = field(default_factory=dict)
    sockets: dict[Address, Callable[[Packet], None]] = field(default_factory=dict)
    tcp: Callable[[Packet], None] | None = None


Place: TypeAlias = Network | Host
