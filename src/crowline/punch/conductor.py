"""Conducts the plans for hard NATs of one meeting: when, which, in which order, and what both sides tell.

The first checks of ICE come first, and links carry data over a relay or the hub all the while: plans begin
when no direct pair is valid some time after both sides are known, one at a time, and end at the first direct
pair. One side leads and calls the rounds (`punch_signals`); the other takes part. ICE stays the only judge of
a pair: a plan only makes a packet of the other side arrive at one of its sockets, which then becomes a base
(`Adopt`), and ordinary checks do the rest.

The driver sends what `next_transmit` gives in that order, from fresh UDP sockets that it opens for each new
number; numbers are never used again.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Mapping
from ipaddress import IPv4Address
from typing import Final, Literal

from crowline.base.addresses import Address
from crowline.punch.agenda import Agenda
from crowline.punch.conductor_events import (
    Adopt,
    ConductorEvent,
    PlanBegun,
    PlanOver,
    PlansExhausted,
    SignalWanted,
    SocketsDone,
    VouchWanted,
)
from crowline.punch.parts import Means, part_of
from crowline.punch.plan_choice import Fit, NatSummary, Opens, PlannedWay, Way, choose_plans
from crowline.punch.plan_memory import name_of
from crowline.punch.punch_signals import PunchCall, PunchOver, PunchProfile, PunchSignal, WayName
from crowline.punch.round import (
    Heard,
    ProofWanted,
    Round,
    RoundOutcome,
    RoundOver,
    Tell,
)
from crowline.punch.samples import Ask
from crowline.punch.spray import Probe
from crowline.punch.spray_budget import SprayBudget

# Seconds from when both sides are known to the first plan. Where ICE's own checks cannot lead through by what
# is known of the NATs, they get the round trip that a mistake of the measurement would cost; else two of
# their repeats as well.
QUICK_START = 0.3
SLOW_START = 2.0
PROFILE_TIME = 4.0  # seconds that the other side's profile is waited for: two for its measurement
GAP = 0.05  # seconds between two rounds: what is still on its way arrives
MAX_CALLS = 200  # rounds that the other side may call in one meeting
MAX_PROFILES = 32  # profiles of the other side that are taken: networks change
MAX_VOUCHES = 32  # questions to the hub about hosts of the other side, of the 64 that it answers

_WAYS: Final[dict[WayName, Way]] = {
    "low-ttl": Way.LOW_TTL,
    "peer-first": Way.PEER_FIRST,
    "same-port": Way.SAME_PORT,
    "predict-one": Way.PREDICT_ONE,
    "predict-both": Way.PREDICT_BOTH,
    "spray": Way.SPRAY,
}
_NAMES: Final[dict[Way, WayName]] = {way: name for name, way in _WAYS.items()}
# What ICE's own checks do as well.
_LIKE_CHECKS = (Way.LOW_TTL, Way.PEER_FIRST)
_CALLED: Final[dict[Opens, Literal["caller", "callee", "both"]]] = {
    Opens.OWN: "caller",
    Opens.PEER: "callee",
    Opens.BOTH: "both",
}
_OPENS = {"caller": Opens.PEER, "callee": Opens.OWN, "both": Opens.BOTH}  # as the callee sees it


class Conductor:
    """One side's; exactly one of the two `leads`. Plans begin some time after `meet`."""

    def __init__(self, leads: bool, budget: SprayBudget, *, entropy: Callable[[int], bytes]) -> None:
        self._leads = leads
        self._budget = budget
        self._entropy = entropy
        self._agenda = Agenda()
        self._own_host = self._peer_host = ""
        self._profiles = 0
        self._since: float | None = None  # from when on ICE's checks have their time; both sides are there
        self._is_direct = False
        self._is_stopped = False
        self._due: float | None = None  # when this side, leading, does the next thing
        self._number = 0  # of the last round
        self._round: Round | None = None
        self._plan: PlannedWay | None = None
        self._next_socket = 0
        self._times: Counter[str] = Counter()  # how often each plan was begun
        self._questions = 0  # to the hub
        self._commands: deque[Ask | Probe] = deque()
        self._events: deque[ConductorEvent] = deque()

    # --- what the driver says ---------------------------------------------------------------------------

    def meet(self, now: float) -> None:
        """Both sides are there and have said that they punch."""
        if self._since is None and not self._is_stopped:
            self._since = now
            self._tell_profile()
            self._set_start(now)
        self._work(now)

    def own_summary(self, summary: NatSummary, host: str, now: float) -> None:
        """What is known of this side's NAT; `host` is its outside IPv4 address, as a server sees it.

        Again when that changes: rounds that run go on, and later ones follow what is known then.
        """
        if (summary, host) == (self._agenda.own, self._own_host) or self._is_stopped:
            return
        self._agenda.own, self._own_host = summary, host
        self._tell_profile()
        self._news(now)

    def remember(self, scores: Mapping[str, int], now: float) -> None:
        """What `PlanMemory` has of these two networks; it counts from the next cycle of plans on."""
        self._agenda.scores = scores
        self._work(now)

    def receive_signal(self, signal: PunchSignal, now: float) -> None:
        if self._is_stopped:
            return
        if isinstance(signal, PunchProfile):
            self._on_profile(signal, now)
        elif isinstance(signal, PunchCall):
            self._on_call(signal, now)
        elif isinstance(signal, PunchOver):
            self._on_peer_over(signal, now)
        elif self._round is not None and signal.round == self._round.number:
            self._round.peer_ready(signal, now)
        self._work(now)

    def host_proven(self, host: str, now: float) -> None:
        """The other side is at `host`: the hub vouches for it, or an authenticated answer came from there."""
        self._budget.prove_host(host)
        if self._round is not None:
            self._round.host_proven(now)
        self._work(now)

    def sampled(self, socket: int, mapped: Address | None, now: float, local: Address | None = None) -> None:
        """A server sees that socket as `mapped`; ``None``: it did not answer. `local`: its own address."""
        if self._round is not None and (mapped is None or not mapped.is_ipv6):
            self._round.sampled(socket, local, mapped, now)
        self._work(now)

    def authenticated(self, socket: int, source: Address, now: float) -> None:
        """A packet that authenticates came from `source` to that socket. `Adopt` follows, or nothing."""
        if self._round is not None:
            self._round.authenticated(socket, source, now)
        self._work(now)

    def direct(self, is_direct: bool, now: float) -> None:
        """Whether any direct pair is valid."""
        if is_direct == self._is_direct or self._is_stopped:
            return
        self._is_direct = is_direct
        if is_direct:
            self._due = None
            self._end_round(RoundOutcome.DIRECT, now)
        elif self._since is not None:
            self._begin_anew(now)
        self._work(now)

    def restarted(self, now: float) -> None:
        """ICE began anew: passwords are others, and so may be the network."""
        if self._since is None or self._is_stopped:
            return
        self._is_direct = False
        self._end_round(RoundOutcome.STOPPED, now)
        self._begin_anew(now)
        self._work(now)

    def stop(self, now: float) -> None:
        """The meeting is over."""
        self._is_stopped, self._due = True, None
        self._end_round(RoundOutcome.STOPPED, now)

    @property
    def is_hopeful(self) -> bool:
        """Whether a plan that is not unlikely runs, or is about to."""
        if self._is_stopped or self._since is None:
            return False
        if self._plan is not None:
            return self._plan.fit is not Fit.UNLIKELY or self._agenda.has_hope
        return self._leads and self._due is not None and (not self._agenda.has_begun or self._agenda.has_hope)

    @property
    def round_number(self) -> int:
        """That of the present round, or of the last; 0 before the first."""
        return self._number

    # --- the verbs --------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        if self._round is not None:
            self._round.handle_timeout(now)
        self._work(now)

    def next_timeout(self) -> float | None:
        times = [self._due, None if self._round is None else self._round.next_timeout()]
        return min((time for time in times if time is not None), default=None)

    def next_transmit(self) -> Ask | Probe | None:
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> ConductorEvent | None:
        return self._events.popleft() if self._events else None

    # --- what the other side says -----------------------------------------------------------------------

    def _on_profile(self, profile: PunchProfile, now: float) -> None:
        self._profiles += 1
        if self._profiles > MAX_PROFILES:
            return
        if profile.host != self._peer_host:
            self._want_proof(profile.host)
        self._agenda.peer, self._peer_host = profile.summary, profile.host
        self._news(now)

    def _on_call(self, call: PunchCall, now: float) -> None:
        """The other side leads; how much is sent, and to whom, is this side's own budget's to say."""
        if self._leads or call.round <= self._number or call.round > MAX_CALLS or self._since is None:
            return
        self._number = call.round
        self._end_round(RoundOutcome.REPLACED, now)
        if self._is_direct:
            self._say(PunchOver(call.round, _DIRECT))
            return
        own, peer = self._agenda.own or NatSummary(), self._agenda.peer or NatSummary()
        way, opens = _WAYS[call.way], _OPENS[call.opens]
        for plan in choose_plans(own, peer, leads=False):
            if (plan.way, plan.opens) == (way, opens):
                self._begin(plan, now)

    def _on_peer_over(self, over: PunchOver, now: float) -> None:
        if over.round != self._number:
            return
        self._end_round(RoundOutcome.PEER_ENDED, now)
        if over.reason == _EXHAUSTED and not self._leads and not self._is_direct:
            self._events.append(PlansExhausted(None))
        if over.reason == _DIRECT and self._due is not None:
            # This side will see so in a moment, or the other side's pair does not last.
            self._due = max(self._due, now + SLOW_START)
        if over.reason == _reason_of(RoundOutcome.LIMITED):
            self._agenda.drop()

    # --- leading ----------------------------------------------------------------------------------------

    def _news(self, now: float) -> None:
        """More is known of one side's NAT: what has not begun yet begins as that says."""
        if self._since is not None and not self._agenda.has_begun and self._due is not None:
            self._set_start(now)
        self._work(now)

    def _set_start(self, now: float) -> None:
        if not self._leads or self._since is None or self._is_direct:
            return
        own, peer = self._agenda.own, self._agenda.peer
        if own is None or peer is None:
            wait = PROFILE_TIME
        else:
            first = choose_plans(own, peer, leads=True)[0]
            wait = SLOW_START if first.way in _LIKE_CHECKS else QUICK_START
        self._due = max(now, self._since + wait)

    def _begin_anew(self, now: float) -> None:
        """All plans from the first on, after the checks have had their time once more."""
        self._agenda.begin_anew()
        self._since = now
        if self._leads:
            self._due = now + SLOW_START

    def _lead(self, now: float) -> None:
        """The next round."""
        self._due = None
        plan = self._agenda.take() if self._number < MAX_CALLS else None
        if plan is None:
            self._exhausted(now)
            return
        self._number += 1
        self._say(PunchCall(self._number, _NAMES[plan.way], _CALLED[plan.opens]))
        self._begin(plan, now)

    def _exhausted(self, now: float) -> None:
        rests = self._agenda.rest() if self._number < MAX_CALLS else None
        self._due = None if rests is None else now + rests
        self._events.append(PlansExhausted(rests))
        self._say(PunchOver(max(1, self._number), _EXHAUSTED))

    # --- rounds -----------------------------------------------------------------------------------------

    def _begin(self, plan: PlannedWay, now: float) -> None:
        part = part_of(plan.way, opens=plan.opens is not Opens.PEER)
        name = name_of(plan.way, plan.opens)
        times = self._times[name]
        self._times[name] += 1
        means = Means.of_try(times, self._next_socket, self._entropy)
        self._round = Round(self._number, part, means, self._budget)
        self._plan = plan
        self._next_socket = self._round.end
        self._events.append(PlanBegun(plan.way, plan.opens, plan.fit, plan.reason, name))
        self._round.begin(now)

    def _end_round(self, outcome: RoundOutcome, now: float) -> None:
        if self._round is not None:
            self._round.stop(outcome)
            self._collect(now)

    def _work(self, now: float) -> None:
        self._collect(now)
        while self._due is not None and now >= self._due and self._round is None and not self._is_direct:
            self._lead(now)
            self._collect(now)

    def _collect(self, now: float) -> None:
        """Pass on what the round has to send and to say."""
        while (current := self._round) is not None:
            while (command := current.next_transmit()) is not None:
                self._commands.append(command)
            event = current.next_event()
            if event is None:
                return
            if isinstance(event, Tell):
                self._say(event.ready)
            elif isinstance(event, ProofWanted):
                self._want_proof(event.host)
            elif isinstance(event, Heard):
                self._events.append(Adopt(event.socket, event.source))
            else:
                self._on_over(current, event, now)

    def _on_over(self, ended: Round, over: RoundOver, now: float) -> None:
        plan = self._plan
        self._round = self._plan = None
        # What has not left yet leaves no more.
        self._commands.clear()
        assert plan is not None
        self._events.append(SocketsDone(ended.end))
        name = name_of(plan.way, plan.opens)
        self._events.append(PlanOver(plan.way, plan.opens, over.outcome, over.sent, name))
        if over.outcome in _TOLD:
            self._say(PunchOver(ended.number, _reason_of(over.outcome)))
        if over.outcome is RoundOutcome.SILENCE and ended.was_cheap and self._leads:
            # A few samples may have made the pool too small; fresh ones are of other ports.
            self._agenda.once_more(plan)
        if over.outcome is RoundOutcome.LIMITED:
            # Packets are what all plans need.
            self._agenda.drop()
        if self._leads and not self._is_direct and not self._is_stopped:
            self._due = now + GAP

    def _want_proof(self, host: str) -> None:
        """Again in each round: the other side may be seen there a moment later, by its relay."""
        if not self._budget.is_proven(host) and _is_ipv4(host) and self._questions < MAX_VOUCHES:
            self._questions += 1
            self._events.append(VouchWanted(host))

    def _tell_profile(self) -> None:
        if self._since is not None and self._agenda.own is not None:
            self._say(PunchProfile.of(self._agenda.own, self._own_host))

    def _say(self, signal: PunchSignal) -> None:
        self._events.append(SignalWanted(signal))


_DIRECT = "direct"  # the reason of a side that has a direct pair
_EXHAUSTED = "exhausted"  # the reason of a leader that has no plan left
# Ends that the other side would wait for in vain.
_TOLD = (
    RoundOutcome.UNMEASURED,
    RoundOutcome.NO_PATTERN,
    RoundOutcome.UNPROVEN,
    RoundOutcome.LIMITED,
    RoundOutcome.PEER_LATE,
)


def _reason_of(outcome: RoundOutcome) -> str:
    return outcome.name.lower().replace("_", "-")


def _is_ipv4(host: str) -> bool:
    try:
        return str(IPv4Address(host)) == host
    except ValueError:
        return False
