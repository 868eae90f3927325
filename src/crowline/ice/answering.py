"""Answers the checks of the other side, and acts on those of the present session (RFC 8445 §7.3)."""

from __future__ import annotations

from abc import ABC, abstractmethod

from crowline.ice.checks import (
    Credentials,
    VerifiedCheck,
    receiver_of,
    verify_check,
    write_role_conflict,
    write_success,
)
from crowline.ice.events import Oddity
from crowline.ice.nominator import Nominator
from crowline.ice.pair import CandidatePair, Way
from crowline.ice.role import Verdict
from crowline.ice.session import IceSession
from crowline.ice.states import PairState
from crowline.stun.message import Received

MAX_EARLY_CHECKS = 32  # checks remembered until the remote password is known; a real peer sends a handful


class Answering(ABC):
    """The STUN server side of an agent of either kind."""

    def __init__(self, session: IceSession, nominator: Nominator) -> None:
        self._session = session
        self._nominator = nominator
        self._early: list[tuple[VerifiedCheck, Way]] = []

    def receive(self, received: Received, way: Way, now: float) -> None:
        session = self._session
        former = session.former.credentials_for(receiver_of(received))
        credentials = former or session.credentials
        verdict = verify_check(received, credentials)
        if isinstance(verdict, VerifiedCheck):
            if former is not None:
                self._succeed(verdict, way, former)
                self._on_former_check(verdict, way, now)
            else:
                self._on_check(verdict, way, now)
        elif verdict is None:
            session.outbox.counters["check without sense"] += 1
        else:
            session.outbox.counters["check refused"] += 1
            if not verdict.signed:
                session.outbox.notice(Oddity.FORGED_CHECK)
            answer = way.transmit(verdict.encode(credentials))
            if verdict.signed:
                session.outbox.answer(answer)
            else:
                session.outbox.refuse(answer)

    def remote_known(self, now: float) -> None:
        """The other side's password is here: act on the checks that came before it."""
        early, self._early = self._early, []
        for check, way in early:
            if check.sender == self._session.credentials.remote_ufrag:
                self._act_on_check(check, way, now)
            else:
                self._session.outbox.counters["early check of a stranger"] += 1

    def restart(self) -> None:
        """Forget the checks and nominations of the session that has ended."""
        self._early.clear()
        self._nominator.restart()

    def _on_check(self, check: VerifiedCheck, way: Way, now: float) -> None:
        session = self._session
        judgement = session.role.judge(check.claim)
        if judgement is Verdict.REFUSE:
            data = write_role_conflict(check, session.credentials)
            session.outbox.answer(way.transmit(data))
            return
        if judgement is Verdict.SWITCH:
            session.role.switch()
            session.role_changed()
        self._succeed(check, way, session.credentials)
        if session.credentials.remote_password:
            self._act_on_check(check, way, now)
        elif len(self._early) < MAX_EARLY_CHECKS:
            self._early.append((check, way))

    def _succeed(self, check: VerifiedCheck, way: Way, credentials: Credentials) -> None:
        self._session.outbox.answer(way.transmit(write_success(check, way.remote, credentials)))

    def _on_former_check(self, check: VerifiedCheck, way: Way, now: float) -> None:  # noqa: B027
        """A check of a session before a restart was answered; a full agent has nothing to do about it."""

    @abstractmethod
    def _act_on_check(self, check: VerifiedCheck, way: Way, now: float) -> None:
        """A check of the present session has been answered with success."""


class FullAnswering(Answering):
    """That of a full agent, which checks what has checked it."""

    def _act_on_check(self, check: VerifiedCheck, way: Way, now: float) -> None:
        """Learn the candidate, queue a triggered check, note a nomination (RFC 8445 §7.3.1.3-7.3.1.5)."""
        session = self._session
        session.outbox.heard(way.remote)
        wanted = check.use_candidate and not session.role.controlling
        pair = session.checklist.find(way)
        if pair is None and (wanted or not session.concluded):
            pair = session.learn_pair(way, check.priority)
        if pair is None or pair.revoked:
            session.outbox.counters["check without a pair"] += 1
            return
        wanted = wanted and self._is_new_nomination(pair, check)
        valid = session.valid.find(way)
        if pair.state is PairState.SUCCEEDED and valid is not None:
            if wanted:
                self._nominator.nominated(valid, now)
            return
        pair.nominate_on_success |= wanted
        if session.concluded and not wanted:
            return
        if pair.state is PairState.IN_PROGRESS:
            session.outstanding.supersede(pair)
        session.checklist.trigger(pair)

    def _is_new_nomination(self, pair: CandidatePair, check: VerifiedCheck) -> bool:
        """False for a retransmission of what has been acted on, and for what was overtaken on its way."""
        if pair.has_overtaken(check.rank) or pair.nominated_by == check.message.transaction_id:
            return False
        pair.nominated_by = check.message.transaction_id
        self._session.rank_nomination(pair, check.rank)
        return True
