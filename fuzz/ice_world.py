"""Two ICE agents, full or lite, what users and a witness on the wire know, and what must always hold."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

from hypothesis.stateful import RuleBasedStateMachine, invariant

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.budget import MAX_UNANSWERED, MAX_UNANSWERED_PER_HOST
from crowline.ice.candidate import CandidateFactory
from crowline.ice.checklist import MAX_PAIRS
from crowline.ice.events import (
    ConnectionUnwanted,
    ConnectionWanted,
    IceEvent,
    IceFailed,
    PairLost,
    PairNominated,
    PairValid,
)
from crowline.ice.lite import LiteAgent
from crowline.ice.outstanding import MAX_OUTSTANDING
from crowline.ice.pair import ValidPair
from crowline.stun.message import MalformedStun, MessageClass, parse

BASES = (
    [Address("44.1.1.1", 1000 + n) for n in range(2)] + [Address("2a01:4f8:1::1", 1000)],
    [Address("44.2.2.2", 2000 + n) for n in range(2)] + [Address("2a01:4f8:2::1", 2000)],
)
VICTIMS = [Address("44.66.66.66", 6000 + n) for n in range(8)] + [Address("2a01:4f8:66::1", 6000)]
_KEPT = 200  # packets that the wire remembers
_QUIET = 400.0  # seconds after which nothing can be left of a conversation that has ended
_STEPS = 200  # calls at one moment after which a machine has come to rest

Ends = tuple[Address, Address]  # of a TCP connection: the own base and the other side's address


@dataclass(slots=True)
class Side:
    """One agent, and what its user and a witness on the wire have seen."""

    agent: IceAgent | LiteAgent
    factory: CandidateFactory = field(default_factory=CandidateFactory)
    usable: list[ValidPair] = field(default_factory=list)
    asked: Counter[Address] = field(default_factory=Counter)
    # TCP connections that the agent was told of, and attempts that it asked for.
    connections: set[Ends] = field(default_factory=set)
    wanted: dict[Ends, bool] = field(default_factory=dict)
    # Connections of pairs that carry something else than ICE.
    links: set[Ends] = field(default_factory=set)

    @property
    def is_lite(self) -> bool:
        return isinstance(self.agent, LiteAgent)


class IceWorld(RuleBasedStateMachine):
    """Each side has up to three bases. Third parties never answer; everybody else may do anything."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self.dice = random.Random(11)
        self.sides: list[Side] = []
        self.flying: list[tuple[int, Transmit]] = []
        self.seen: list[tuple[int, Transmit]] = []

    # --- what must always hold --------------------------------------------------------------------------

    @invariant()
    def events_and_state_agree(self) -> None:
        """Pairs that were said to work, and not to be lost, are those that the agent knows."""
        for number, side in enumerate(self.sides):
            agent, session = side.agent, side.agent._session
            assert {id(pair) for pair in side.usable} == {id(pair) for pair in agent.valid_pairs()}
            assert agent.selected is None or agent.selected in side.usable
            # Only an answer proves an address, and third parties give none; a lite agent asks nobody.
            assert side.is_lite or all(pair.remote.address in BASES[1 - number] for pair in side.usable)
            assert all(agent.is_valid(pair.base, pair.remote.address, pair.transport) for pair in side.usable)
            assert len(session.checklist) <= MAX_PAIRS
            assert len(session.outstanding) <= MAX_OUTSTANDING

    @invariant()
    def third_parties_get_their_share(self) -> None:
        """DESIGN §2.4, counted on the wire from one restart by this side's user to the next."""
        for side in self.sides:
            by_host = Counter[str]()
            for address, count in side.asked.items():
                assert count <= MAX_UNANSWERED
                by_host[address.host] += count
            assert max(by_host.values(), default=0) <= MAX_UNANSWERED_PER_HOST

    def teardown(self) -> None:
        """On a wire that is cut everything ends: no pair stays in use, and at last nothing more is sent.

        But for a lite agent that was never asked for consent: its pairs last until somebody tells it.
        """
        for number, side in enumerate(self.sides):
            for pair in list(side.usable):
                side.agent.use(pair, self.now)
                side.agent.abandon(pair)
            for ends in sorted(side.connections):
                self.disconnect_now(number, ends)
        end = self.now + _QUIET
        while (at := self._next()) is not None and at <= end:
            self.now = max(self.now, at)
            for side in self.sides:
                for pair in list(side.usable):
                    side.agent.use(pair, self.now)
                side.agent.handle_timeout(self.now)
            self.settle()
        for side in self.sides:
            assert side.usable == [] or side.is_lite
            side.agent.close()
            assert side.agent.next_timeout() is None
            assert side.agent.next_transmit() is None and side.agent.next_event() is None

    # --- how it is done ---------------------------------------------------------------------------------

    def deliver(
        self,
        who: int,
        data: Buffer,
        source: Address | None,
        base: Address,
        transport: Transport = Transport.UDP,
    ) -> None:
        assert source is not None
        if transport is Transport.TCP and (base, source) not in self.sides[who].connections:
            return  # what is sent on a stream comes by that stream alone
        self.sides[who].agent.receive(data, source, self.now, base, transport)
        self.settle()

    def connect_now(self, who: int, ends: Ends) -> None:
        """There is a connection, from the one side's point of view, where it has a port at all."""
        side = self.sides[who]
        if ends[0] not in side.agent._session.locals.bases(Transport.TCP):
            return
        side.wanted.pop(ends, None)
        side.connections.add(ends)
        side.agent.connected(*ends, self.now)
        self.settle()

    def disconnect_now(self, who: int, ends: Ends) -> None:
        """There is none, or no attempt any more."""
        side = self.sides[who]
        side.wanted.pop(ends, None)
        side.connections.discard(ends)
        side.links.discard(ends)
        side.agent.disconnected(*ends, self.now)
        self.settle()

    def settle(self) -> None:
        """Take what both have to give, and serve the timers that are due."""
        for number, side in enumerate(self.sides):
            for _ in range(_STEPS):
                self._take(number, side)
                at = side.agent.next_timeout()
                if at is None or at > self.now:
                    break
                side.agent.handle_timeout(self.now)
            else:
                raise AssertionError("a timer waits in the past")

    def _next(self) -> float | None:
        times = [side.agent.next_timeout() for side in self.sides]
        return min((time for time in times if time is not None), default=None)

    def _take(self, number: int, side: Side) -> None:
        # Packets first, as drivers do: an event may end the connection that they go by.
        while (transmit := side.agent.next_transmit()) is not None:
            self._note(number, side, transmit)
        while (event := side.agent.next_event()) is not None:
            _hear(side, event)

    def _note(self, number: int, side: Side, transmit: Transmit) -> None:
        assert transmit.local in BASES[number]
        if transmit.transport is Transport.TCP:
            ends = (transmit.local, transmit.destination)
            assert ends in side.connections
            # What was asked before the connection became a link may still be answered.
            assert ends not in side.links or not _is_question(transmit)
        elif transmit.destination in VICTIMS:
            side.asked[transmit.destination] += _is_question(transmit)
        if len(self.flying) < _KEPT and transmit.destination in BASES[1 - number]:
            self.flying.append((number, transmit))
        self.seen = [*self.seen[-_KEPT:], (number, transmit)]


def _hear(side: Side, event: IceEvent) -> None:
    if isinstance(event, PairValid):
        # After a restart the new session says so again of a pair that goes on.
        if event.pair not in side.usable:
            side.usable.append(event.pair)
    elif isinstance(event, PairLost):
        side.usable.remove(event.pair)
    elif isinstance(event, PairNominated):
        assert event.pair in side.usable
    elif isinstance(event, IceFailed):
        assert not side.usable
    elif isinstance(event, ConnectionWanted):
        ends = (event.local, event.remote)
        assert ends not in side.wanted and ends not in side.connections
        side.wanted[ends] = event.simultaneous
    elif isinstance(event, ConnectionUnwanted):
        ends = (event.local, event.remote)
        assert ends not in side.links
        side.wanted.pop(ends, None)
        side.connections.discard(ends)


def _is_question(transmit: Transmit) -> bool:
    """Whether it is unasked for: answers go to whoever has proven to know the password, as often as asked."""
    try:
        return parse(transmit.data).message.message_class in (MessageClass.REQUEST, MessageClass.INDICATION)
    except MalformedStun:
        return True
