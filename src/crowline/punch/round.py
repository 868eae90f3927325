"""One round of one plan, as one side plays it: measure, tell, hear what the other side tells, send.

Each side sends as soon as it knows what its part needs. It ends when nobody answered in time; a packet that
authenticates ends the sending, and what ICE makes of it is waited for.
"""

from __future__ import annotations

from collections import deque
from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.punch.parts import Means, Part, Told
from crowline.punch.punch_signals import PunchPool, PunchReady
from crowline.punch.samples import Ask, Samples
from crowline.punch.spray import MAX_SOCKETS, Missed, Probe, SprayFailed, SprayPlan
from crowline.punch.spray_budget import Refusal, SprayBudget

# Seconds for measuring and telling on both sides: lost answers, and a hub far away.
PREPARATION = 3.0
PROOF_TIME = 1.0  # seconds in which the hub vouches for a host: a few round trips
AGREEMENT = 2.0  # seconds for the checks of ICE on a way that was found: three of them, and a round trip
MAX_HEARD = 4  # sockets that may become bases: one is usual, and each is checked with by ICE


class RoundOutcome(Enum):
    """How a round ended."""

    DIRECT = "there is a direct path"
    SILENCE = "no guess was answered"
    NO_PAIR = "a guess was answered, but no pair came of it"
    UNMEASURED = "no server said which ports the sockets have"
    NO_PATTERN = "the ports follow no order"
    UNPROVEN = "nobody has proven to be the other side at that address"
    LIMITED = "no more packets are allowed now"
    PEER_LATE = "the other side was not ready in time"
    PEER_ENDED = "the other side has ended it"
    REPLACED = "another round has begun"
    STOPPED = "it was not wanted any longer"


class Tell(Struct, frozen=True):
    """The other side has to hear that."""

    ready: PunchReady


class ProofWanted(Struct, frozen=True):
    """Nothing is sent to that host unless somebody vouches for it."""

    host: str


class Heard(Struct, frozen=True):
    """What came to that socket authenticates: it is to become a base."""

    socket: int
    source: Address


class RoundOver(Struct, frozen=True):
    outcome: RoundOutcome
    sent: int


RoundEvent: TypeAlias = Tell | ProofWanted | Heard | RoundOver


class Round:
    """Numbers of sockets begin at `means.first` and end below `end`."""

    def __init__(
        self,
        number: int,
        part: Part,
        means: Means,
        budget: SprayBudget,
    ) -> None:
        self.number = number
        self.is_over = False
        self.sent = 0
        self.end = means.first + part.questions + MAX_SOCKETS
        self._part = part
        self._means = means
        self._budget = budget
        self._samples = Samples(means.first, part.questions, part.spacing)
        self._told: Told | None = None
        self._theirs: PunchReady | None = None
        self._plan: SprayPlan | None = None
        self._heard: set[int] = set()
        self._deadline = float("inf")
        self._late = RoundOutcome.PEER_LATE  # what it means when the deadline comes
        self._asked_proof = False
        self._commands: deque[Ask | Probe] = deque()
        self._events: deque[RoundEvent] = deque()

    def begin(self, now: float) -> None:
        self._deadline = now + PREPARATION
        if not self._part.is_answer:
            self._samples.begin(now)
        self._work(now)

    def peer_ready(self, ready: PunchReady, now: float) -> None:
        """What the other side told; only the first counts."""
        if self.is_over or self._theirs is not None:
            return
        self._theirs = ready
        if not self._budget.is_proven(ready.host):
            self._events.append(ProofWanted(ready.host))
            self._deadline, self._late = now + PROOF_TIME, RoundOutcome.UNPROVEN
        self._work(now)

    def host_proven(self, now: float) -> None:
        """There is a host more that may be sent to."""
        if self._late is RoundOutcome.UNPROVEN and self._may_send():
            self._deadline, self._late = now + PREPARATION, RoundOutcome.PEER_LATE
        self._work(now)

    def sampled(self, socket: int, local: Address | None, mapped: Address | None, now: float) -> None:
        self._samples.answered(socket, local, mapped)
        self._work(now)

    def authenticated(self, socket: int, source: Address, now: float) -> None:
        """A packet that only the other side can have made came from `source` to that socket."""
        is_ours = self._means.first <= socket < self.end
        if self.is_over or not is_ours or socket in self._heard or len(self._heard) >= MAX_HEARD:
            return
        if not self._heard:
            self._deadline, self._late = now + AGREEMENT, RoundOutcome.NO_PAIR
            if self._plan is not None:
                self._plan.authenticated(socket, source)
        self._heard.add(socket)
        self._events.append(Heard(socket, source))
        self._work(now)

    def stop(self, outcome: RoundOutcome) -> None:
        """End it; `RoundOver` says so, unless it is over."""
        if self.is_over:
            return
        self.is_over = True
        if self._plan is not None:
            self._plan.stop()
            self.sent = self._plan.sent
        self._commands.clear()
        self._events.append(RoundOver(outcome, self.sent))

    @property
    def was_cheap(self) -> bool:
        """Whether the ports were looked for in a small pool: another round costs little."""
        own = None if self._told is None else self._told.pool
        theirs = None if self._theirs is None or self._theirs.pool is None else self._theirs.pool.pool
        pool = own or theirs
        return pool is not None and pool.is_block

    # --- the verbs --------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        if not self.is_over and now >= self._deadline:
            self.stop(self._late)
        self._work(now)

    def next_timeout(self) -> float | None:
        if self.is_over:
            return None
        times = [self._deadline]
        sampling = self._samples.next_timeout()
        if sampling is not None and self._told is None:
            times.append(sampling)
        planned = None if self._plan is None else self._plan.next_timeout()
        if planned is not None:
            times.append(planned)
        return min(times)

    def next_transmit(self) -> Ask | Probe | None:
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> RoundEvent | None:
        return self._events.popleft() if self._events else None

    # ----------------------------------------------------------------------------------------------------

    def _work(self, now: float) -> None:
        """Do everything whose time has come."""
        if self.is_over:
            return
        part, samples = self._part, self._samples
        if part.is_answer and self._may_send() and not samples.has_begun:
            samples.begin(now)
        if samples.has_begun and self._told is None:
            self._ask(now)
        if not self.is_over and not part.is_fenced and self._told is not None:
            self._shoot(now)
        if not self.is_over:
            self._drive(now)

    def _ask(self, now: float) -> None:
        while (question := self._samples.next_question(now)) is not None:
            self._commands.append(question)
            if self._part.is_fenced and self._samples.left == 1:
                self._fence(now)
                return
        if self._samples.is_over(now):
            self._tell(now)

    def _fence(self, now: float) -> None:
        """The last question but one has left: now the openers, and the last question at once after them."""
        self._shoot(now)
        if self.is_over:
            return
        self._drive(now)
        last = self._samples.next_question(now, at_once=True)
        if last is not None:
            self._commands.append(last)

    def _tell(self, now: float) -> None:
        seen = self._samples.seen
        if not seen:
            self.stop(RoundOutcome.UNMEASURED)
            return
        self._told = self._part.tell(seen, now)
        if self._told is None:
            self.stop(RoundOutcome.NO_PATTERN)
            return
        told, host = self._told, seen[-1].mapped.host
        pool = None if told.pool is None else PunchPool.of(told.pool)
        self._events.append(Tell(PunchReady(self.number, host, told.ports, pool)))

    def _may_send(self) -> bool:
        return self._theirs is not None and self._budget.is_proven(self._theirs.host)

    def _shoot(self, now: float) -> None:
        if self._plan is not None or self._theirs is None or not self._may_send():
            return
        salvo = self._part.salvo(self._told, self._theirs, self._means)
        if salvo is None:
            self.stop(RoundOutcome.PEER_ENDED)
            return
        room = self._budget.left(self._theirs.host, now)
        probes = salvo.probes[:room]
        if not probes:
            self.stop(RoundOutcome.LIMITED)
            return
        later = salvo.later[: room - len(probes)]
        self._plan = SprayPlan(
            self._budget, probes, later=later, is_burst=salvo.is_burst, patience=salvo.patience
        )
        self._deadline = now + salvo.patience + AGREEMENT
        self._late = RoundOutcome.SILENCE
        self._plan.start(now)

    def _drive(self, now: float) -> None:
        plan = self._plan
        if plan is None:
            return
        plan.handle_timeout(now)
        while (probe := plan.next_transmit()) is not None:
            self._commands.append(probe)
        self.sent = plan.sent
        while (event := plan.next_event()) is not None:
            if isinstance(event, SprayFailed):
                self.stop(_OUTCOMES.get(event.reason, RoundOutcome.LIMITED))


_OUTCOMES: dict[Missed | Refusal, RoundOutcome] = {
    Missed.SILENCE: RoundOutcome.SILENCE,
    Missed.STOPPED: RoundOutcome.STOPPED,
    Refusal.UNPROVEN: RoundOutcome.UNPROVEN,
}
