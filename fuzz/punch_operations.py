"""Sequences of operations on one conductor of plans: whatever the other side, servers, sockets and time do.

Nothing may ever go to a host that is not proven, nor more than a host may get; what ends is closed.
"""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from crowline.base.addresses import Address
from crowline.punch.conductor import (
    Conductor,
)
from crowline.punch.conductor_events import (
    Adopt,
    PlanBegun,
    PlanOver,
    SocketsDone,
    VouchWanted,
)
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice
from crowline.punch.punch_signals import (
    PunchCall,
    PunchOver,
    PunchPool,
    PunchProfile,
    PunchReady,
    PunchSignal,
)
from crowline.punch.round import MAX_HEARD
from crowline.punch.samples import Ask
from crowline.punch.spray import MAX_SOCKETS
from crowline.punch.spray_budget import MAX_PACKETS, REST, SprayBudget
from crowline.rendezvous.signals import decode, encode

_OWN = "44.1.1.1"
_HOSTS = ("44.2.2.2", "44.3.3.3", "44.66.66.66", "127.0.0.1", "::1", "", "localhost")
_HONEST = _HOSTS[:2]  # whom the hub has seen
hosts = st.sampled_from(_HOSTS) | st.just(_HONEST[0])
summaries = st.builds(
    NatSummary,
    st.sampled_from(MappingKind),
    st.sampled_from(FilterKind),
    st.sampled_from(PortChoice),
    st.booleans(),
)
ports = st.lists(st.integers(1, 65535), max_size=64).map(tuple)
pools = st.none() | st.builds(
    PunchPool, st.just(2000), st.integers(2000, 65535), st.integers(1, 65536), st.integers(1, 2)
)
ways = st.sampled_from(("low-ttl", "peer-first", "same-port", "predict-one", "predict-both", "spray"))

sides = st.sampled_from(("caller", "callee", "both"))


class ConductorOperations(RuleBasedStateMachine):
    """One side, which leads or follows."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 1000.0
        self.budget = SprayBudget()
        self.proven: set[str] = set()
        self.sent: list[tuple[float, str]] = []
        self.open: set[int] = set()
        self.asked: list[int] = []
        self.adopted: Counter[int] = Counter()
        self.closed_below = 0
        self.running = 0
        self.is_stopped = False

    @initialize(leads=st.booleans(), seed=st.integers(0, 9))
    def begin(self, leads: bool, seed: int) -> None:
        self.conductor = Conductor(leads, self.budget, entropy=random.Random(seed).randbytes)
        self.meet(NatSummary(), NatSummary(), _HONEST[0])

    # --- what happens -----------------------------------------------------------------------------------

    @rule(summary=summaries, peer=summaries, host=hosts)
    def meet(self, summary: NatSummary, peer: NatSummary, host: str) -> None:
        """Both are there and have measured; again and again."""
        self.conductor.own_summary(summary, _OWN, self.now)
        self.conductor.meet(self.now)
        self._hear(PunchProfile.of(peer, host))

    @rule(ahead=st.integers(-1, 3), way=ways, opens=sides)
    def call(self, ahead: int, way: str, opens: str) -> None:
        """A round, a late one, or one too far ahead."""
        number = min(10_000, max(1, self.conductor.round_number + ahead))
        self._hear(PunchCall(number, way, opens))  # type: ignore[arg-type]

    @rule(
        way=ways,
        opens=sides,
        step=st.integers(1, 9000),
        host=hosts,
        some=ports,
        pool=pools,
        seconds=st.sampled_from((0.1, 0.5, 2.0, 8.0)),
    )
    def play(
        self,
        way: str,
        opens: str,
        step: int,
        host: str,
        some: tuple[int, ...],
        pool: PunchPool | None,
        seconds: float,
    ) -> None:
        """A round as it should be, as far as this host, these ports and that pool go."""
        self.call(1, way, opens)
        self.answer_all(step)
        self.ready(0, host, some or (5000,), pool or PunchPool(2000, 60_000, 64_000))
        self.wait(0.2, 300)
        self.answer_all(step)
        self.wait(seconds, 300)

    @rule(behind=st.integers(0, 1), host=hosts, some=ports, pool=pools)
    def ready(self, behind: int, host: str, some: tuple[int, ...], pool: PunchPool | None) -> None:
        self._hear(PunchReady(max(1, self.conductor.round_number - behind), host, some, pool))

    @rule(reason=st.sampled_from(("direct", "exhausted", "limited", "silence", "")))
    def over(self, reason: str) -> None:
        self._hear(PunchOver(max(1, self.conductor.round_number), reason))

    @rule(pick=st.integers(0, 20), port=st.integers(1, 65535), answers=st.booleans())
    def answer(self, pick: int, port: int, answers: bool) -> None:
        """A server answers some question, or the question has failed."""
        if self.asked:
            mapped = Address(_OWN, port) if answers else None
            self.conductor.sampled(self.asked[-1 - pick % len(self.asked)], mapped, self.now)
        self._drain()

    @rule(step=st.integers(-3, 9000))
    def answer_all(self, step: int) -> None:
        """One port after the other."""
        for count, number in enumerate(self.asked[-9:]):
            self.conductor.sampled(number, Address(_OWN, 1024 + (step * count) % 60_000), self.now)
        self._drain()

    @rule(pick=st.integers(-2, 400), host=hosts)
    def authenticate(self, pick: int, host: str) -> None:
        """Something arrives at a socket that is open, or never was."""
        self.conductor.authenticated(self.closed_below + pick, Address(host, 4000), self.now)
        self._drain()

    @rule(is_direct=st.booleans())
    def direct(self, is_direct: bool) -> None:
        self.conductor.direct(is_direct, self.now)
        self._drain()

    @rule()
    def restart(self) -> None:
        self.conductor.restarted(self.now)
        self._drain()

    @rule(seconds=st.sampled_from((0.0, 0.001, 0.05, 0.5, 3.0, 25.0)), ticks=st.integers(0, 300))
    def wait(self, seconds: float, ticks: int) -> None:
        """Time passes: with its timers, or with the machine asleep."""
        end = self.now + seconds
        for _ in range(ticks):
            at = self.conductor.next_timeout()
            if at is None or at > end:
                break
            self.now = max(self.now, at)
            self.conductor.handle_timeout(self.now)
            self._drain()
        self.now = end
        self.conductor.handle_timeout(self.now)
        self._drain()

    # --- what must always hold --------------------------------------------------------------------------

    @invariant()
    def one_plan_at_a_time(self) -> None:
        assert self.running in (0, 1)

    @invariant()
    def few_sockets_are_open(self) -> None:
        assert len(self.open) <= MAX_SOCKETS + 16

    @invariant()
    def no_host_gets_too_much(self) -> None:
        """No window of a rest's length has more than the budget says."""
        for host in _HONEST:
            times = [at for at, whom in self.sent if whom == host]
            for first, later in zip(times, times[MAX_PACKETS:], strict=False):
                assert later - first >= REST

    def teardown(self) -> None:
        """At the end all sockets are closed, and nothing happens any more."""
        self.conductor.stop(self.now)
        self._drain()
        assert not self.open and self.running == 0
        assert self.conductor.next_timeout() is None
        self.conductor.handle_timeout(self.now + 3600.0)
        assert self.conductor.next_transmit() is None and self.conductor.next_event() is None

    # ----------------------------------------------------------------------------------------------------

    def _hear(self, signal: PunchSignal) -> None:
        """As it comes off the wire."""
        heard = decode(encode(signal))
        assert heard == signal
        self.conductor.receive_signal(signal, self.now)
        self._drain()

    def _drain(self) -> None:
        busy = True
        while busy:
            busy = False
            while (command := self.conductor.next_transmit()) is not None:
                busy = True
                assert command.socket >= self.closed_below
                self.open.add(command.socket)
                if isinstance(command, Ask):
                    assert command.socket not in self.asked
                    self.asked.append(command.socket)
                else:
                    assert command.destination.host in self.proven
                    self.sent.append((self.now, command.destination.host))
            while (event := self.conductor.next_event()) is not None:
                busy = True
                self._on_event(event)

    def _on_event(self, event: object) -> None:
        if isinstance(event, VouchWanted) and event.host in _HONEST:
            self.proven.add(event.host)
            self.conductor.host_proven(event.host, self.now)
        elif isinstance(event, SocketsDone):
            assert event.below >= self.closed_below
            self.closed_below = event.below
            self.open = {number for number in self.open if number >= event.below}
            self.adopted.clear()
        elif isinstance(event, Adopt):
            self.adopted[event.socket] += 1
            assert self.adopted[event.socket] == 1 and len(self.adopted) <= MAX_HEARD
        elif isinstance(event, PlanBegun):
            self.running += 1
        elif isinstance(event, PlanOver):
            self.running -= 1
