"""What one side's ICE agent does by TCP (RFC 6544): its ports, their candidates, and the connections.

Opened when both sides are known to make links of TCP connections. Where UDP leads across, TCP comes second;
where UDP is blocked or its mappings cannot be foreseen, it may be the only direct way.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Iterable
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate, CandidateFactory, CandidateType, TcpType
from crowline.ice.events import IceEvent, PairLost, PairNominated, PairValid, Restarted
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.link.choice import category_of
from crowline.net.pump import Pump
from crowline.net.tcp_events import obey
from crowline.net.tcp_framed import FramedStream
from crowline.net.tcp_mapping import MappingEvent
from crowline.net.tcp_pairs import TcpHandlers, TcpPairs
from crowline.punch.syn_budget import SynBudget
from crowline.stun.client import Mapped

# Seconds after which nobody waits for a server's answer any more; one that comes later still counts.
ANSWER_LIMIT = 5.0
# Seconds that UDP has for itself: where it leads across, nothing of TCP comes before the first direct packet.
HEAD_START = 0.2
# Seconds for which a direct way by UDP has been agreed on until no server is kept connected for TCP any more.
REST_AFTER = 60.0


class TcpOwner(Protocol):
    """What these ways tell their owner."""

    def on_candidate(self, candidate: Candidate) -> None: ...

    def on_base_lost(self, base: Address, transport: Transport = Transport.UDP) -> None: ...

    def on_drained(self) -> None:
        """All that one read brought was handed on, or there is room again."""

    def on_tcp_gathered(self) -> None:
        """Said once: the servers have answered, or took too long."""


class TcpWays:
    """Hands the agent what the connections bring, and does what its events ask for."""

    def __init__(
        self,
        owner: TcpOwner,
        agent: IceAgent,
        pump: Pump[Transmit, IceEvent],
        factory: CandidateFactory,
        *,
        hides_host: bool = False,
    ) -> None:
        """`hides_host`: the other side will not be told the ports' addresses, so it is told what servers see
        even where that is the same.
        """
        self._owner = owner
        self._agent = agent
        self._pump = pump
        self._factory = factory
        self._hides_host = hides_host
        self._budget = SynBudget(MAX_REMOTE_CANDIDATES)
        self._pairs = TcpPairs(
            TcpHandlers(self._packet, self._opened, self._lost, self._mapping, owner.on_drained),
            self._budget,
            entropy=os.urandom,
        )
        self._servers: list[Address] = []
        # Questions without an answer, by the port and the server; None when nobody waits any more.
        self._open_questions: set[tuple[Address, Address]] | None = set()
        self._timer: asyncio.TimerHandle | None = None
        self._rest_timer: asyncio.TimerHandle | None = None
        self._is_resting = False
        self._is_open = False

    async def seek(
        self, servers: Callable[[], Awaitable[list[Address]]], hosts: Callable[[], Iterable[str]]
    ) -> None:
        """Open it after UDP's head start, in which the names of servers are looked up."""
        found, _ = await asyncio.gather(servers(), asyncio.sleep(HEAD_START))
        self.open(hosts(), found)

    def open(self, hosts: Iterable[str], servers: Iterable[Address]) -> None:
        """Listen at these addresses of this machine, offer that, and ask the STUN servers about it."""
        if self._is_open or not _can_watch_sockets():
            self._gathered()
            return
        self._is_open = True
        self._servers = list(servers)
        self._timer = asyncio.get_running_loop().call_later(ANSWER_LIMIT, self._gathered)
        for host in hosts:
            self._listen(host)
        self._check_gathered()

    def follow(self, hosts: Iterable[str], gone: Iterable[str]) -> None:
        """This machine's addresses are others now; `gone` are no more."""
        lost = set(gone)
        for base in self._pairs.bases:
            if base.host in lost:
                self._pairs.unbind(base)
                self._owner.on_base_lost(base, Transport.TCP)
        for host in hosts if self._is_open else ():
            if all(base.host != host for base in self._pairs.bases):
                self._listen(host)

    def on_event(self, event: IceEvent) -> None:
        """What the agent says; most of it is not about TCP."""
        obey(event, self._pairs, self._budget)
        if isinstance(event, PairValid) and event.pair.remote.type is not CandidateType.RELAYED:
            # Also where a relay was needed for that: it is the other side's translator.
            self.seen_at(event.pair.remote.address.host)
        if isinstance(event, PairNominated):
            self._rest_later()
        elif isinstance(event, Restarted) or (isinstance(event, PairLost) and not self._leads_by_udp()):
            self._rise()

    def seen_at(self, host: str) -> None:
        """The other side is there, as the hub or a check says: it may be dialled more than a few times."""
        self._pairs.seen_at(host)

    def send(self, transmit: Transmit) -> None:
        """A message of the agent for the connection between these addresses."""
        self._pairs.send(transmit)

    def stream(self, pair: ValidPair) -> FramedStream | None:
        """The connection of a pair."""
        return self._pairs.stream(pair.base, pair.remote.address)

    def close(self) -> None:
        """End everything but links."""
        self._stop_waiting()
        if self._rest_timer is not None:
            self._rest_timer.cancel()
        self._pairs.close()

    # ------------------------------------------------------------------------------------------------

    def _listen(self, host: str) -> None:
        try:
            base = self._pairs.bind(Address(host, 0))
        except LocalProblem:
            return
        for tcp_type in (TcpType.ACTIVE, TcpType.PASSIVE, TcpType.SIMULTANEOUS_OPEN):
            self._owner.on_candidate(self._factory.host(base, tcp_type))
        if self._open_questions is not None:
            family = [each for each in self._servers if each.is_ipv6 == base.is_ipv6]
            self._open_questions.update((base, server) for server in family)
        self._ask()

    def _ask(self) -> None:
        for server in self._servers:
            self._pairs.ask(server)

    # Servers that are left alone ---------------------------------------------------------------------

    def _leads_by_udp(self) -> bool:
        pair = self._agent.selected
        return pair is not None and category_of(pair) == "direct" and not pair.transport.is_stream

    def _rest_later(self) -> None:
        if self._rest_timer is None:
            self._rest_timer = asyncio.get_running_loop().call_later(REST_AFTER, self._rest)

    def _rest(self) -> None:
        """Nobody needs to find a port by which nothing comes."""
        self._rest_timer = None
        if self._leads_by_udp():
            self._is_resting = True
            self._pairs.stop_asking()

    def _rise(self) -> None:
        """TCP may be needed again."""
        if self._is_resting:
            self._is_resting = False
            self._ask()

    # ------------------------------------------------------------------------------------------------

    def _packet(self, data: bytes, source: Address, local: Address) -> None:
        self._agent.receive(data, source, self._pump.now, local, Transport.TCP)
        self._pump.flush()

    def _opened(self, local: Address, remote: Address) -> None:
        self._agent.connected(local, remote, self._pump.now)
        self._pump.flush()

    def _lost(self, local: Address, remote: Address, reason: str) -> None:
        self._agent.disconnected(local, remote, self._pump.now)
        self._pump.flush()

    def _mapping(self, event: MappingEvent) -> None:
        if isinstance(event, Mapped) and event.local is not None:
            candidate = self._factory.server_reflexive(
                event.address, event.local, event.server, TcpType.SIMULTANEOUS_OPEN
            )
            if self._hides_host or event.address != event.local:
                self._owner.on_candidate(candidate)
        if self._open_questions is not None and event.local is not None:
            self._open_questions.discard((event.local, event.server))
            self._check_gathered()

    def _check_gathered(self) -> None:
        if not self._open_questions:
            self._gathered()

    def _gathered(self) -> None:
        if self._open_questions is None:
            return
        self._stop_waiting()
        self._owner.on_tcp_gathered()

    def _stop_waiting(self) -> None:
        self._open_questions = None
        if self._timer is not None:
            self._timer.cancel()


def _can_watch_sockets() -> bool:
    """Windows' usual event loop cannot wait for a listening socket of ours."""
    proactor = getattr(asyncio, "ProactorEventLoop", None)
    return proactor is None or not isinstance(asyncio.get_running_loop(), proactor)
