"""Which plans the side that leads has before it: all of them once, then, after rests, those with a chance."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from crowline.punch.parts import PUNCHED
from crowline.punch.plan_choice import Fit, NatSummary, PlannedWay, Way, choose_plans
from crowline.punch.plan_memory import in_order
from crowline.punch.spray_budget import REST

MAX_CYCLES = 4  # times that plans are gone through, the rests between them doubling
MAX_AGAIN = 2  # times in a cycle that a plan is put before the others once more
_ROUNDS = {Way.PREDICT_ONE: 3, Way.PREDICT_BOTH: 3}  # others are not likelier the second time


class Agenda:
    """`own`, `peer` and `scores` are what is known; they count from the next cycle on."""

    def __init__(self) -> None:
        self.own: NatSummary | None = None
        self.peer: NatSummary | None = None
        self.scores: Mapping[str, int] = {}
        self._waiting: deque[PlannedWay] = deque()
        self._is_cycling = False
        self._cycle = self._again = 0

    @property
    def has_begun(self) -> bool:
        """Whether any plan was taken since the beginning, or since it began anew."""
        return self._is_cycling or self._cycle > 0

    @property
    def has_hope(self) -> bool:
        """Whether a plan that is not unlikely waits in this cycle."""
        return any(plan.fit is not Fit.UNLIKELY for plan in self._waiting)

    def begin_anew(self) -> None:
        self._waiting.clear()
        self._is_cycling = False
        self._cycle = self._again = 0

    def take(self) -> PlannedWay | None:
        """The next plan; ``None``: this cycle is over, and `rest` follows."""
        if not self._is_cycling:
            self._waiting.extend(self._plans())
            self._is_cycling, self._again = True, 0
        return self._waiting.popleft() if self._waiting else None

    def once_more(self, plan: PlannedWay) -> None:
        """`plan` may well lead through the next time."""
        if self._again < MAX_AGAIN:
            self._again += 1
            self._waiting.appendleft(plan)

    def drop(self) -> None:
        """No other plan of this cycle is worth a try."""
        self._waiting.clear()

    def rest(self) -> float | None:
        """End the cycle: seconds until the next one; ``None``: there is none."""
        self._waiting.clear()
        self._is_cycling = False
        self._cycle += 1
        has_more = self._cycle < MAX_CYCLES and bool(self._plans())
        return REST * 2.0 ** (self._cycle - 1) if has_more else None

    def _plans(self) -> list[PlannedWay]:
        """All rounds of this cycle; from the second on only those with hope."""
        plans = in_order(
            choose_plans(self.own or NatSummary(), self.peer or NatSummary(), leads=True), self.scores
        )
        wanted = [plan for plan in plans if plan.way in PUNCHED]
        if self._cycle:
            wanted = [plan for plan in wanted if plan.fit is not Fit.UNLIKELY]
        return [plan for plan in wanted for _ in range(_rounds(plan))]


def _rounds(plan: PlannedWay) -> int:
    return 1 if plan.fit is Fit.UNLIKELY else _ROUNDS.get(plan.way, 1)
