"""In which order and how often to dial somebody who listens: three tries an address, then the next address.

Rules of this plan

1. An address gets three tries. The first SYN may open a NAT or a firewall for the second; a try that is
   refused or reset uses one up, like one that meets silence.
2. Silence costs less than a second twice: a new socket does no less than the kernel's repetition of the SYN.
   The last try is held for longer, for the ways that are.
3. The next address begins when the one before has failed for the first time, and after a quarter of a second
   in any case (RFC 8305 §5); `in_turn`, only when the one before has had all its tries, for systems that
   cannot have two connections at a time.
4. Nobody gets more SYNs than the budget has: with three tries, an unproven address gets five at most.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.punch.syn_budget import REPEAT, SynBudget
from crowline.punch.tcp_schedule import Abandon

MAX_DIALLED = 64  # addresses; whoever names more has these tried
# Seconds for which each try is held against silence. With REPEAT these are one, one and three SYNs.
TRY_TIMES = (0.9, 0.9, 2.9)
TRIES = len(TRY_TIMES)
STAGGER = 0.25  # seconds between the first tries of two addresses, RFC 8305 §5
# Seconds between a refusal and the next try of the address, at random: two sides that dial each other through
# NATs that refuse must not keep their distance.
MIN_REST, MAX_REST = 0.1, 0.3


class Outcome(Enum):
    """What the last try of an address came to."""

    UNTRIED = "it was not tried"
    CONNECTED = "it was connected"
    REFUSED = "it was refused"
    UNREACHABLE = "there is no way to it"
    SILENT = "nobody answered"
    UNSENT = "this machine did not let it leave"
    CAPPED = "an address that has proven nothing gets no more"
    UNPROVEN = "whoever answered was somebody else"


class Connect(Struct, frozen=True):
    """Connect a new socket."""

    number: int
    remote: Address


class Tried(Struct, frozen=True):
    """How often an address was tried, and what the last try came to."""

    remote: Address
    tries: int
    outcome: Outcome


class GivenUp(Struct, frozen=True):
    """An address has had its tries."""

    tried: Tried


class Exhausted(Struct, frozen=True):
    """Every address has had its tries and no connection stands: the other side's turn, if there are turns."""

    tried: tuple[Tried, ...]


DialCommand: TypeAlias = Connect | Abandon
DialEvent: TypeAlias = GivenUp | Exhausted


@dataclass(slots=True, eq=False)
class _Line:
    """One address."""

    remote: Address
    tries: int = 0
    number: int = 0  # of the try under way or of the connection that stands; 0: there is none
    at: float | None = None  # when the try under way is given up, or the next one begins
    outcome: Outcome = Outcome.UNTRIED
    is_over: bool = False

    @property
    def tried(self) -> Tried:
        return Tried(self.remote, self.tries, self.outcome)


class DialPlan:
    """The plan of one side; `next_transmit` gives what to do with sockets, `next_event` what was in vain.

    The driver tells what became of each try by its number; what is said of an earlier one is not heard.
    """

    def __init__(
        self,
        budget: SynBudget,
        *,
        entropy: Callable[[int], bytes],
        in_turn: bool = False,
        repeat: float = REPEAT,
    ) -> None:
        self._budget = budget
        self._entropy = entropy
        self._in_turn = in_turn
        self._repeat = repeat
        self._lines: list[_Line] = []
        self._begun = 0  # lines that have begun
        self._begin_at: float | None = None  # when the next one does
        self._numbers = 0
        self._has_started = self._over = self._has_said = False
        self._commands: deque[DialCommand] = deque()
        self._events: deque[DialEvent] = deque()

    def add(self, remote: Address, now: float) -> bool:
        """Dial this address too, after those that are there. False for one that is there, or one too many.

        One that has been given up is dialled anew.
        """
        known = self._find(remote)
        if known is not None and not known.is_over:
            return False
        self.remove(remote)
        if self._over or len(self._lines) >= MAX_DIALLED:
            return False
        self._lines.append(_Line(remote))
        if self._has_started:
            self._has_said = False
            if self._begin_at is None and self._begun == len(self._lines) - 1:
                self._plan_next(now)
            self._settle(now)
        return True

    def remove(self, remote: Address) -> None:
        """Dial this address no more; no event follows. What is connected stays."""
        line = self._find(remote)
        if line is None:
            return
        self._abandon(line)
        self._begun -= self._lines.index(line) < self._begun
        self._lines.remove(line)

    def start(self, now: float) -> None:
        """It is this side's turn. A second start is none."""
        if not self._has_started and not self._over:
            self._has_started = True
            self._begin_at = now
            self._settle(now)

    def connected(self, number: int) -> None:
        """The try is connected; its address rests."""
        line = self._line(number)
        if line is not None:
            line.at, line.outcome = None, Outcome.CONNECTED

    def failed(self, number: int, outcome: Outcome, now: float) -> None:
        """The try failed, or its connection ended before it had proven anything."""
        line = self._line(number)
        if line is None:
            return
        self._use_up(line, outcome, now)
        self._settle(now)

    def stop(self) -> None:
        """End it without a word; what is connected has an owner of its own."""
        self._over = True
        self._begin_at = None
        for line in self._lines:
            self._abandon(line)

    # --- the verbs --------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        for line in self._lines[: self._begun]:
            if line.at is None or now < line.at:
                continue
            if line.number:
                self._commands.append(Abandon(line.number))
                self._use_up(line, Outcome.SILENT, now, rest=0.0)
            else:
                self._try(line, now)
        self._settle(now)

    def next_timeout(self) -> float | None:
        times = [line.at for line in self._lines if line.at is not None]
        if self._begin_at is not None:
            times.append(self._begin_at)
        return min(times, default=None)

    def next_transmit(self) -> DialCommand | None:
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> DialEvent | None:
        return self._events.popleft() if self._events else None

    # ----------------------------------------------------------------------------------------------------

    def _settle(self, now: float) -> None:
        """Begin what is due; say so when nothing is left."""
        while self._begin_at is not None and now >= self._begin_at and self._begun < len(self._lines):
            line = self._lines[self._begun]
            self._begun += 1
            self._plan_next(now)
            self._try(line, now)
        if self._begun == len(self._lines):
            self._begin_at = None
        is_exhausted = self._has_started and all(line.is_over for line in self._lines)
        if is_exhausted and not self._has_said and not self._over:
            self._has_said = True
            self._events.append(Exhausted(tuple(line.tried for line in self._lines)))

    def _plan_next(self, now: float) -> None:
        """When the address after those that have begun does."""
        if not self._in_turn:
            self._begin_at = now + (STAGGER if self._begun else 0.0)
        else:
            self._begin_at = now if all(line.is_over for line in self._lines[: self._begun]) else None

    def _try(self, line: _Line, now: float) -> None:
        line.at = None
        if not self._budget.spend(line.remote):
            line.outcome = Outcome.CAPPED
            self._give_up(line)
            self._next_line(now)
            return
        hold = self._budget.afford(line.remote, TRY_TIMES[line.tries], self._repeat)
        line.tries += 1
        self._numbers += 1
        line.number = self._numbers
        line.at = now + hold
        self._commands.append(Connect(line.number, line.remote))

    def _use_up(self, line: _Line, outcome: Outcome, now: float, rest: float | None = None) -> None:
        line.number, line.outcome = 0, outcome
        if line.tries == TRIES:
            self._give_up(line)
        else:
            line.at = now + (self._rest() if rest is None else rest)
        self._next_line(now)
        if line.at is not None and line.at <= now:
            self._try(line, now)

    def _give_up(self, line: _Line) -> None:
        line.at, line.is_over = None, True
        self._events.append(GivenUp(line.tried))

    def _abandon(self, line: _Line) -> None:
        """Close its socket, unless it is connected: then it has an owner of its own."""
        if line.number and line.outcome is not Outcome.CONNECTED:
            self._commands.append(Abandon(line.number))
        line.number, line.at = 0, None

    def _next_line(self, now: float) -> None:
        """An address has failed: the next one need not wait, unless it is to have its turn."""
        if self._begun == len(self._lines):
            return
        if not self._in_turn or all(line.is_over for line in self._lines[: self._begun]):
            self._begin_at = now

    def _rest(self) -> float:
        return MIN_REST + (MAX_REST - MIN_REST) * int.from_bytes(self._entropy(4), "big") / 2**32

    def _find(self, remote: Address) -> _Line | None:
        return next((line for line in self._lines if line.remote == remote), None)

    def _line(self, number: int) -> _Line | None:
        if self._over or not number:
            return None
        return next((line for line in self._lines if line.number == number), None)
