"""Nominates pairs, and concludes from nominations of either side (RFC 8445 §7.2.5.3.4, §7.3.1.5, §8.1)."""

from __future__ import annotations

from crowline.ice.events import LossReason, PairNominated
from crowline.ice.outstanding import Check
from crowline.ice.pair import CandidatePair, ValidPair
from crowline.ice.session import LATER, IceSession

# A nominating check that has had no answer for so long makes way for another pair, where there is one: three
# sends of the usual schedule, or several round trips of the pair where those are longer.
FALLBACK_AFTER = 2.0  # seconds
FALLBACK_ROUND_TRIPS = 4.0


class Nominator:
    """Decides when the controlling side nominates what.

    One nomination at a time. A pair that was passed over keeps its place among those that work, and may be
    nominated again when something has proven it since, a few times at most.

    `eager`: what works first is nominated in any case, so ordinary checks nominate too, which saves a round
    trip. Of all pairs that are agreed on in that way, the one of the highest rank counts, whichever order
    their checks and answers arrive in.
    """

    def __init__(self, session: IceSession, *, renominate: bool, eager: bool = False) -> None:
        self._session = session
        self._renominate = renominate
        self._eager = eager
        self._again: float | None = None
        self._fall_back_at = float("-inf")
        # The highest rank of what was nominated. The other side may hold on to that when it is lost here: a
        # check of lower rank, or of the same once more, would then be no agreement.
        self._highest_rank = 0

    def run(self, now: float) -> CandidatePair | None:
        """Nominate the next pair, if there is one and nothing is in its way; its check is queued."""
        session, self._again = self._session, None
        current = session.valid.nominating
        if not session.role.controlling or not session.valid:
            return None
        if current is not None and now < self._fall_back_at:
            self._again = self._fall_back_at
            return None
        decision = session.valid.choose(session.checklist.outstanding(), gathering=session.gathering, now=now)
        self._again = decision.again
        if decision.pair is None:
            return None
        if current is not None:
            self._pass_over(current, now)
        self._nominate(decision.pair, now)
        return decision.pair.checked

    def nominate(self, valid: ValidPair, now: float) -> CandidatePair | None:
        """Nominate `valid` although it need not be the best: its check is queued. None where that cannot be.

        What is better is nominated again afterwards; the user of the agent hears of both.
        """
        session = self._session
        is_free = session.valid.nominating is None and self._renominate
        works = session.valid.find(valid.way) is valid and valid.may_be_nominated
        if not (session.role.controlling and is_free and works and session.valid.selected is not valid):
            return None
        self._nominate(valid, now)
        return valid.checked

    def goes_along(self, pair: CandidatePair) -> bool:
        """Whether an ordinary check of `pair` is to nominate it; if so, it has its rank.

        On a stream it does not: there, a nomination ends what ICE has on the connection.
        """
        session = self._session
        if not self._eager or not session.role.controlling or pair.way.transport.is_stream:
            return False
        if not pair.nomination:
            if any(other.nomination == pair.priority for other in session.checklist):
                return False
            session.rank_nomination(pair, pair.priority)
        return self._highest_rank < pair.nomination < LATER

    def next_timeout(self) -> float | None:
        return self._again

    def restart(self) -> None:
        """What was being nominated belongs to a session that has ended: no time of it is waited for."""
        self._again = None
        self._highest_rank = 0

    def nominated(self, valid: ValidPair, now: float) -> None:
        """A nomination of `valid` is agreed on."""
        session = self._session
        valid.checked.nominate_on_success = False
        valid.checked.nominations_failed = 0
        self._highest_rank = max(self._highest_rank, valid.checked.nomination)
        if session.valid.nominate(valid):
            session.outbox.say(PairNominated(valid))
        session.former.conclude(now)
        if not self._renominate:
            session.concluded = True
            session.checklist.conclude()
            session.outstanding.cease()

    def failed(self, check: Check, now: float) -> bool:
        """Take the failure of a nominating check to its pair (§7.2.5.3.4); False for any other check."""
        valid = self._session.valid.find(check.pair.way)
        if valid is None or not check.use_candidate:
            return False
        passed_over = check.pair.nominations_failed > 0 and valid.proven_at <= check.transaction.started
        # An earlier nomination that was passed over says nothing about one that is on its way.
        lost = (check.pair.nominating and not check.superseded) or passed_over
        if lost:
            self._session.lose(valid, LossReason.NOMINATION_FAILED, now)
        return lost

    def _nominate(self, valid: ValidPair, now: float) -> None:
        session = self._session
        session.valid.nominating = valid
        valid.checked.nominating = True
        session.rank_nomination(valid.checked)
        self._highest_rank = valid.checked.nomination
        session.checklist.trigger(valid.checked)
        self._fall_back_at = now + max(FALLBACK_AFTER, FALLBACK_ROUND_TRIPS * (valid.rtt or 0.0))
        self._again = self._fall_back_at

    def _pass_over(self, valid: ValidPair, now: float) -> None:
        checked = valid.checked
        checked.nominations_failed += 1
        checked.nomination_failed_at = now
        if self._renominate:
            # The next nomination is the later one, and counts on both sides.
            self._session.valid.nomination_over(valid)
            self._session.checklist.untrigger(checked)
            self._session.outstanding.supersede(checked)
        # Else the other side may have heard this one too, and takes the better of both (§8.1.1). Its check
        # goes on, so that this side does the same when an answer comes.
