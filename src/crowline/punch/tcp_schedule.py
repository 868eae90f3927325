"""When to try what in one TCP simultaneous open (RFC 9293 §3.5, RFC 6544 §7): a plan without sockets.

Both sides run it against each other's address. Two SYNs must pass each other between the NATs: each opens its
own NAT, and the other's when it arrives there. How to bring that about depends on what a NAT does with a SYN
that comes too early, which nobody knows beforehand:

    it is dropped   the early side only has to wait: the later SYN finds the hole open
    it is refused   the hole is closed again. The next try comes after a random pause, since fixed pauses let
                    the two sides miss each other for ever at the same distance
    five times      a SYN with a low hop limit opens the own NAT and dies before it reaches the other one. The
                    kernel repeats it after a second, on the same socket and with the ordinary hop limit; the
                    other side's next SYN finds the hole open anyway. Where a router tells of the death (ICMP
                    time exceeded), some kernels give the socket up, and then the plan gives up this way

Each attempt needs a new socket: a refused one is dead or half-dead, by system.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from enum import Enum
from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.punch.syn_budget import REPEAT, SynBudget

PATIENCE = 5.0  # seconds in all
MAX_ATTEMPTS = 160  # what fits into the patience when every refusal comes at once

# Seconds between a refusal and the next attempt, at random. Two sides 40 ms apart then meet at the second or
# third attempt on average; much longer pauses cost more than they gain, much shorter ones keep the distance.
MIN_PAUSE, MAX_PAUSE = 0.005, 0.060

# Seconds that an attempt is held against silence, at first. A fresh SYN mends the loss of one sooner than the
# kernel does; but each further one waits twice as long, since silence mostly means that the other side is
# late.
FIRST_HOLD = 0.3
# A simultaneous open takes a round trip, and the other side may begin as much later.
_HOLD_ROUND_TRIPS = 2
_LONGEST_ROUND_TRIP = 1.0  # seconds

# Refusals that lead to a low hop limit, before each of those in the list. Four hops pass two layers of NAT
# and do not reach the other side's; seven are for longer ways through a carrier.
REFUSALS_TO_LOW = 5
LOW_HOP_LIMITS = (4, 7)
_LOW_COST = 2  # SYNs: the one that dies and its repetition

# Attempts on end that the own system did not even send; something is wrong here that waiting does not mend.
MAX_UNSENT = 10


class Attempt(Struct, frozen=True):
    """Connect a new socket.

    With `hop_limit`, the SYN leaves with that one, and the socket gets its ordinary hop limit back as soon as
    it has left.
    """

    number: int
    hop_limit: int | None = None


class Abandon(Struct, frozen=True):
    """Close the socket of that attempt."""

    number: int


Command: TypeAlias = Attempt | Abandon


class PunchEnd(Enum):
    """Why a plan came to its end without a connection."""

    EXPIRED = "the other side could not be met in time"
    CAPPED = "an address of which nobody knows that the other side is there gets no more"
    UNSENT = "this machine does not let the attempts leave"


class PunchFailed(Struct, frozen=True):
    """The plan is over."""

    reason: PunchEnd
    attempts: int
    refusals: int


class TcpSchedule:
    """The plan for one pair of addresses. The driver tells what became of each attempt, by its number.

    `next_transmit` gives what to do with sockets, `next_event` the end without success. There is never more
    than one attempt at a time. `entropy` gives that many random bytes; `round_trip` is a guess in seconds,
    such as that of the way by which both sides agreed to begin; `repeat` is `REPEAT` as this system has it.
    """

    def __init__(
        self,
        remote: Address,
        budget: SynBudget,
        *,
        entropy: Callable[[int], bytes],
        round_trip: float = 0.0,
        hop_limits: tuple[int, ...] = LOW_HOP_LIMITS,
        repeat: float = REPEAT,
    ) -> None:
        self.remote = remote
        self.attempts = 0
        self.refusals = 0
        self._budget = budget
        self._entropy = entropy
        self._round_trip = min(round_trip, _LONGEST_ROUND_TRIP)
        self._repeat = repeat
        self._hop_limits = deque(hop_limits)
        self._refusals_in_a_row = 0
        self._silences = 0
        self._unsent = 0
        self._current: Attempt | None = None
        self._began = 0.0  # when the current attempt did
        self._next: float | None = None  # when to begin another, or to give the current one up
        self._deadline: float | None = None
        self._commands: deque[Command] = deque()
        self._events: deque[PunchFailed] = deque()
        self._is_open = False
        self._over = False

    @property
    def is_over(self) -> bool:
        return self._over

    def start(self, now: float) -> None:
        """Begin with the first attempt, at once."""
        if self._deadline is None and not self._over:
            self._deadline = now + PATIENCE
            self._attempt(now)

    # --- what became of an attempt; what is said of an earlier one is not heard --------------------------

    def opened(self, number: int) -> None:
        """It is connected: the plan rests. The time for it goes on, in case of `lost`."""
        if self._is_current(number):
            self._is_open = True
            self._next = None

    def let_in(self) -> int:
        """The other side's SYN got through to the listener; gives the number that its connection has here.

        It rests as after `opened`. An attempt under way would only be in its way.
        """
        if self._is_open or self._over or self._deadline is None:
            return 0
        self._abandon()
        self.attempts += 1
        self._current = Attempt(self.attempts)
        self._is_open = True
        self._next = None
        return self.attempts

    def lost(self, number: int, now: float) -> None:
        """The connection of that attempt was reset before anything authenticated came.

        The other side may have given its half up in the moment in which this one was complete.
        """
        if self._is_current(number) and self._is_open:
            self._is_open = False
            self._pause(now)

    def refused(self, number: int, now: float) -> None:
        """The other side, or its NAT, answered with RST."""
        if not self._is_current(number):
            return
        self.refusals += 1
        self._refusals_in_a_row += 1
        self._silences = self._unsent = 0
        self._round_trip = max(self._round_trip, min(now - self._began, _LONGEST_ROUND_TRIP))
        self._pause(now)

    def unreachable(self, number: int, now: float) -> None:
        """A router sent an ICMP error: of a low hop limit that is the end, else it is like a refusal."""
        if not self._is_current(number):
            return
        if self._current is not None and self._current.hop_limit is not None:
            self._hop_limits.clear()
            self._pause(now)
        else:
            self.refused(number, now)

    def unsent(self, number: int, now: float) -> None:
        """This machine did not let it leave: the pair of addresses is still taken, or worse."""
        if not self._is_current(number):
            return
        self._unsent += 1
        if self._unsent >= MAX_UNSENT:
            self._current = None
            self._fail(PunchEnd.UNSENT)
        else:
            self._pause(now)

    def proven(self, now: float) -> None:
        """The budget has no limit for the address any more: go on, if that was what stopped it."""
        if self._deadline is not None and not self._over and self._current is None and self._next is None:
            self._attempt(now)

    def stop(self) -> None:
        """End without saying so: enough has come by the connection, or nobody wants it any more."""
        self._abandon()
        self._finish()

    # --- the verbs --------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        if self._over or self._deadline is None:
            return
        if now >= self._deadline:
            if self._is_open:
                self._finish()
                return
            self._abandon()
            is_capped = self._next is None and self._budget.left(self.remote) == 0
            self._fail(PunchEnd.CAPPED if is_capped else PunchEnd.EXPIRED)
        elif self._next is not None and now >= self._next:
            if self._current is not None:
                self._silences += 1
                self._abandon()
            self._attempt(now)

    def next_timeout(self) -> float | None:
        if self._over or self._deadline is None:
            return None
        return self._deadline if self._next is None else min(self._next, self._deadline)

    def next_transmit(self) -> Command | None:
        return self._commands.popleft() if self._commands else None

    def next_event(self) -> PunchFailed | None:
        return self._events.popleft() if self._events else None

    # ----------------------------------------------------------------------------------------------------

    def _attempt(self, now: float) -> None:
        """Begin another one, if it may be sent; otherwise wait for `proven`, or for the end."""
        self._next = None
        if self.attempts >= MAX_ATTEMPTS or not self._budget.spend(self.remote):
            return
        hop_limit = self._low_hop_limit()
        hold = self._hold() if hop_limit is None else REPEAT + self._hold()
        self.attempts += 1
        self._current = Attempt(self.attempts, hop_limit)
        self._began = now
        self._next = now + self._budget.afford(self.remote, hold, self._repeat)
        self._commands.append(self._current)

    def _low_hop_limit(self) -> int | None:
        """That of the attempt whose first SYN has just been paid, if it is the turn of one."""
        if not self._hop_limits:
            return None
        is_last_chance = self._refusals_in_a_row > 0 and self._budget.left(self.remote) == _LOW_COST - 1
        if self._refusals_in_a_row < REFUSALS_TO_LOW and not is_last_chance:
            return None
        self._refusals_in_a_row = 0
        return self._hop_limits.popleft()

    def _hold(self) -> float:
        """Not the same for both sides either, so that they do not miss each other for ever."""
        hold = max(FIRST_HOLD * (1 << self._silences), _HOLD_ROUND_TRIPS * self._round_trip)
        return min(hold, PATIENCE) + self._chance(MIN_PAUSE, MAX_PAUSE)

    def _pause(self, now: float) -> None:
        self._current = None
        self._next = now + self._chance(MIN_PAUSE, MAX_PAUSE)

    def _chance(self, low: float, high: float) -> float:
        return low + (high - low) * int.from_bytes(self._entropy(4), "big") / 2**32

    def _abandon(self) -> None:
        """An open connection has an owner of its own."""
        if self._current is not None and not self._is_open:
            self._commands.append(Abandon(self._current.number))
            self._current = None

    def _is_current(self, number: int) -> bool:
        return not self._over and self._current is not None and self._current.number == number

    def _fail(self, reason: PunchEnd) -> None:
        self._events.append(PunchFailed(reason, self.attempts, self.refusals))
        self._finish()

    def _finish(self) -> None:
        self._over = True
        self._next = None
