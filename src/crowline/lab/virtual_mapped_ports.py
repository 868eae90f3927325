"""When a virtual peer has its gateway open ports, and what it offers: as `api/mapped_ports.py`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate, CandidateFactory, TcpType
from crowline.lab.virtual import Internet
from crowline.lab.virtual_port_mapping import VirtualPortMapping
from crowline.lab.virtual_site import VirtualSite
from crowline.lab.virtual_tcp import TcpHost

# Seconds after both sides are there in which the joining side leaves its gateway alone: mostly there is a
# direct path by then.
JOINER_DELAY = 0.5


class VirtualMappedPorts:
    """`outside` are the addresses that lead here now. A candidate of each goes to `on_candidate`."""

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
        self._ports = VirtualPortMapping(
            internet, site, tcp, on_mapped=self._mapped, on_lost=lambda _, base, outside: self._lost(outside)
        )

    def open(self, transport: Transport, bases: Iterable[Address]) -> None:
        """Have the ports of these sockets opened, as far as they are not."""
        for base in bases:
            if (transport, base) not in self._asked:
                self._asked.add((transport, base))
                self._ports.open(transport, base)

    def open_later(self, work: Callable[[], None]) -> None:
        """Do `work`, which opens ports, when a joining side may."""
        self._internet.call_at(self._internet.now + JOINER_DELAY, work)

    def close(self) -> None:
        self._ports.close()

    def _mapped(self, transport: Transport, base: Address, outside: Address) -> None:
        self.outside.add(outside)
        gateway = Address(self._gateway, 0)
        tcp_type = TcpType.PASSIVE if transport.is_stream else None
        self._on_candidate(self._factory.server_reflexive(outside, base, gateway, tcp_type))

    def _lost(self, outside: Address) -> None:
        self.outside.discard(outside)
