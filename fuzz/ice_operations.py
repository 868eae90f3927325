"""Sequences of operations on two ICE agents with a hostile wire, a hostile peer and bad clocks between them.

Nothing may raise but `UsageError` where the caller asks for too much: candidates without number of its own.
After each step the events of an agent and what it says of itself agree, no third party got more than its
share, and no timer waits in the past.
"""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.send_problem import SendProblem
from crowline.ice.agent import IceAgent
from crowline.ice.budget import MAX_UNANSWERED, MAX_UNANSWERED_PER_HOST
from crowline.ice.candidate import COMPONENT, UDP, Candidate, CandidateFactory, CandidateType
from crowline.ice.checklist import MAX_PAIRS
from crowline.ice.events import IceFailed, PairLost, PairNominated, PairValid
from crowline.ice.outstanding import MAX_OUTSTANDING
from crowline.ice.pair import ValidPair
from crowline.stun import attributes as a
from crowline.stun.message import MalformedStun, Message, MessageClass, Method, parse

_BASES = (
    [Address("44.1.1.1", 1000 + n) for n in range(2)] + [Address("2a01:4f8:1::1", 1000)],
    [Address("44.2.2.2", 2000 + n) for n in range(2)] + [Address("2a01:4f8:2::1", 2000)],
)
_VICTIMS = [Address("44.66.66.66", 6000 + n) for n in range(8)] + [Address("2a01:4f8:66::1", 6000)]
_KEPT = 200  # datagrams that the wire remembers
_QUIET = 400.0  # seconds after which nothing can be left of a conversation that has ended
_STEPS = 200  # calls at one moment after which a machine has come to rest

sides = st.integers(0, 1)
picks = st.integers(0, 10_000)
flags = st.booleans()
bases = st.integers(0, 2)
victims = st.sampled_from(_VICTIMS)
waits = st.sampled_from((0.0, 0.001, 0.005, 0.05, 0.5, 2.0, 6.0, 31.0, 45.0))
codes = st.sampled_from((400, 401, 403, 420, 487, 500))


@dataclass(slots=True)
class Side:
    """One agent, and what its user and a witness on the wire have seen."""

    agent: IceAgent
    factory: CandidateFactory = field(default_factory=CandidateFactory)
    usable: list[ValidPair] = field(default_factory=list)
    asked: Counter[Address] = field(default_factory=Counter)


class IceAgentsOperations(RuleBasedStateMachine):
    """Each side has up to three bases. Third parties never answer; everybody else may do anything."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 100.0
        self._dice = random.Random(11)
        self.sides: list[Side] = []
        self.flying: list[tuple[int, Transmit]] = []
        self.seen: list[tuple[int, Transmit]] = []

    @initialize(renominate=flags, regain=flags, roles=st.sampled_from(((1, 0), (1, 1), (0, 0), (0, 1))))
    def begin(self, renominate: bool, regain: bool, roles: tuple[int, int]) -> None:
        """Both roles may be claimed by both, and the first pair may work already: deep states are rare."""
        for number in (0, 1):
            agent = IceAgent(
                bool(roles[number]),
                entropy=self._dice.randbytes,
                ta=0.005,
                renominate=renominate,
                regain=regain,
            )
            self.sides.append(Side(agent))
            self.add_base(number, 0)
        for number in (0, 1):
            self.describe(number, True)
        self.fly(20)

    # --- what honest users do ---------------------------------------------------------------------------

    @rule(who=sides, which=bases)
    def add_base(self, who: int, which: int) -> None:
        """A socket more; too many candidates are the caller's mistake."""
        side = self.sides[who]
        with suppress(UsageError):
            side.agent.add_local_candidate(side.factory.host(_BASES[who][which]), self.now)
        self._settle()

    @rule(who=sides, which=bases, port=st.integers(1, 3))
    def add_reflexive(self, who: int, which: int, port: int) -> None:
        """A mapped address, also of a base that is no candidate."""
        side, base = self.sides[who], _BASES[who][which]
        seen_as, server = Address(base.host, 4000 + port), Address(base.host, 3478)
        with suppress(UsageError):
            side.agent.add_local_candidate(side.factory.server_reflexive(seen_as, base, server), self.now)
        self._settle()

    @rule(who=sides, which=bases)
    def remove_base(self, who: int, which: int) -> None:
        """An interface went away."""
        self.sides[who].agent.remove_local_candidate(_BASES[who][which], self.now)
        self._settle()

    @rule(who=sides, ends=flags)
    def describe(self, who: int, ends: bool) -> None:
        """The signalling tells the other side everything, perhaps not for the first time."""
        side, other = self.sides[who].agent, self.sides[1 - who].agent
        other.set_remote(side.ufrag, side.pwd, self.now)
        for candidate in side.local_candidates():
            other.add_remote_candidate(candidate, self.now)
        if ends:
            side.end_of_local_candidates(self.now)
            other.end_of_remote_candidates(self.now)
        self._settle()

    @rule(who=sides)
    def restart(self, who: int) -> None:
        """Its user begins anew, which gives every address its packets anew."""
        if self.sides[who].agent.restart(self.now):
            self.sides[who].asked.clear()
        self._settle()

    @rule(who=sides, pick=picks, what=st.sampled_from(("use", "release", "abandon")))
    def handle_pair(self, who: int, pick: int, what: str) -> None:
        """Pairs are used, let go and given up, also such as have been lost."""
        side = self.sides[who]
        if side.usable:
            pair = side.usable[pick % len(side.usable)]
            if what == "use":
                assert side.agent.use(pair, self.now)
            elif what == "release":
                side.agent.release(pair)
            else:
                side.agent.abandon(pair)
        self._settle()

    @rule(seconds=waits, calls=st.integers(0, 3))
    def wait(self, seconds: float, calls: int) -> None:
        """Time passes or leaps; the timer is late, or called without need."""
        self.now += seconds
        for side in self.sides:
            for _ in range(calls):
                side.agent.handle_timeout(self.now)
        self._settle()

    # --- what the wire does -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 30))
    def fly(self, count: int) -> None:
        """Datagrams arrive, and so do the answers to them, in a few milliseconds each."""
        for _ in range(count):
            if not self.flying:
                return
            sender, transmit = self.flying.pop(0)
            self.now += 0.002
            self._deliver(1 - sender, transmit.data, transmit.local, transmit.destination)

    @precondition(lambda self: self.flying)
    @rule(pick=picks, keep=flags)
    def shuffle(self, pick: int, keep: bool) -> None:
        """One overtakes the rest, or is lost."""
        sender, transmit = self.flying.pop(pick % len(self.flying))
        if keep:
            self._deliver(1 - sender, transmit.data, transmit.local, transmit.destination)

    @precondition(lambda self: self.seen)
    @rule(pick=picks, who=sides, source=picks, at=st.integers(0, 300), change=st.integers(0, 255))
    def replay(self, pick: int, who: int, source: int, at: int, change: int) -> None:
        """What was heard once, again: damaged or whole, to either side, from wherever the attacker says."""
        _, transmit = self.seen[pick % len(self.seen)]
        data = bytearray(transmit.data)
        data[at % len(data)] ^= change
        places = [*_BASES[1 - who], *_VICTIMS, transmit.destination]
        self._deliver(who, bytes(data), places[source % len(places)], _BASES[who][source % 3])

    @precondition(lambda self: self.seen)
    @rule(pick=picks)
    def reflect(self, pick: int) -> None:
        """Back to where it came from."""
        sender, transmit = self.seen[pick % len(self.seen)]
        assert transmit.local is not None
        self._deliver(sender, transmit.data, transmit.destination, transmit.local)

    @rule(who=sides, data=st.binary(max_size=60), victim=victims, which=bases)
    def babble(self, who: int, data: bytes, victim: Address, which: int) -> None:
        """Noise from anywhere."""
        self._deliver(who, data, victim, _BASES[who][which])

    @rule(who=sides, victim=victims, which=bases, problem=st.sampled_from(SendProblem), pick=picks)
    def refuse(self, who: int, victim: Address, which: int, problem: SendProblem, pick: int) -> None:
        """The system did not let something out, asked for or not."""
        side = self.sides[who]
        side.agent.send_failed(_BASES[who][which], victim, problem)
        ours = [transmit for sender, transmit in self.flying if sender == who]
        if ours:
            refused = ours[pick % len(ours)]
            assert refused.local is not None
            self.flying.remove((who, refused))
            side.agent.send_failed(refused.local, refused.destination, problem)
        self._settle()

    # --- what a hostile peer does, who knows both passwords ---------------------------------------------

    @rule(
        who=sides, place=picks, which=bases, nominates=flags, controls=flags,
        tie=st.sampled_from((0, 1, 2**63, 2**64 - 1)), priority=st.sampled_from((1, 2**31 - 1, 2**32 - 1, 0)),
    )  # fmt: skip
    def check(
        self, who: int, place: int, which: int, nominates: bool, controls: bool, tie: int, priority: int
    ) -> None:
        """A check that is signed rightly, from wherever it likes, claiming and wishing whatever it likes."""
        agent = self.sides[who].agent
        theirs = agent._session.credentials.remote_ufrag or "somebody"
        claim = a.IceControlling(tie) if controls else a.IceControlled(tie)
        attributes: list[a.AnyAttribute] = [
            a.Username(f"{agent.ufrag}:{theirs}"),
            a.Priority(priority),
            claim,
        ]
        attributes += [a.UseCandidate()] * nominates
        message = Message(Method.BINDING, MessageClass.REQUEST, self._dice.randbytes(12), tuple(attributes))
        places = [*_BASES[1 - who], *_VICTIMS]
        data = message.encode(key=agent.pwd.encode(), fingerprint=True)
        self._deliver(who, data, places[place % len(places)], _BASES[who][which])

    @precondition(lambda self: self.seen)
    @rule(pick=picks, code=codes, succeeds=flags, mapped=victims)
    def answer(self, pick: int, code: int, succeeds: bool, mapped: Address) -> None:
        """A signed answer to a question that was put to the peer: an error, or a success with any address."""
        sender, transmit = self.seen[pick % len(self.seen)]
        if transmit.destination not in _BASES[1 - sender]:
            return
        message = parse(transmit.data).message
        if message.message_class is not MessageClass.REQUEST:
            return
        said = a.XorMappedAddress(mapped) if succeeds else a.ErrorCode(code, "no")
        cls = MessageClass.SUCCESS if succeeds else MessageClass.ERROR
        key = self.sides[sender].agent._session.credentials.remote_password
        if key:
            data = message.answer(cls, said).encode(key=key.encode(), fingerprint=True)
            assert transmit.local is not None
            self._deliver(sender, data, transmit.destination, transmit.local)

    @rule(who=sides, victim=victims, number=st.integers(0, 100), count=st.integers(1, 80))
    def name_third_parties(self, who: int, victim: Address, number: int, count: int) -> None:
        """Candidates that are somebody else, many at once."""
        for each in range(count):
            address = victim if each % 2 else _VICTIMS[(number + each) % len(_VICTIMS)]
            priority = 1 + (number * 1009 + each * 7919) % (2**31 - 1)
            foundation = str((number + each) % 30)
            candidate = Candidate(foundation, COMPONENT, UDP, priority, address, CandidateType.HOST)
            self.sides[who].agent.add_remote_candidate(candidate, self.now)
        self._settle()

    @rule(who=sides, place=picks)
    def withdraw(self, who: int, place: int) -> None:
        """A candidate is gone, or never was."""
        places = [*_BASES[1 - who], *_VICTIMS]
        self.sides[who].agent.remove_remote_candidate(places[place % len(places)], self.now)
        self._settle()

    @rule(who=sides)
    def claim_restart(self, who: int) -> None:
        """Credentials that nobody has: a restart of the peer, of which nothing comes."""
        ufrag, pwd = self._dice.randbytes(4).hex(), self._dice.randbytes(12).hex()
        self.sides[who].agent.set_remote(ufrag, pwd, self.now)
        self._settle()

    # --- what must always hold --------------------------------------------------------------------------

    @invariant()
    def events_and_state_agree(self) -> None:
        """Pairs that were said to work, and not to be lost, are those that the agent knows."""
        for number, side in enumerate(self.sides):
            agent, session = side.agent, side.agent._session
            assert {id(pair) for pair in side.usable} == {id(pair) for pair in agent.valid_pairs()}
            assert agent.selected is None or agent.selected in side.usable
            # Only an answer proves an address, and third parties give none.
            assert all(pair.remote.address in _BASES[1 - number] for pair in side.usable)
            assert all(agent.is_valid(pair.base, pair.remote.address) for pair in side.usable)
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
        """On a wire that is cut everything ends: no pair stays in use, and at last nothing more is sent."""
        for side in self.sides:
            for pair in list(side.usable):
                side.agent.use(pair, self.now)
                side.agent.abandon(pair)
        end = self.now + _QUIET
        while (at := self._next()) is not None and at <= end:
            self.now = max(self.now, at)
            for side in self.sides:
                for pair in list(side.usable):
                    side.agent.use(pair, self.now)
                side.agent.handle_timeout(self.now)
            self._settle()
        for side in self.sides:
            assert side.usable == []
            side.agent.close()
            assert side.agent.next_timeout() is None
            assert side.agent.next_transmit() is None and side.agent.next_event() is None

    # --- how it is done ---------------------------------------------------------------------------------

    def _next(self) -> float | None:
        times = [side.agent.next_timeout() for side in self.sides]
        return min((time for time in times if time is not None), default=None)

    def _deliver(self, who: int, data: Buffer, source: Address | None, base: Address) -> None:
        assert source is not None
        self.sides[who].agent.receive(data, source, self.now, base)
        self._settle()

    def _settle(self) -> None:
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

    def _take(self, number: int, side: Side) -> None:
        while (transmit := side.agent.next_transmit()) is not None:
            assert transmit.local in _BASES[number]
            if transmit.destination in _VICTIMS:
                side.asked[transmit.destination] += _is_question(transmit)
            elif len(self.flying) < _KEPT and transmit.destination in _BASES[1 - number]:
                self.flying.append((number, transmit))
            self.seen = [*self.seen[-_KEPT:], (number, transmit)]
        while (event := side.agent.next_event()) is not None:
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


def _is_question(transmit: Transmit) -> bool:
    """Whether it is unasked for: answers go to whoever has proven to know the password, as often as asked."""
    try:
        return parse(transmit.data).message.message_class in (MessageClass.REQUEST, MessageClass.INDICATION)
    except MalformedStun:
        return True
