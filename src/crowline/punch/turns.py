"""Whose turn it is to dial: the side that can be reached is dialled by the other, whichever that is.

AIM calls it a redirect, DC++ a reverse connect, Adium a swap of roles. One side dials the other's addresses;
when they are used up it tells the other to dial, and listens. Both listen all the time, so that whoever is
let in ends the matter.

    begins          dials → hands over → waits → fails
    does not begin  waits → dials, when the other side hands over or its time is up → fails

Two agents of ICE need no turns: both learn all addresses first, and each starts its `DialPlan` at once.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from crowline.punch.dial_plan import (
    MAX_REST,
    TRIES,
    TRY_TIMES,
    DialCommand,
    DialPlan,
    Exhausted,
    Outcome,
    Tried,
)

# Seconds that the other side's turn takes for each address that it was told, at most, and those in which its
# word comes.
TURN_PER_ADDRESS = sum(TRY_TIMES) + TRIES * MAX_REST
TURN_MARGIN = 1.0
TOTAL_LIMIT = 60.0  # seconds in all


class Turn(Enum):
    """What this side does."""

    NEW = "not begun"
    DIALS = "dials"
    WAITS = "waits"
    OVER = "over"


@dataclass(frozen=True, slots=True)
class HandOver:
    """Tell the other side that it is its turn to dial."""

    tried: tuple[Tried, ...]


@dataclass(frozen=True, slots=True)
class TurnsFailed:
    """Neither side reached the other. `tried` is what became of this side's addresses."""

    tried: tuple[Tried, ...]


TurnEvent: TypeAlias = HandOver | TurnsFailed


class Turns:
    """One side's view of whose turn it is, around its `DialPlan`; the driver does the plan's commands.

    `own_addresses`: how many this side has told the other, which decides how long the other's turn may take.
    """

    def __init__(self, plan: DialPlan, *, begins: bool, own_addresses: int) -> None:
        self.turn = Turn.NEW
        self._plan = plan
        self._begins = begins
        self._patience = own_addresses * TURN_PER_ADDRESS + TURN_MARGIN
        self._waits_until: float | None = None
        self._deadline: float | None = None
        self._tried: tuple[Tried, ...] = ()
        self._has_dialled = False
        self._events: deque[TurnEvent] = deque()

    def start(self, now: float) -> None:
        """Both sides have told their addresses."""
        if self.turn is not Turn.NEW:
            return
        self._deadline = now + TOTAL_LIMIT
        if self._begins:
            self._dial(now)
        else:
            self._wait(now)
        self._settle(now)

    def handed_over(self, now: float) -> None:
        """The other side says that it is this side's turn; a side that has had its own hears nothing new."""
        if self.turn is Turn.WAITS and not self._has_dialled:
            self._dial(now)
            self._settle(now)

    def connected(self, number: int) -> None:
        """The try of that number is connected; it has yet to prove that it is the other side."""
        self._plan.connected(number)

    def failed(self, number: int, outcome: Outcome, now: float) -> None:
        """The try failed, or whoever answered was somebody else: the next one follows."""
        self._plan.failed(number, outcome, now)
        self._settle(now)

    def proven(self) -> None:
        """A connection, of whoever dialled, has proven to be the other side's: nothing more is to be done."""
        self.turn = Turn.OVER
        self._plan.stop()

    # --- the verbs --------------------------------------------------------------------------------------

    def handle_timeout(self, now: float) -> None:
        if self.turn is Turn.DIALS:
            self._plan.handle_timeout(now)
        self._settle(now)

    def next_timeout(self) -> float | None:
        if self.turn in (Turn.NEW, Turn.OVER):
            return None
        at = self._plan.next_timeout() if self.turn is Turn.DIALS else self._waits_until
        times = [time for time in (at, self._deadline) if time is not None]
        return min(times, default=None)

    def next_transmit(self) -> DialCommand | None:
        return self._plan.next_transmit()

    def next_event(self) -> TurnEvent | None:
        return self._events.popleft() if self._events else None

    # ----------------------------------------------------------------------------------------------------
    def _dial(self, now: float) -> None:
        self.turn, self._has_dialled, self._waits_until = Turn.DIALS, True, None
        self._plan.start(now)

    def _wait(self, now: float) -> None:
        self.turn, self._waits_until = Turn.WAITS, now + self._patience

    def _settle(self, now: float) -> None:
        exhausted = self._exhausted()
        if self.turn is Turn.DIALS and exhausted is not None:
            self._tried = exhausted.tried
            if self._begins:
                self._events.append(HandOver(self._tried))
                self._wait(now)
            else:
                self._fail()
        elif self.turn is Turn.WAITS and self._waits_until is not None and now >= self._waits_until:
            if self._has_dialled:
                self._fail()
            else:
                self._dial(now)
        if self.turn is not Turn.OVER and self._deadline is not None and now >= self._deadline:
            self._fail()

    def _exhausted(self) -> Exhausted | None:
        while (event := self._plan.next_event()) is not None:
            if isinstance(event, Exhausted):
                return event
        return None

    def _fail(self) -> None:
        self.turn = Turn.OVER
        self._plan.stop()
        self._events.append(TurnsFailed(self._tried))
