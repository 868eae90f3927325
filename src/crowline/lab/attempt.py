"""Two ICE agents that try to reach each other across a virtual internet, from gathering to nomination."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory
from crowline.ice.events import IceEvent, IceFailed, PairNominated, PairValid
from crowline.ice.pair import ValidPair
from crowline.lab.virtual import Host, Internet, Node
from crowline.stun.client import BindingClient, Mapped
from crowline.stun.responder import Responder


@dataclass(frozen=True, slots=True)
class LocalCandidate:
    """Found a candidate: tell the other side."""

    candidate: Candidate


@dataclass(frozen=True, slots=True)
class GatheringDone:
    """Every server has answered or been given up."""


PeerEvent: TypeAlias = IceEvent | LocalCandidate | GatheringDone


class IcePeer:
    """An agent with its gathering, as one machine: it shares the sockets between STUN queries and checks."""

    def __init__(self, agent: IceAgent, *, entropy: Callable[[int], bytes]) -> None:
        self.agent = agent
        self._factory = CandidateFactory()
        self._binding = BindingClient(entropy=entropy)
        self._events: deque[PeerEvent] = deque()
        self._open_queries = 0
        self._done = False

    def gather(self, bases: Sequence[Address], servers: Sequence[Address], now: float) -> None:
        """Host candidates at once; reflexive ones as `servers` of the same family answer."""
        for base in bases:
            self._found(self._factory.host(base), now)
        for base in bases:
            for server in servers:
                if base.is_ipv6 == server.is_ipv6:
                    self._open_queries += 1
                    self._binding.query(server, now, base)
        self._finish(now)

    def add_reflexive(self, address: Address, base: Address, server: Address, now: float) -> None:
        """A reflexive candidate that somebody else found out."""
        self._found(self._factory.server_reflexive(address, base, server), now)

    def add_relayed(self, relayed: Address, mapped: Address, server: Address, now: float) -> None:
        """A relay's socket that this machine is bound to."""
        self._found(self._factory.relayed(relayed, mapped, server), now)

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if self._binding.owns(data):
            self._binding.receive(data, source, now, local)
            self._take_answers(now)
        else:
            self.agent.receive(data, source, now, local)

    def handle_timeout(self, now: float) -> None:
        self._binding.handle_timeout(now)
        self._take_answers(now)
        self.agent.handle_timeout(now)

    def next_timeout(self) -> float | None:
        times = (self._binding.next_timeout(), self.agent.next_timeout())
        return min((time for time in times if time is not None), default=None)

    def next_transmit(self) -> Transmit | None:
        return self._binding.next_transmit() or self.agent.next_transmit()

    def next_event(self) -> PeerEvent | None:
        return self._events.popleft() if self._events else self.agent.next_event()

    def _found(self, candidate: Candidate, now: float) -> None:
        self.agent.add_local_candidate(candidate, now)
        self._events.append(LocalCandidate(candidate))

    def _take_answers(self, now: float) -> None:
        while (event := self._binding.next_event()) is not None:
            self._open_queries -= 1
            if isinstance(event, Mapped) and event.local is not None and event.address != event.local:
                self.add_reflexive(event.address, event.local, event.server, now)
        self._finish(now)

    def _finish(self, now: float) -> None:
        if not self._open_queries and not self._done:
            self._done = True
            self.agent.end_of_local_candidates(now)
            self._events.append(GatheringDone())


@dataclass(eq=False)
class Side:
    """One side of an attempt, and what became of it; times are those of the internet."""

    peer: IcePeer
    node: Node
    valid: list[tuple[float, ValidPair]] = field(default_factory=list)
    nominated: list[tuple[float, ValidPair]] = field(default_factory=list)
    failed_at: float | None = None
    other_events: list[tuple[float, Any]] = field(default_factory=list)

    @property
    def agent(self) -> IceAgent:
        return self.peer.agent

    @property
    def kinds(self) -> set[str]:
        """Kinds of all pairs that became valid."""
        return {pair.kind for _, pair in self.valid}


class Attempt:
    """Two sides, and the signalling between them with its own delay (seconds one way), free of loss.

    Both sides are in the internet from the start; `start` begins gathering on one of them.
    """

    def __init__(self, internet: Internet, *, signal_delay: float = 0.02, **agent_options: Any) -> None:
        self.internet = internet
        self.signal_delay = signal_delay
        self.sides = (self._side(True, agent_options), self._side(False, agent_options))

    def start(
        self,
        side: Side,
        host: Host,
        bases: Sequence[Address],
        servers: Sequence[Address] = (),
        *,
        at: float = 0.0,
        relay: tuple[Host, Address] | None = None,
    ) -> None:
        """At the time `at`: bind, gather, and tell the other side our credentials and candidates."""
        for base in bases:
            self.internet.bind(side.node, host, base)
        if relay is not None:
            self.internet.bind(side.node, *relay)
        self.internet.call_at(at, lambda: self._begin(side, bases, servers, relay))

    def run(self, *, limit: float = 60.0) -> bool:
        """Until both sides have nominated; False when one failed or the time ran out."""
        one, other = self.sides
        return self.internet.run(lambda: bool(one.nominated and other.nominated), limit=limit)

    def _side(self, controlling: bool, agent_options: dict[str, Any]) -> Side:
        entropy = self.internet.random.randbytes
        peer = IcePeer(IceAgent(controlling, entropy=entropy, **agent_options), entropy=entropy)
        side = Side(peer, self.internet.attach(peer))
        side.node.on_event = lambda event: self._on_event(side, event)
        return side

    def _begin(
        self,
        side: Side,
        bases: Sequence[Address],
        servers: Sequence[Address],
        relay: tuple[Host, Address] | None,
    ) -> None:
        agent, now = side.agent, self.internet.now
        self._tell(side, lambda to, at: to.set_remote(agent.ufrag, agent.pwd, at))
        if relay is not None:
            side.peer.add_relayed(relay[1], bases[0], relay[1], now)
        side.peer.gather(bases, servers, now)
        self.internet.poke(side.node)

    def _on_event(self, side: Side, event: PeerEvent) -> None:
        now = self.internet.now
        if isinstance(event, LocalCandidate):
            candidate = event.candidate
            self._tell(side, lambda to, at: to.add_remote_candidate(candidate, at))
        elif isinstance(event, GatheringDone):
            self._tell(side, lambda to, at: to.end_of_remote_candidates(at))
        elif isinstance(event, PairValid):
            side.valid.append((now, event.pair))
        elif isinstance(event, PairNominated):
            side.nominated.append((now, event.pair))
        elif isinstance(event, IceFailed):
            side.failed_at = now
        else:
            side.other_events.append((now, event))

    def _tell(self, side: Side, act: Callable[[IceAgent, float], None]) -> None:
        other = self.sides[1] if side is self.sides[0] else self.sides[0]

        def arrive() -> None:
            act(other.agent, self.internet.now)
            self.internet.poke(other.node)

        self.internet.call_at(self.internet.now + self.signal_delay, arrive)


def stun_server(internet: Internet, host: str, port: int = 3478) -> Address:
    """A public host that runs the real responder; gives its address."""
    address = Address(host, port)
    internet.bind(internet.attach(Responder()), internet.host(host), address)
    return address
