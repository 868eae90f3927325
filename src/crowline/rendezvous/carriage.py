"""How much of link zero each side of a meeting may send: a free budget, then a rate where there is one.

A side sends what the hub has told it that it may, and the hub tells it more before that is used up. So
nothing of an honest side is ever dropped, whichever of the two sends how much, and no bulk waits in front of
signals: a side that must wait does so with its bytes at home.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from functools import partial

from crowline.rendezvous import wire
from crowline.rendezvous.limits import HubLimits
from crowline.rendezvous.mailbox import Mailbox, Pot, Side
from crowline.rendezvous.rate import Pace

WINDOW = 256 * 1024
"""Bytes that a side may have on the way at once: 5 MB/s where the other side is 50 ms away."""

POT_REST = 3600.0
"""Seconds until a mailbox with a name, whose two sides may come again and again, has its budget anew."""

MAX_POTS = 10_000
"""Names whose budget is remembered, about 2 MB; beyond that the one longest unseen is forgotten."""


class Carriage:
    """The accounts of all meetings. `tell` gives a side a message, `at` calls back at a point in time."""

    def __init__(
        self,
        limits: HubLimits,
        tell: Callable[[Side, wire.HubMessage], None],
        at: Callable[[float, Callable[[float], None]], None],
    ) -> None:
        self.rate = limits.link_rate
        """Bytes a second beyond the budget for one meeting; 0: none."""
        self.credit = WINDOW if self.rate else min(WINDOW, limits.budget // 2)
        """Bytes that a side may send before the hub has told it anything."""
        self._pot = max(0, limits.budget - 2 * self.credit)
        # A second's worth, so that slow meetings go on in short steps, but whole messages.
        self._step = min(WINDOW // 2, max(wire.MAX_MESSAGE, self.rate))
        # The pot of each name that has met, and until when it holds. Nothing else of a meeting outlives it.
        self._pots: OrderedDict[bytes, tuple[Pot, float]] = OrderedDict()
        self._all = Pace(limits.link_rate_total)
        self._tell = tell
        self._at = at

    def open(self, box: Mailbox, now: float) -> None:
        """Give both sides of a meeting that begins what they may send at first."""
        box.pot, box.pace = self._pot_of(box, now), Pace(self.rate)
        for side in box.sides():
            side.credit = self.credit

    def _pot_of(self, box: Mailbox, now: float) -> Pot:
        """A mailbox with a name has one pot for all its lives in `POT_REST` seconds, out of which each later
        life takes the first credits that it gives away, as long as there is anything left.
        """
        if not box.name:
            return Pot(self._pot)
        pot, until = self._pots.pop(box.name, (None, 0.0))
        if pot is None or now >= until:
            pot, until = Pot(self._pot), now + POT_REST
        else:
            pot.left = max(0, pot.left - 2 * self.credit)
        self._pots[box.name] = pot, until
        if len(self._pots) > MAX_POTS:
            self._pots.popitem(last=False)
        return pot

    def spend(self, box: Mailbox, side: Side, size: int, now: float) -> bool:
        """Whether `side` may send that message; if so it hears in time what else it may send."""
        if side.sent + size > side.credit:
            return False
        side.sent += size
        self._extend(box, side, now)
        return True

    def _extend(self, box: Mailbox, side: Side, now: float) -> None:
        left = side.credit - side.sent
        if side.is_promised or left > WINDOW // 2:
            return
        if box.pot.left:
            self._pay(box, side, min(box.pot.left, WINDOW - left))
        elif self.rate:
            side.is_promised = True
            start = max(box.pace.book(self._step, now), self._all.book(self._step, now))
            self._at(start, partial(self._keep_promise, box, side))
        if not box.pot.left and not self.rate:
            self._finish(box)

    def _pay(self, box: Mailbox, side: Side, size: int) -> None:
        box.pot.left -= size
        side.credit += size
        if box.pot.left or self.rate:
            self._tell(side, wire.Budget(side.credit))

    def _keep_promise(self, box: Mailbox, side: Side, now: float) -> None:
        side.is_promised = False
        side.credit += self._step
        self._tell(side, wire.Budget(side.credit))
        self._extend(box, side, now)

    def _finish(self, box: Mailbox) -> None:
        """Tell both sides, once, that they have all that they will get."""
        if box.is_budget_told:
            return
        box.is_budget_told = True
        for side in box.sides():
            self._tell(side, wire.Budget(side.credit, final=True))
