"""When to try a pair again that worked and fell silent: direct ways come back."""

from __future__ import annotations

from msgspec import Struct

from crowline.ice.pair import CandidatePair
from crowline.stun.transaction import UDP

FIRST_GAP = 1.0  # seconds from the loss to the first try
LONGEST_GAP = 60.0  # seconds between two tries at most: a way that returns is found within a minute
# Seconds that a try takes: a whole check with its retransmissions. Both sides' packets must cross to open
# both translators, and the two sides' tries are not in step.
TRY_TIME = UDP.patience
# Seconds that each lost pair has to itself: all of them together send no more than one packet a second.
SHARE = float(UDP.rc)


class _Retry(Struct):
    gap: float
    at: float


class Retries:
    """Lost pairs, each with the time of its next try; the gaps double from `FIRST_GAP` to `LONGEST_GAP`.

    Where there are more pairs than a minute has room for, each has to wait longer.
    """

    def __init__(self) -> None:
        self._retries: dict[CandidatePair, _Retry] = {}

    def __len__(self) -> int:
        return len(self._retries)

    def lost(self, pair: CandidatePair, now: float) -> None:
        """`pair` worked and was lost: try it again."""
        self._retries[pair] = _Retry(FIRST_GAP, now + FIRST_GAP)

    def forget(self, pair: CandidatePair) -> None:
        """`pair` works again, or is not wanted any more."""
        self._retries.pop(pair, None)

    def clear(self) -> None:
        self._retries.clear()

    def next_timeout(self) -> float | None:
        return min((each.at for each in self._retries.values()), default=None)

    def due(self, now: float) -> list[CandidatePair]:
        """Pairs to be checked now."""
        pairs = [pair for pair, each in self._retries.items() if each.at <= now]
        for pair in pairs:
            retry = self._retries[pair]
            retry.gap = min(2 * retry.gap, LONGEST_GAP)
            retry.at = now + max(TRY_TIME + retry.gap, SHARE * len(self._retries))
        return pairs
