"""The valid list, and which of its pairs is selected (RFC 8445 §7.2.5.3.2, §8)."""

from __future__ import annotations

from collections.abc import Sequence

from crowline.ice.candidate import Candidate
from crowline.ice.nomination import Decision, NominationPolicy
from crowline.ice.pair import CandidatePair, ValidPair, Way


class ValidList:
    """Pairs that work.

    `renominate`: both sides agreed that a later nomination replaces an earlier one; without that, the best
    of the nominated pairs is selected, which is right towards aggressive peers too (RFC 8445 §8.1.1).
    """

    def __init__(self, policy: NominationPolicy, *, renominate: bool) -> None:
        self._policy = policy
        self._renominate = renominate
        self._pairs: dict[Way, ValidPair] = {}
        self.selected: ValidPair | None = None
        # `selected` was agreed under roles that have changed since.
        self._provisional = False
        # The pair whose nominating check is queued or on its way.
        self.nominating: ValidPair | None = None

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, way: Way) -> bool:
        return way in self._pairs

    def sorted(self) -> list[ValidPair]:
        """Best first."""
        return sorted(self._pairs.values(), key=lambda pair: pair.priority, reverse=True)

    def find(self, way: Way) -> ValidPair | None:
        return self._pairs.get(way)

    def record(
        self, checked: CandidatePair, local: Candidate, former: ValidPair | None
    ) -> tuple[ValidPair, bool]:
        """The valid pair that a success of `checked` proves, and whether it is new on this list.

        `local` is the candidate of our side whose address the other side saw. `former` carried data on the
        same way before a restart: it goes on as the same pair.
        """
        pair = self._pairs.get(checked.way)
        is_new = pair is None
        if pair is None:
            pair = former or ValidPair(local, checked.remote, checked)
            pair.nominated = False
            self._pairs[checked.way] = pair
        pair.local, pair.remote, pair.checked = local, checked.remote, checked
        return pair, is_new

    def remove(self, pair: ValidPair) -> None:
        self._pairs.pop(pair.way, None)
        if self.selected is pair:
            self.selected = None
        self.nomination_over(pair)

    def clear(self) -> None:
        """Begin with nothing: a restart."""
        self._pairs.clear()
        self.selected = self.nominating = None
        self._provisional = False

    def start_over(self) -> None:
        """Forget every nomination; what is selected stays so only until the next one."""
        for pair in self._pairs.values():
            pair.nominated = pair.checked.nominating = False
        self.nominating = None
        self._provisional = True

    def nominate(self, pair: ValidPair) -> bool:
        """Mark `pair`; True when it is the selected one from now on."""
        pair.nominated = True
        self.nomination_over(pair)
        before = self.selected
        if before is None or self._replaces(pair, before):
            self.selected = pair
        self._provisional = False
        return self.selected is not before

    def _replaces(self, pair: ValidPair, before: ValidPair) -> bool:
        if self._provisional:
            return True
        if self._renominate:
            return pair.checked.nomination >= before.checked.nomination
        return pair.priority > before.priority

    def choose(self, outstanding: Sequence[CandidatePair], *, gathering: bool, now: float) -> Decision:
        """What the controlling side nominates next, in place of what is being nominated."""
        if self.selected is None or self._provisional:
            threshold = -1
        elif self._renominate:
            threshold = self.selected.priority
        else:
            return Decision(None)
        eligible = [
            pair
            for pair in self._pairs.values()
            if pair.priority > threshold and pair is not self.nominating and pair.may_be_nominated
        ]
        return self._policy.decide(eligible, outstanding, gathering, now)

    def nomination_over(self, pair: ValidPair) -> None:
        pair.checked.nominating = False
        if self.nominating is pair:
            self.nominating = None
