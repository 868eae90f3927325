"""What plans for hard NATs need of everything else of a traversal."""

from __future__ import annotations

from crowline.api.allowed import Allowed
from crowline.api.traversal.agent_events import AgentEvents
from crowline.api.traversal.gatherer import MAX_ADOPTED, Gatherer
from crowline.api.traversal.owner import PairOwner, TraversalOwner
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.events import IceEvent
from crowline.net.pump import Pump
from crowline.net.udp import UdpSocket

# Ports whose packets routers on the way read and rewrite, or keep for themselves: L2TP, H.323, PPTP, SSDP,
# MGCP, SIP, NAT-PMP with PCP. NATs give them to no client, or once in seven thousand times.
_WATCHED_PORTS = frozenset({1701, 1719, 1720, 1723, 1900, 2427, 2727, 5060, 5061, 5350, 5351})


class Adoption:
    """Makes the socket at which the other side was met one of ICE's (`punching.PunchOwner`)."""

    def __init__(
        self,
        owner: TraversalOwner,
        pairs: PairOwner,
        agent: IceAgent,
        pump: Pump[Transmit, IceEvent],
        gatherer: Gatherer,
        allowed: Allowed,
        events: AgentEvents,
    ) -> None:
        self._owner = owner
        self._pairs = pairs
        self._agent = agent
        self._pump = pump
        self._gatherer = gatherer
        self._allowed = allowed
        self._events = events

    def adopt(self, socket: UdpSocket, data: bytes, source: Address) -> None:
        """The other side was met at that socket, by this packet: it is a base from now on, or closed."""
        self._make_room()
        if not self._gatherer.adopt(socket):
            socket.close()
            return
        self._agent.receive(data, source, self._pump.now, socket.local)
        self._pump.flush()

    def is_adopted(self, base: Address) -> bool:
        return base in self._gatherer.adopted()

    def may_probe(self, address: Address) -> bool:
        """Whether a guess may go there."""
        return address.port not in _WATCHED_PORTS and self._allowed.check(address)

    def is_server(self, host: str) -> bool:
        """Whether one of our servers is there, which is nobody's NAT."""
        return self._gatherer.is_server(host)

    def vouch(self, host: str) -> None:
        """Ask the hub whether it saw the other side there."""
        self._owner.vouch(host)

    def forbidden(self, host: str) -> None:
        """This machine does not let packets out of `host`."""
        self._events.forbidden(host)

    def _make_room(self) -> None:
        """Close what was adopted once and leads nowhere any more."""
        adopted = self._gatherer.adopted()
        if len(adopted) >= MAX_ADOPTED:
            used = {pair.base for pair in self._agent.valid_pairs()} | set(self._pairs.bases_in_use())
            for base in adopted - used:
                self._gatherer.retire(base)
