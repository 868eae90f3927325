"""Who nominates, and what happens when both sides claim the same role (RFC 8445 §7.3.1.1)."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum

from crowline.stun.attributes import IceControlled, IceControlling

TIE_BREAKER_BYTES = 8


class Verdict(Enum):
    """What to do with a check, by the role its sender claims."""

    AGREED = "the roles differ, as they should"
    SWITCH = "take the other role, then go on with the check"
    REFUSE = "answer 487, and nothing else"


class Role:
    """The current role. The tie-breaker changes with each switch that a 487 causes (§7.2.5.1)."""

    def __init__(self, controlling: bool, entropy: Callable[[int], bytes]) -> None:
        self.controlling = controlling
        self._entropy = entropy
        self._pinned = False
        self.tie_breaker = self._draw()

    def attribute(self) -> IceControlling | IceControlled:
        """What a check of ours carries."""
        return IceControlling(self.tie_breaker) if self.controlling else IceControlled(self.tie_breaker)

    def judge(self, claim: IceControlling | IceControlled | None) -> Verdict:
        """Compare with the role of an authenticated check; the larger or equal tie-breaker is controlling."""
        if claim is None or isinstance(claim, IceControlling) != self.controlling:
            return Verdict.AGREED
        if self._pinned:
            return Verdict.REFUSE
        we_control = self.tie_breaker >= claim.tie_breaker
        return Verdict.REFUSE if we_control == self.controlling else Verdict.SWITCH

    def pin(self, *, controlling: bool) -> bool:
        """Keep that role, whatever the other side claims: one side is lite (§6.1.1). True for a change."""
        self._pinned = True
        changed, self.controlling = self.controlling is not controlling, controlling
        return changed

    def unpin(self) -> None:
        """Neither side is lite: who controls is settled by tie-breakers again."""
        self._pinned = False

    def switch(self) -> None:
        """Take the other role and keep the tie-breaker: the other side lost against it or won by it."""
        self.controlling = not self.controlling

    def give_in(self, claimed_controlling: bool) -> bool:
        """A 487 came for a check that claimed that role; False when we have changed since (stale)."""
        if self._pinned or self.controlling != claimed_controlling:
            return False
        self.controlling = not claimed_controlling
        self.tie_breaker = self._draw()
        return True

    def _draw(self) -> int:
        return int.from_bytes(self._entropy(TIE_BREAKER_BYTES), "big")
