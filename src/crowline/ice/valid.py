"""The valid list, and which of its pairs is selected (RFC 8445 §7.2.5.3.2, §8)."""

from __future__ import annotations

from collections.abc import Sequence

from crowline.ice.candidate import Candidate
from crowline.ice.nomination import Decision, NominationPolicy
from crowline.ice.pair import CandidatePair, PairKey, ValidPair


class ValidList:
    """Pairs that work.

    `renominate`: both sides agreed that a later nomination replaces an earlier one; without that, the best
    of the nominated pairs is selected, which is right towards aggressive peers too (RFC 8445 §8.1.1).
    """

    def __init__(self, policy: NominationPolicy, *, renominate: bool) -> None:
        self._policy = policy
        self._renominate = renominate
        self._pairs: dict[PairKey, ValidPair] = {}
        self.selected: ValidPair | None = None
        # `selected` was agreed under roles that have changed since.
        self._provisional = False
        # The pair whose nominating check is queued or on its way.
        self.nominating: ValidPair | None = None

    def __len__(self) -> int:
        return len(self._pairs)

    def __contains__(self, key: PairKey) -> bool:
        return key in self._pairs

    def sorted(self) -> list[ValidPair]:
        """Best first."""
        return sorted(self._pairs.values(), key=lambda pair: pair.priority, reverse=True)

    def find(self, key: PairKey) -> ValidPair | None:
        return self._pairs.get(key)

    def record(self, checked: CandidatePair, local: Candidate) -> tuple[ValidPair, bool]:
        """The valid pair that a success of `checked` proves, and whether it is new.

        `local` is the candidate of our side whose address the other side saw.
        """
        known = self._pairs.get(checked.key)
        if known is not None:
            known.local, known.remote = local, checked.remote
            return known, False
        pair = ValidPair(local, checked.remote, checked)
        self._pairs[checked.key] = pair
        return pair, True

    def remove(self, pair: ValidPair) -> None:
        self._pairs.pop(pair.key, None)
        if self.selected is pair:
            self.selected = None
        self._nomination_over(pair)

    def start_over(self) -> None:
        """Forget every nomination; what is selected stays so only until the next one."""
        for pair in self._pairs.values():
            pair.nominated = pair.checked.nominating = False
        self.nominating = None
        self._provisional = True

    def nominate(self, pair: ValidPair) -> bool:
        """Mark `pair`; True when it is the selected one from now on."""
        pair.nominated = True
        self._nomination_over(pair)
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
        """What the controlling side nominates next."""
        if self.nominating is not None:
            return Decision(None)
        if self.selected is None or self._provisional:
            return self._policy.decide(list(self._pairs.values()), outstanding, gathering, now)
        if not self._renominate:
            return Decision(None)
        threshold = self.selected.priority
        better = [pair for pair in self._pairs.values() if pair.priority > threshold]
        return self._policy.decide(better, outstanding, gathering, now)

    def _nomination_over(self, pair: ValidPair) -> None:
        pair.checked.nominating = False
        if self.nominating is pair:
            self.nominating = None
