"""What a virtual peer's ICE agent does by TCP: `api/traversal/tcp_ways.py` without an event loop."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory, TcpType
from crowline.ice.events import IceEvent
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.lab.virtual import Internet
from crowline.lab.virtual_pump import VirtualPump
from crowline.lab.virtual_tcp import TcpHost
from crowline.lab.virtual_tcp_pairs import VirtualTcpPairs
from crowline.net.tcp_events import obey
from crowline.net.tcp_mapping import MappingEvent
from crowline.net.tcp_pairs import TcpHandlers
from crowline.punch.syn_budget import SynBudget
from crowline.stun.client import Mapped
from crowline.stun.message import is_stun

# Seconds after which nobody waits for a server's answer any more; one that comes later still counts.
ANSWER_LIMIT = 5.0


class TcpOwner(Protocol):
    """What these ways tell their owner."""

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_gathered(self) -> None:
        """Said once: the server has answered, or took too long."""

    def on_packet(self, data: Buffer, source: Address, local: Address) -> None:
        """A packet that is not STUN."""

    def on_connection_lost(self, local: Address, remote: Address) -> None:
        """After the agent was told: links on it are over."""


class VirtualTcpWays:
    """Hands the agent what the connections bring, and does what its events ask for."""

    def __init__(
        self,
        internet: Internet,
        tcp: TcpHost,
        owner: TcpOwner,
        agent: IceAgent,
        pump: VirtualPump[Transmit, IceEvent],
        factory: CandidateFactory,
    ) -> None:
        self._internet = internet
        self._owner = owner
        self._agent = agent
        self._pump = pump
        self._factory = factory
        handlers = TcpHandlers(self._packet, self._opened, self._lost, self._mapping, lambda: None)
        self._budget = SynBudget(MAX_REMOTE_CANDIDATES)
        self._pairs = VirtualTcpPairs(internet, tcp, handlers, self._budget)
        self._questions: set[Address] = set()  # bases that the server has not answered yet
        self._has_gathered = False

    @property
    def bases(self) -> list[Address]:
        """Where it listens."""
        return self._pairs.bases

    def open(self, hosts: Iterable[str], server: Address) -> None:
        """Listen at these addresses, offer that, and ask the STUN server of their family about it."""
        for host in hosts:
            base = self._pairs.bind(host)
            for tcp_type in (TcpType.ACTIVE, TcpType.PASSIVE, TcpType.SIMULTANEOUS_OPEN):
                self._owner.on_candidate(self._factory.host(base, tcp_type))
            if base.is_ipv6 == server.is_ipv6:
                self._questions.add(base)
        self._pairs.ask(server)
        self._internet.call_at(self._internet.now + ANSWER_LIMIT, self._gathered)
        self._check_gathered()

    def on_event(self, event: IceEvent) -> None:
        """What the agent says; most of it is not about TCP."""
        obey(event, self._pairs, self._budget)

    def seen_at(self, host: str) -> None:
        """The hub vouches for it that the other side is there: it may be dialled as often as plans want."""
        self._pairs.seen_at(host)

    def send(self, transmit: Transmit) -> bool:
        """Send by the connection of its pair; False where there is none."""
        return self._pairs.send(transmit)

    def nominate(self, pair: ValidPair) -> None:
        """A link begins on it, and ICE has no more to do there."""
        self._pairs.nominate(pair.base, pair.remote.address)
        self._agent.hand_over(pair)

    def end(self, pair: ValidPair) -> None:
        """The link on it is over."""
        if pair.transport.is_stream:
            self._pairs.end(pair.base, pair.remote.address)
            self._agent.disconnected(pair.base, pair.remote.address, self._internet.now)
            self._pump.flush()

    def close(self) -> None:
        self._has_gathered = True
        self._pairs.close()

    # ------------------------------------------------------------------------------------------------

    def _packet(self, data: bytes, source: Address, local: Address) -> None:
        if is_stun(data):
            self._agent.receive(data, source, self._internet.now, local, Transport.TCP)
            self._pump.flush()
        else:
            self._owner.on_packet(data, source, local)

    def _opened(self, local: Address, remote: Address) -> None:
        self._agent.connected(local, remote, self._internet.now)
        self._pump.flush()

    def _lost(self, local: Address, remote: Address, _: str) -> None:
        self._agent.disconnected(local, remote, self._internet.now)
        self._pump.flush()
        self._owner.on_connection_lost(local, remote)

    def _mapping(self, event: MappingEvent) -> None:
        base = event.local
        if base is None:
            return
        if isinstance(event, Mapped) and event.address != base:
            so = TcpType.SIMULTANEOUS_OPEN
            self._owner.on_candidate(self._factory.server_reflexive(event.address, base, event.server, so))
        self._questions.discard(base)
        self._check_gathered()

    def _check_gathered(self) -> None:
        if not self._questions:
            self._gathered()

    def _gathered(self) -> None:
        if not self._has_gathered:
            self._has_gathered = True
            self._owner.on_gathered()
