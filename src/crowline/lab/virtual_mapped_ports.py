"""When a virtual peer has its gateway open ports, and what it offers: as `api/port_mapping/` does it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate, CandidateFactory, TcpType
from crowline.lab.virtual import Internet
from crowline.lab.virtual_port_mapping import MappedPort, VirtualPortMapping
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_tcp import TcpHost

# Seconds after its beginning at which a side that waits asks, and after both are there at which a side that
# joins does: mostly there is a direct path by then.
HOST_DELAY, JOINER_DELAY = 0.2, 0.5


class VirtualMappedPorts:
    """`outside` are the addresses that its gateway has opened. Candidates go to `on_candidate`."""

    def __init__(
        self,
        internet: Internet,
        site: VirtualSite,
        tcp: TcpHost,
        factory: CandidateFactory,
        *,
        on_candidate: Callable[[Candidate], None],
    ) -> None:
        self.outside: set[Address] = set()
        self._internet = internet
        self._gateway = site.router.host if site.router is not None else ""
        self._factory = factory
        self._on_candidate = on_candidate
        self._asked: set[tuple[Transport, Address]] = set()
        self._seen: dict[str, str] = {}
        self._ports = VirtualPortMapping(internet, site, tcp, on_mapped=self._offer, on_lost=self._lost)

    def open(self, transport: Transport, bases: Iterable[Address]) -> None:
        """Have the ports of these sockets opened, as far as they are not."""
        for base in bases:
            if (transport, base) not in self._asked:
                self._asked.add((transport, base))
                self._ports.open(transport, base)

    def open_later(self, delay: float, work: Callable[[], None]) -> None:
        """Do `work`, which opens ports, so many seconds from now."""
        self._internet.call_at(self._internet.now + delay, work)

    def saw(self, base: Address, host: str) -> None:
        """A server sees a socket of `base.host` at that host."""
        if self._seen.get(base.host) != host:
            self._seen[base.host] = host
            for opened in self._ports.opened():
                self._offer(opened)

    def close(self) -> None:
        self._ports.close()

    def _offer(self, opened: MappedPort) -> None:
        """Where the gateway says that it is, and where a server sees this side, if that is elsewhere."""
        seen = self._seen.get(opened.base.host, "")
        if opened.outside is not None:
            self._tell(opened, opened.outside, self._gateway)
        if seen and seen != opened.base.host and (opened.outside is None or seen != opened.outside.host):
            self._tell(opened, Address(seen, opened.port), seen)

    def _tell(self, opened: MappedPort, outside: Address, server: str) -> None:
        if opened.outside == outside:
            self.outside.add(outside)
        tcp_type = TcpType.PASSIVE if opened.transport.is_stream else None
        candidate = self._factory.server_reflexive(outside, opened.base, Address(server, 0), tcp_type)
        self._on_candidate(candidate)

    def _lost(self, lost: MappedPort) -> None:
        if lost.outside is not None:
            self.outside.discard(lost.outside)
