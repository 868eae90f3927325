"""Which number a new code gets: one of few digits, drawn by lot, that nobody has had lately."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable

from crowline.rendezvous.code import MAX_NUMBER

DRAWS = 12
"""Draws among the numbers of one length before one more digit is taken."""

MAX_RESTING = 100_000
"""Used numbers remembered, about 10 MB; beyond that the oldest may be given out again."""


class Numbers:
    """Draws numbers, and lets used ones rest for `rest` seconds. `lowest`: a power of ten to begin with."""

    def __init__(self, entropy: Callable[[int], bytes], rest: float, lowest: int = 1) -> None:
        self._entropy = entropy
        self._rest = rest
        self._lowest = lowest
        self._resting: OrderedDict[int, float] = OrderedDict()

    def draw(self, is_taken: Callable[[int], bool], now: float) -> int | None:
        """A free number, or ``None`` when even the longest are crowded."""
        self._wake(now)
        lowest = self._lowest
        while lowest <= MAX_NUMBER:
            for _ in range(DRAWS):
                number = lowest + int.from_bytes(self._entropy(6), "big") % (9 * lowest)
                if number not in self._resting and not is_taken(number):
                    return number
            lowest *= 10
        return None

    def retire(self, number: int, now: float) -> None:
        """`number` was used; let it rest."""
        self._resting[number] = now + self._rest
        self._resting.move_to_end(number)
        if len(self._resting) > MAX_RESTING:
            self._resting.popitem(last=False)

    def _wake(self, now: float) -> None:
        while self._resting and next(iter(self._resting.values())) <= now:
            self._resting.popitem(last=False)
