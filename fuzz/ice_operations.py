"""Sequences of operations on two ICE agents with a hostile wire, a hostile peer and bad clocks between them.

Nothing may raise but `UsageError` where the caller asks for too much: candidates without number of its own.
After each step the events of an agent and what it says of itself agree, no third party got more than its
share, no packet goes by a connection that is none or is somebody else's, and no timer waits in the past.
"""

from __future__ import annotations

from contextlib import suppress

from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import COMPONENT, TCP, UDP, Candidate, CandidateType, TcpType
from crowline.ice.lite import LiteAgent
from crowline.ice.nomination import BestPossible
from crowline.stun import attributes as a
from crowline.stun.message import Message, MessageClass, Method, parse
from fuzz.ice_world import BASES, VICTIMS, IceWorld, Side

sides = st.integers(0, 1)
picks = st.integers(0, 10_000)
flags = st.booleans()
bases = st.integers(0, 2)
victims = st.sampled_from(VICTIMS)
transports = st.sampled_from((Transport.UDP, Transport.TCP))
waits = st.sampled_from((0.0, 0.001, 0.005, 0.05, 0.5, 2.0, 6.0, 31.0, 45.0))
codes = st.sampled_from((400, 401, 403, 420, 487, 500))


class IceAgentsOperations(IceWorld):
    """All that users, the wire and a hostile peer do."""

    @initialize(
        renominate=flags,
        regain=flags,
        eager=flags,
        roles=st.sampled_from(((1, 0), (1, 1), (0, 0), (0, 1))),
        lite=st.sampled_from(((0, 0), (0, 0), (1, 0), (0, 1), (1, 1))),
        over=st.sampled_from((Transport.UDP, Transport.TCP)),
    )
    def begin(
        self,
        renominate: bool,
        regain: bool,
        eager: bool,
        roles: tuple[int, int],
        lite: tuple[int, int],
        over: Transport,
    ) -> None:
        """Both roles may be claimed by both, and the first pair may work already: deep states are rare."""
        for number in (0, 1):
            draw, controls = self.dice.randbytes, bool(roles[number])
            policy = None if eager else BestPossible()
            self.sides.append(
                Side(LiteAgent(controls, entropy=draw, renominate=renominate, regain=regain))
                if lite[number]
                else Side(
                    IceAgent(
                        controls, entropy=draw, ta=0.005, renominate=renominate, regain=regain, policy=policy
                    )
                )
            )
        for number in (0, 1):
            if over is Transport.UDP:
                self.add_base(number, 0)
            else:
                for kind in TcpType:
                    self.add_port(number, 0, kind)
        for number in (0, 1):
            self.describe(number, True)
        for number in (0, 1):
            self.connect(number, 0, True)
        self.fly(20)

    # --- what honest users do ---------------------------------------------------------------------------

    @rule(who=sides, which=bases)
    def add_base(self, who: int, which: int) -> None:
        """A socket more; too many candidates are the caller's mistake."""
        side = self.sides[who]
        with suppress(UsageError):
            side.agent.add_local_candidate(side.factory.host(BASES[who][which]), self.now)
        self.settle()

    @rule(who=sides, which=bases, kind=st.sampled_from(TcpType))
    def add_port(self, who: int, which: int, kind: TcpType) -> None:
        """A TCP port, of the same number as the socket."""
        side = self.sides[who]
        with suppress(UsageError):
            side.agent.add_local_candidate(side.factory.host(BASES[who][which], kind), self.now)
        self.settle()

    @rule(who=sides, which=bases, port=st.integers(1, 3))
    def add_reflexive(self, who: int, which: int, port: int) -> None:
        """A mapped address, also of a base that is no candidate."""
        side, base = self.sides[who], BASES[who][which]
        seen_as, server = Address(base.host, 4000 + port), Address(base.host, 3478)
        with suppress(UsageError):
            side.agent.add_local_candidate(side.factory.server_reflexive(seen_as, base, server), self.now)
        self.settle()

    @rule(who=sides, which=bases, transport=transports)
    def remove_base(self, who: int, which: int, transport: Transport) -> None:
        """An interface went away."""
        self.sides[who].agent.remove_local_candidate(BASES[who][which], self.now, transport=transport)
        self.settle()

    @rule(who=sides, ends=flags)
    def describe(self, who: int, ends: bool) -> None:
        """The signalling tells the other side everything, perhaps not for the first time."""
        side, other = self.sides[who].agent, self.sides[1 - who].agent
        other.set_remote(side.ufrag, side.pwd, self.now, lite=isinstance(side, LiteAgent))
        for candidate in side.local_candidates():
            other.add_remote_candidate(candidate, self.now)
        if ends:
            side.end_of_local_candidates(self.now)
            other.end_of_remote_candidates(self.now)
        self.settle()

    @rule(who=sides)
    def restart(self, who: int) -> None:
        """Its user begins anew, which gives every address its packets anew."""
        if self.sides[who].agent.restart(self.now):
            self.sides[who].asked.clear()
        self.settle()

    @rule(who=sides, pick=picks, what=st.sampled_from(("use", "release", "abandon", "hand over")))
    def handle_pair(self, who: int, pick: int, what: str) -> None:
        """Pairs are used, let go and given up, also such as have been lost."""
        side = self.sides[who]
        if side.usable:
            pair = side.usable[pick % len(side.usable)]
            if what == "use":
                assert side.agent.use(pair, self.now)
            elif what == "release":
                side.agent.release(pair)
            elif what == "abandon":
                side.agent.abandon(pair)
            else:
                side.agent.hand_over(pair)
                if pair.handed_over:
                    side.links.add((pair.base, pair.remote.address))
        self.settle()

    @rule(seconds=waits, calls=st.integers(0, 3))
    def wait(self, seconds: float, calls: int) -> None:
        """Time passes or leaps; the timer is late, or called without need."""
        self.now += seconds
        for side in self.sides:
            for _ in range(calls):
                side.agent.handle_timeout(self.now)
        self.settle()

    # --- what TCP connections do ------------------------------------------------------------------------

    @rule(who=sides, pick=picks, both=flags)
    def connect(self, who: int, pick: int, both: bool) -> None:
        """An attempt succeeds; the other side may hear of it later, or never."""
        wanted = list(self.sides[who].wanted)
        if wanted:
            base, remote = wanted[pick % len(wanted)]
            if both and remote in BASES[1 - who]:
                self.connect_now(1 - who, (remote, base))
            self.connect_now(who, (base, remote))

    @rule(who=sides, place=picks, which=bases)
    def accept(self, who: int, place: int, which: int) -> None:
        """Somebody connects."""
        places = [*BASES[1 - who], *VICTIMS]
        self.connect_now(who, (BASES[who][which], places[place % len(places)]))

    @rule(who=sides, pick=picks, both=flags)
    def disconnect(self, who: int, pick: int, both: bool) -> None:
        """A connection ends, or an attempt fails."""
        side = self.sides[who]
        if there := sorted(side.connections) + list(side.wanted):
            base, remote = there[pick % len(there)]
            self.disconnect_now(who, (base, remote))
            if both and remote in BASES[1 - who]:
                self.disconnect_now(1 - who, (remote, base))

    # --- what the wire does -----------------------------------------------------------------------------

    @rule(count=st.integers(1, 30))
    def fly(self, count: int) -> None:
        """Datagrams arrive, and so do the answers to them, in a few milliseconds each."""
        for _ in range(count):
            if not self.flying:
                return
            sender, transmit = self.flying.pop(0)
            self.now += 0.002
            self.deliver(1 - sender, transmit.data, transmit.local, transmit.destination, transmit.transport)

    @precondition(lambda self: self.flying)
    @rule(pick=picks, keep=flags)
    def shuffle(self, pick: int, keep: bool) -> None:
        """One overtakes the rest, or is lost."""
        sender, transmit = self.flying.pop(pick % len(self.flying))
        if keep:
            self.deliver(1 - sender, transmit.data, transmit.local, transmit.destination, transmit.transport)

    @precondition(lambda self: self.seen)
    @rule(pick=picks, who=sides, source=picks, at=st.integers(0, 300), change=st.integers(0, 255))
    def replay(self, pick: int, who: int, source: int, at: int, change: int) -> None:
        """What was heard once, again: damaged or whole, to either side, from wherever the attacker says."""
        _, transmit = self.seen[pick % len(self.seen)]
        data = bytearray(transmit.data)
        data[at % len(data)] ^= change
        places = [*BASES[1 - who], *VICTIMS, transmit.destination]
        self.deliver(
            who, bytes(data), places[source % len(places)], BASES[who][source % 3], transmit.transport
        )

    @precondition(lambda self: self.seen)
    @rule(pick=picks)
    def reflect(self, pick: int) -> None:
        """Back to where it came from."""
        sender, transmit = self.seen[pick % len(self.seen)]
        assert transmit.local is not None
        self.deliver(sender, transmit.data, transmit.destination, transmit.local, transmit.transport)

    @rule(who=sides, data=st.binary(max_size=60), victim=victims, which=bases)
    def babble(self, who: int, data: bytes, victim: Address, which: int) -> None:
        """Noise from anywhere."""
        self.deliver(who, data, victim, BASES[who][which])

    @rule(who=sides, victim=victims, which=bases, problem=st.sampled_from(SendProblem), pick=picks)
    def refuse(self, who: int, victim: Address, which: int, problem: SendProblem, pick: int) -> None:
        """The system did not let something out, asked for or not."""
        side = self.sides[who]
        side.agent.send_failed(BASES[who][which], victim, problem)
        ours = [transmit for sender, transmit in self.flying if sender == who]
        if ours:
            refused = ours[pick % len(ours)]
            assert refused.local is not None
            self.flying.remove((who, refused))
            side.agent.send_failed(refused.local, refused.destination, problem)
        self.settle()

    # --- what a hostile peer does, who knows both passwords ---------------------------------------------

    @rule(
        who=sides, place=picks, which=bases, nominates=flags, controls=flags,
        tie=st.sampled_from((0, 1, 2**63, 2**64 - 1)), priority=st.sampled_from((1, 2**31 - 1, 2**32 - 1, 0)),
        rank=st.sampled_from((None, 0, 1, 2**63 - 1, 2**64 - 1)), over=transports,
    )  # fmt: skip
    def check(
        self,
        who: int,
        place: int,
        which: int,
        nominates: bool,
        controls: bool,
        tie: int,
        priority: int,
        rank: int | None,
        over: Transport,
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
        attributes += [a.Nomination(rank)] if rank is not None else []
        message = Message(Method.BINDING, MessageClass.REQUEST, self.dice.randbytes(12), tuple(attributes))
        places = [*BASES[1 - who], *VICTIMS]
        data = message.encode(key=agent.pwd.encode(), fingerprint=True)
        self.deliver(who, data, places[place % len(places)], BASES[who][which], over)

    @precondition(lambda self: self.seen)
    @rule(pick=picks, code=codes, succeeds=flags, mapped=victims)
    def answer(self, pick: int, code: int, succeeds: bool, mapped: Address) -> None:
        """A signed answer to a question that was put to the peer: an error, or a success with any address."""
        sender, transmit = self.seen[pick % len(self.seen)]
        if transmit.destination not in BASES[1 - sender]:
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
            self.deliver(sender, data, transmit.destination, transmit.local, transmit.transport)

    @rule(
        who=sides, victim=victims, number=st.integers(0, 100), count=st.integers(1, 80),
        kind=st.sampled_from((None, None, *TcpType)),
    )  # fmt: skip
    def name_third_parties(
        self, who: int, victim: Address, number: int, count: int, kind: TcpType | None
    ) -> None:
        """Candidates that are somebody else, many at once."""
        for each in range(count):
            address = victim if each % 2 else VICTIMS[(number + each) % len(VICTIMS)]
            priority = 1 + (number * 1009 + each * 7919) % (2**31 - 1)
            foundation = str((number + each) % 30)
            candidate = Candidate(
                foundation,
                COMPONENT,
                UDP if kind is None else TCP,
                priority,
                address,
                CandidateType.HOST,
                tcp_type=kind,
            )
            self.sides[who].agent.add_remote_candidate(candidate, self.now)
        self.settle()

    @rule(who=sides, place=picks, transport=transports)
    def withdraw(self, who: int, place: int, transport: Transport) -> None:
        """A candidate is gone, or never was."""
        places = [*BASES[1 - who], *VICTIMS]
        address = places[place % len(places)]
        self.sides[who].agent.remove_remote_candidate(address, self.now, transport=transport)
        self.settle()

    @rule(who=sides)
    def claim_restart(self, who: int) -> None:
        """Credentials that nobody has: a restart of the peer, of which nothing comes."""
        ufrag, pwd = self.dice.randbytes(4).hex(), self.dice.randbytes(12).hex()
        self.sides[who].agent.set_remote(ufrag, pwd, self.now)
        self.settle()
