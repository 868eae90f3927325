"""Which valid pair the controlling side nominates, and when (RFC 8445 §8.1.1).

A policy is a pure function of what is known; it never waits a fixed time.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from msgspec import Struct

from crowline.ice.pair import CandidatePair, ValidPair

# A better pair that was asked this many round-trip times of the best valid pair ago, and has not answered,
# is not waited for: a shorter way would have answered first.
ROUND_TRIPS_OF_GRACE = 2.0


class Decision(Struct, frozen=True):
    """Nominate `pair` now; ``None``: ask again at the time `again`, or when something has changed."""

    pair: ValidPair | None
    again: float | None = None


class NominationPolicy(Protocol):
    """`valid` are candidates for nomination, `outstanding` the pairs whose checks are open.

    `gathering`: either side may still find candidates.
    """

    def decide(
        self, valid: Sequence[ValidPair], outstanding: Sequence[CandidatePair], gathering: bool, now: float
    ) -> Decision: ...


class FirstValid:
    """Nominate the best of what is valid at once: right where a better pair can be nominated later."""

    def decide(
        self, valid: Sequence[ValidPair], outstanding: Sequence[CandidatePair], gathering: bool, now: float
    ) -> Decision:
        return Decision(best_of(valid))


class BestPossible:
    """Nominate the best valid pair as soon as no outstanding pair could win against it.

    While candidates may still come, a relayed pair is not nominated: it is the one kind that they are likely
    to beat, and a nomination ends the search.
    """

    def decide(
        self, valid: Sequence[ValidPair], outstanding: Sequence[CandidatePair], gathering: bool, now: float
    ) -> Decision:
        best = best_of(valid)
        if best is None or (gathering and best.kind == "relay"):
            return Decision(None)
        again: float | None = None
        for pair in outstanding:
            if pair.priority <= best.priority:
                continue
            if pair.first_checked is None:
                return Decision(None)
            hopeless = pair.first_checked + ROUND_TRIPS_OF_GRACE * (best.rtt or 0.0)
            if hopeless > now and (again is None or hopeless > again):
                again = hopeless
        return Decision(best) if again is None else Decision(None, again)


def best_of(valid: Sequence[ValidPair]) -> ValidPair | None:
    """The pair of the highest priority, the first of equals; ``None`` of nothing."""
    return max(valid, key=lambda pair: pair.priority, default=None)
