"""A link in doubt: it has been silent for a moment, so it and those that could replace it are asked.

Whoever answers shows that both machines are awake, so that what does not answer is a path. Without such a
witness a silence has to last longer before a link is blamed for it.
"""

from __future__ import annotations

from crowline.session.member import Member


class Doubt:
    """About one silence of the chosen link. `rivals` are the links that could take over at once."""

    def __init__(self) -> None:
        # Since when that link had been silent, and when all were asked.
        self._asked: tuple[float, float] | None = None

    def ask(self, chosen: Member | None, rivals: list[Member], now: float) -> None:
        """See that all are pinged as soon as there is reason to."""
        since = _silence(chosen, rivals)
        if self._asked is not None and self._asked[0] != since:
            self._asked = None
        if chosen is None or since is None or self._asked is not None or now < (chosen.doubt_time() or now):
            return
        self._asked = (since, now)
        for member in (chosen, *rivals):
            member.ping_at = now

    def leave(self, chosen: Member | None, rivals: list[Member], now: float) -> None:
        """Take the chosen link for silent, and the others that were asked and did not answer: they may have
        died with it."""
        due = self._due(chosen, rivals)
        if chosen is None or self._asked is None or due is None or now < due:
            return
        for member in (chosen, *(each for each in rivals if each.answered < self._asked[1])):
            member.doubted_since = member.carrier.unanswered_since
            member.stalled = member.doubted_since is not None

    def next_timeout(self, chosen: Member | None, rivals: list[Member]) -> float | None:
        since = _silence(chosen, rivals)
        if chosen is None or since is None:
            return None
        if self._asked is None or self._asked[0] != since:
            return chosen.doubt_time()
        return self._due(chosen, rivals)

    def _due(self, chosen: Member | None, rivals: list[Member]) -> float | None:
        """When the chosen link is to be left, if it stays silent; None while nobody has answered."""
        since = _silence(chosen, rivals)
        if chosen is None or since is None or self._asked is None or self._asked[0] != since:
            return None
        has_witness = any(member.answered >= self._asked[1] for member in rivals)
        return chosen.stall_time(quick=True) if has_witness else None


def _silence(chosen: Member | None, rivals: list[Member]) -> float | None:
    """Since when the chosen link has been silent, where that is known to be long, and another is there."""
    if chosen is None or chosen.is_ailing or chosen.rtt is None or not rivals:
        return None
    return chosen.carrier.unanswered_since
