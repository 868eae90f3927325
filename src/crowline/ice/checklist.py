"""The check list: which pair is checked next (RFC 8445 §6.1.2, §6.1.4; RFC 8838 §12)."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator

from crowline.ice.pair import CandidatePair, Way
from crowline.ice.states import OUTSTANDING, PairInput, PairState

MAX_PAIRS = 100  # RFC 8445 §6.1.2.5: bounds the traffic that a hostile candidate list can cause

_BUSY = (PairState.WAITING, PairState.IN_PROGRESS)
_DISPENSABLE = (PairState.FROZEN, PairState.WAITING, PairState.FAILED)


class CheckList:
    """The pairs of one data stream and their order.

    Foundations are looked at through `pairs` only, so that a set of lists can share one look-up later.
    """

    def __init__(self) -> None:
        self._pairs: dict[Way, CandidatePair] = {}
        self._triggered: deque[CandidatePair] = deque()

    def __len__(self) -> int:
        return len(self._pairs)

    def __iter__(self) -> Iterator[CandidatePair]:
        return iter(self._pairs.values())

    def find(self, way: Way) -> CandidatePair | None:
        return self._pairs.get(way)

    def add(self, pair: CandidatePair) -> bool:
        """Add a prioritised pair as RFC 8838 §12 says. False when it is redundant or the list is full."""
        if pair.way in self._pairs or not self._make_room(pair.priority):
            return False
        pair.state = self._initial_state(pair)
        self._pairs[pair.way] = pair
        return True

    def remove(self, pair: CandidatePair) -> None:
        """Take a pair off the list, whatever its state."""
        self._pairs.pop(pair.way, None)
        self.untrigger(pair)

    def clear(self) -> None:
        """Begin with nothing: a restart."""
        self._pairs.clear()
        self._triggered.clear()

    def trigger(self, pair: CandidatePair) -> None:
        """Queue a check out of order, first in first out (RFC 8445 §6.1.4.1)."""
        pair.apply(PairInput.TRIGGER)
        if pair.state is PairState.WAITING:
            pair.first_checked = None
        if pair not in self._triggered:
            self._triggered.append(pair)

    def untrigger(self, pair: CandidatePair) -> None:
        """Take `pair` out of the queue; an earlier check of it succeeded after all."""
        if pair in self._triggered:
            self._triggered.remove(pair)

    def next_check(self) -> CandidatePair | None:
        """A triggered pair, else the best Waiting one, else the best that thaws (RFC 8445 §6.1.4.2)."""
        if self._triggered:
            return self._triggered.popleft()
        best = self._best(PairState.WAITING)
        if best is None and self._thaw_idle_foundations():
            best = self._best(PairState.WAITING)
        return best

    def has_work(self) -> bool:
        """Whether `next_check` would give a pair."""
        if self._triggered:
            return True
        busy = set()
        frozen = set()
        for pair in self._pairs.values():
            if pair.state is PairState.WAITING:
                return True
            if pair.state is PairState.IN_PROGRESS:
                busy.add(pair.foundation)
            elif pair.state is PairState.FROZEN:
                frozen.add(pair.foundation)
        return not frozen <= busy

    def thaw(self, foundation: tuple[str, str]) -> None:
        """A pair of this foundation succeeded: its Frozen companions are worth trying (§7.2.5.3.3)."""
        for pair in self._pairs.values():
            if pair.state is PairState.FROZEN and pair.foundation == foundation:
                pair.apply(PairInput.THAW)

    def outstanding(self) -> list[CandidatePair]:
        """Pairs whose outcome is open."""
        return [pair for pair in self._pairs.values() if pair.state in OUTSTANDING]

    def conclude(self) -> None:
        """Drop what has not been sent yet, but for pairs that the other side has nominated (§8.1.2)."""
        self._triggered = deque(pair for pair in self._triggered if pair.nominate_on_success)
        for pair in list(self._pairs.values()):
            if pair.state in (PairState.FROZEN, PairState.WAITING) and not pair.nominate_on_success:
                del self._pairs[pair.way]

    def prioritise(self, controlling: bool) -> None:
        """Recompute every priority after a change of role."""
        for pair in self._pairs.values():
            pair.prioritise(controlling)

    def _initial_state(self, pair: CandidatePair) -> PairState:
        companions = [other for other in self._pairs.values() if other.foundation == pair.foundation]
        if any(other.state is PairState.SUCCEEDED for other in companions):
            return PairState.WAITING
        if all(other.priority < pair.priority for other in companions):
            return PairState.WAITING
        return PairState.FROZEN

    def _make_room(self, priority: int) -> bool:
        if len(self._pairs) < MAX_PAIRS:
            return True
        dispensable = [
            pair
            for pair in self._pairs.values()
            if pair.state in _DISPENSABLE and pair not in self._triggered and not pair.revoked
        ]
        if not dispensable:
            return False
        worst = min(dispensable, key=lambda pair: (pair.state is not PairState.FAILED, pair.priority))
        if worst.state is not PairState.FAILED and worst.priority >= priority:
            return False
        del self._pairs[worst.way]
        return True

    def _best(self, state: PairState) -> CandidatePair | None:
        best: CandidatePair | None = None
        for pair in self._pairs.values():
            if pair.state is state and (best is None or pair.priority > best.priority):
                best = pair
        return best

    def _thaw_idle_foundations(self) -> bool:
        """Where a foundation has nobody Waiting or In-Progress, its best Frozen pair becomes Waiting."""
        busy = {pair.foundation for pair in self._pairs.values() if pair.state in _BUSY}
        best: dict[tuple[str, str], CandidatePair] = {}
        for pair in self._pairs.values():
            if pair.state is not PairState.FROZEN or pair.foundation in busy:
                continue
            rival = best.get(pair.foundation)
            if rival is None or pair.priority > rival.priority:
                best[pair.foundation] = pair
        for pair in best.values():
            pair.apply(PairInput.THAW)
        return bool(best)
