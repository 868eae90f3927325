"""How two sides find pairs that work: candidates of both, and the checks between them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Iterable
from typing import TYPE_CHECKING

from crowline.api.options import Options
from crowline.api.port_mapping.meeting_ports import MappedPorts
from crowline.api.traversal.adoption import Adoption
from crowline.api.traversal.agent_events import AgentEvents
from crowline.api.traversal.announcer import Announcer
from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.other_side import OtherSide
from crowline.api.traversal.owner import PairOwner, TraversalOwner
from crowline.api.traversal.punching import Punching
from crowline.api.traversal.questions import Questions
from crowline.api.traversal.renewals import Renewals
from crowline.api.traversal.restarts import Restarts
from crowline.api.traversal.surroundings import Surroundings
from crowline.api.traversal.tcp_ways import TcpWays
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate, CandidateType
from crowline.ice.checks import write_keepalive
from crowline.ice.events import IceEvent
from crowline.ice.pair import ValidPair
from crowline.link.identity import Identity
from crowline.net.chores import Chores
from crowline.net.pump import Pump
from crowline.net.tcp_framed import FramedStream
from crowline.net.udp import UdpSocket
from crowline.punch.punch_signals import PunchSignal
from crowline.rendezvous.signals import Description, Signal
from crowline.rendezvous.wire import ServerAddress, TurnGrant
from crowline.stun.message import TRANSACTION_ID_SIZE

if TYPE_CHECKING:
    from crowline.net.network import NetworkChange


class Traversal:
    """The ICE agent with its sockets. `signal` takes what the other side's traversal must hear.

    `hub_host` is the hub's address as this side reached it, `loopback` whether that is this machine.
    """

    def __init__(
        self,
        owner: TraversalOwner,
        pairs: PairOwner,
        options: Options,
        *,
        identity: Identity,
        controlling: bool,
        hub_host: str,
        loopback: bool,
        signal: Callable[[Signal], None],
    ) -> None:
        self._owner = owner
        self._pairs = pairs
        self._options = options
        self._here = here = Surroundings(options, loopback=loopback)
        pairs.reasons.heed(options)
        # Hears of everything that the agent says, before anything is done with it.
        self.on_ice: Callable[[IceEvent], None] = lambda _: None
        # The same of STUN packets, before the agent is told of them: data, source, base.
        self.on_heard: Callable[[memoryview, Address, Address], None] = lambda *_: None
        self._has_met = False
        self._agent = IceAgent(
            controlling,
            entropy=os.urandom,
            ta=MIN_TA,
            renominate=True,
            permits=here.allowed.check,
            tells_moves=options.tells_moves,
        )
        self._pump = Pump[Transmit, IceEvent](self._agent, self.send, self._on_event)
        self._gatherer = Gatherer(
            self, here.addresses, offer_host=not options.relay_only, hides_host=options.hide_addresses
        )
        # Whether translators may be in between, and something is to be done about them.
        is_outside = not (loopback or options.relay_only)
        self._announcer = Announcer(
            self._agent,
            self._pump,
            here.names,
            identity,
            private=options.relay_only or options.hide_addresses,
            punches=is_outside,
            signal=signal,
        )
        self._questions = Questions(self._gatherer, hub_host, here.translation.towards)
        self._restarts = Restarts(
            self._agent, self._pump, self._gatherer, self._announcer, self._questions, pairs
        )
        self._events = AgentEvents(
            owner,
            pairs,
            allowed=here.allowed,
            gatherer=self._gatherer,
            announcer=self._announcer,
            on_restarted=self._restarts.on_restarted,
        )
        self._other = OtherSide(
            self._agent,
            self._pump,
            allowed=here.allowed,
            names=here.names,
            translation=here.translation,
            permit=self._gatherer.permit,
            on_fading=pairs.on_fading,
            finds_names=not options.relay_only,
        )
        self._renewals = Renewals(self._gatherer, self)
        self._gatherer.on_seen = self._renewals.seen
        self._tcp = TcpWays(
            self, self._agent, self._pump, self._gatherer.factory, hides_host=options.hide_addresses
        )
        self._punching = Punching(
            Adoption(owner, pairs, self._agent, self._pump, self._gatherer, here.allowed, self._events),
            self._agent,
            signal=signal,
            servers=self._questions.udp_servers,
            reasons=pairs.reasons,
            is_wanted=is_outside,
        )
        self._mapped = MappedPorts(
            self._agent,
            self._gatherer,
            on_candidate=self.on_candidate,
            is_wanted=options.port_mapping and is_outside,
            waits=not controlling,
        )
        self._chores = Chores()

    # This side's candidates -------------------------------------------------------------------------

    def begin(self) -> None:
        """Describe this side and offer its sockets; what else leads to them follows as it is found."""
        self._announcer.describe()
        self._gatherer.offer_hosts()
        self._mapped.begin()

    async def query_stun(self, servers: Iterable[ServerAddress]) -> None:
        """Have the servers say under which addresses they see the sockets, again and again until `meet`, and
        whenever this machine's network changes.
        """
        self._punching.wait()
        self._here.watch(self.on_network_change)
        self._chores.beside(self._translate())
        await self._questions.keep_asking(servers, lambda: self._has_met)

    async def query_other_stun(self, servers: Iterable[ServerAddress]) -> None:
        """There are other servers to ask from now on."""
        self._questions.stun_servers = list(servers)
        await self._questions.query_stun()

    def offer(self) -> None:
        """Tell what has been found and what will be, to a side that will hear of it later: until `meet` the
        servers are asked on.
        """
        self._mapped.hurry()
        self._announcer.meet()

    def meet(self) -> None:
        """The other side is there: offer what has been found, and what will be."""
        if self._has_met:
            return
        self._has_met = True
        self._gatherer.expect_more()  # what TCP finds, once it is known whether the other side can use it
        self._mapped.meet()
        self._announcer.meet()

    async def allocate(self, grant: TurnGrant | None) -> None:
        """The last questions: relayed addresses, where there is a grant for them."""
        if self._here.translation.is_wanted:
            await self._here.translation.find()
        await self._questions.allocate(grant)

    def open_tcp(self, *, usable: bool) -> None:
        """Seek ways by TCP too, where both sides can use what comes of them."""
        if usable and not self._options.relay_only:
            self._chores.beside(self._tcp.seek(self._questions.tcp_servers, lambda: self._here.addresses))
        else:
            self.on_tcp_gathered()

    # The other side's -------------------------------------------------------------------------------

    def set_remote(self, description: Description) -> bool:
        """Begin to check, or to check anew; False when the credentials are none (RFC 8445 §5.3)."""
        self._restarts.is_understood = description.restarts
        makes_sense = self._other.describe(description)
        if makes_sense:
            self._punching.meet(description)
        return makes_sense

    def hear(self, signal: Signal) -> None:
        """What the other side says of its candidates, and of plans."""
        if isinstance(signal, PunchSignal):
            self._punching.hear(signal)
        else:
            self._other.hear(signal)

    def vouched(self, host: str) -> None:
        """The hub saw the other side at that IP address."""
        self._punching.vouched(host)
        self._tcp.seen_at(host)

    def knock(self, address: Address, hop_limit: int) -> None:
        """Open this side's translators for what may come from there, without a word to whoever is there."""
        if self._here.allowed.check(address):
            data = write_keepalive(os.urandom(TRANSACTION_ID_SIZE))
            for base in self._gatherer.bases():
                if base.is_ipv6 == address.is_ipv6:
                    self._gatherer.send(Transmit(data, address, base, hop_limit=hop_limit))

    def adopt(self, socket: UdpSocket, takes: Callable[[memoryview, Address], bool]) -> None:
        """Somebody else's socket is one of this side's too. `takes`: asked of each datagram first."""
        self._gatherer.adopt(socket, takes)

    # A network that changes -------------------------------------------------------------------------

    def on_network_change(self, change: NetworkChange) -> None:
        """Leave what is gone, offer what is new, and have the owner ask for a restart.

        Until then new candidates are checked under the credentials that both sides have: it may be that
        nothing leads to the other side but those checks.
        """
        gone = self._gatherer.hosts() - self._here.follow(change)
        self._gatherer.follow(self._here.addresses, gone)
        self._tcp.follow(self._here.addresses, gone)
        self._mapped.follow()
        self._chores.beside(self._questions.query_stun())
        self._chores.beside(self._translate())
        self._punching.on_network_change()
        self._restarts.is_due = True
        # An address that went and came back may have come back in another network.
        self._owner.on_network_changed(gone | change.renewed)

    def meet_again(self) -> None:
        """The two sides have another way to tell each other things, or have lost each other: tell all and
        look for all pairs anew, and have the servers say once more under which addresses they see this side.

        What carries data goes on meanwhile.
        """
        self._restarts.demand()
        self._chores.beside(self._questions.query_stun())

    def restart(self) -> None:
        """Look for all pairs anew (RFC 8445 §9) if the network has changed; what carries data goes on."""
        self._restarts.take()

    # Pairs ------------------------------------------------------------------------------------------

    @property
    def agent(self) -> IceAgent:
        """For whoever looks on; what it is told, this traversal tells it."""
        return self._agent

    def valid_pairs(self) -> list[ValidPair]:
        """The pairs that work and are allowed, best first."""
        return [pair for pair in self._agent.valid_pairs() if self._here.allowed.pair(pair)]

    def use(self, pair: ValidPair) -> None:
        """Keep consent for a pair that carries data, and make its packets cheap."""
        self._agent.use(pair, self._pump.now)
        self._gatherer.bind(pair.base, pair.remote.address)
        self._pump.flush()

    def release(self, pair: ValidPair) -> None:
        self._agent.release(pair)

    def hand_over(self, pair: ValidPair) -> None:
        self._agent.hand_over(pair)

    def nominate(self, pair: ValidPair) -> None:
        """Have both sides agree on a pair that need not be the best, where this side has the say."""
        if self._agent.nominate(pair, self._pump.now):
            self._pump.flush()

    def send(self, transmit: Transmit) -> None:
        """Send by the base that `transmit.local` names, of that transport."""
        if transmit.transport.is_stream:
            self._tcp.send(transmit)
        else:
            self._gatherer.send(transmit)

    def stream(self, pair: ValidPair) -> FramedStream | None:
        """The connection of a TCP pair."""
        return self._tcp.stream(pair)

    @property
    def controlling(self) -> bool:
        """This side's role in ICE now."""
        return self._agent.controlling

    def transport_of(self, base: Address) -> Transport:
        """How packets of that base leave this machine."""
        return self._gatherer.transport_of(base)

    async def give_back(self) -> None:
        """Stop checking, and give back what servers hold for us; `close` follows."""
        self._stay()
        self._tcp.close()
        await asyncio.gather(self._gatherer.give_back(), self._mapped.give_back())

    def close(self) -> None:
        """Close every socket."""
        self._stay()
        self._tcp.close()
        self._mapped.close()
        self._gatherer.close()

    # What the gatherer says -------------------------------------------------------------------------

    def on_candidate(self, candidate: Candidate) -> None:
        base = candidate.sending_base
        if not self._here.allowed.candidate(candidate) or self._renewals.is_renewed(base):
            return
        if candidate.type is CandidateType.HOST and not candidate.protocol.is_stream:
            self._renewals.opened(base)
        self._announcer.add(candidate)
        self._mapped.heard_of(candidate)

    def on_base_lost(self, base: Address, transport: Transport = Transport.UDP) -> None:
        if not transport.is_stream:
            self._renewals.closed(base)
        self._announcer.lost(base, transport)
        self._mapped.closed(base, transport)

    def on_gathered(self) -> None:
        self._announcer.end()

    def on_tcp_gathered(self) -> None:
        self._gatherer.expected_came()

    def on_stun(self, data: memoryview, source: Address, local: Address) -> None:
        self.on_heard(data, source, local)
        self._agent.receive(data, source, self._pump.now, local)
        self._pump.flush()

    def on_packets(self, data: memoryview, segment_size: int, source: Address, local: Address) -> None:
        self._pairs.on_packets(data, segment_size, source, local)

    def on_drained(self) -> None:
        self._owner.on_drained()

    def on_unsent(self, base: Address, destination: Address, problem: SendProblem) -> None:
        self._agent.send_failed(base, destination, problem)
        self._pump.flush()

    # Sockets that are renewed ------------------------------------------------------------------------

    def fell_silent(self, pair: ValidPair) -> None:
        """A direct path carries nothing any more: perhaps its mapping has ended."""
        self._renewals.fell_silent(pair.base)

    def bases_in_use(self) -> Collection[Address]:
        return self._pairs.bases_in_use()

    def on_fading(self, base: Address) -> None:
        self._announcer.fading(base)
        self._pairs.on_fading(base)

    # ------------------------------------------------------------------------------------------------

    def _on_event(self, event: IceEvent) -> None:
        self.on_ice(event)
        self._tcp.on_event(event)
        self._punching.on_event(event)
        self._events.tell(event)

    async def _translate(self) -> None:
        """Without IPv4, and once the way to it is known: ask and check by that way too."""
        if await self._here.translation.seek():
            self._other.translate()
            await self._questions.query_stun()

    def _stay(self) -> None:
        """Check no more, and follow the network no more."""
        self._pump.close()
        self._agent.close()
        self._renewals.close()
        self._punching.close()
        self._other.close()
        self._here.close()
        self._restarts.close()
        self._chores.stop()
