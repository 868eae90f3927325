"""Makes checks and consent requests, and concludes from the answers what works (RFC 8445 §7.2, RFC 7675)."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.ice.answering import FullAnswering
from crowline.ice.candidate import TcpType
from crowline.ice.checks import (
    FORBIDDEN,
    ROLE_CONFLICT,
    Credentials,
    VerifiedAnswer,
    verify_answer,
    write_check,
    write_keepalive,
)
from crowline.ice.consent import Request
from crowline.ice.events import ConnectionUnwanted, ConnectionWanted, LossReason, Oddity, SendRefused
from crowline.ice.nominator import Nominator
from crowline.ice.outstanding import Check
from crowline.ice.pair import CandidatePair, ValidPair, Way
from crowline.ice.session import IceSession
from crowline.ice.states import PairInput, PairState
from crowline.stun.message import TRANSACTION_ID_SIZE, Received
from crowline.stun.transaction import RELIABLE, Schedule, Transaction

# A driver that comes later than this was asleep with its machine: no event loop is busy for so many seconds.
SLEEP = 5.0
# Seconds that the network of a machine may take to wake up.
WAKING = 1.0
MAX_CONFLICTS = 8  # 487 answers to one pair; honest peers need one or two


class Checker:
    """The STUN client side of an agent. `answering` has the other side; both change the one `session`."""

    def __init__(
        self,
        session: IceSession,
        *,
        entropy: Callable[[int], bytes],
        ta: float,
        rto: float,
        renominate: bool,
        eager: bool,
    ) -> None:
        self.session = session
        self.role = session.role
        self.locals = session.locals
        self._nominator = Nominator(session, renominate=renominate, eager=eager)
        self.answering = FullAnswering(session, self._nominator)
        self._outbox = session.outbox
        self._outstanding = session.outstanding
        self._consent = session.consent
        self._renominate = renominate
        self._entropy = entropy
        self._ta = ta
        self._rto = rto
        self._next_check = float("-inf")

    def nominate(self, valid: ValidPair, now: float) -> bool:
        """Nominate `valid` although it need not be the best; whether that begins."""
        pair = self._nominator.nominate(valid, now)
        if pair is not None and self._outstanding.has_room():
            self.session.checklist.untrigger(pair)
            self._start(pair, now)
        return pair is not None

    def run(self, now: float) -> None:
        """Start the checks whose time has come: the first at once, each further one Ta later.

        A nominating check leaves at once too, and moves no other. Ta keeps apart what opens new bindings in
        translators and what goes to the unproven (RFC 8445 §14.2, App. B.1); this one goes by a binding that
        exists to where an authenticated answer has come from, and there is one for each answer at most.
        """
        if not self.session.credentials.remote_password:
            return
        nominated = self._nominator.run(now)
        if nominated is not None and self._outstanding.has_room():
            self.session.checklist.untrigger(nominated)
            self._start(nominated, now)
        while now >= self._next_check and self._outstanding.has_room():
            pair = self.session.checklist.next_check()
            if pair is None:
                return
            if self._start(pair, now):
                self._next_check = now + self._ta

    def connected(self, way: Way, now: float, *, wanted: bool) -> None:
        """There is a connection: the check that waits for it leaves.

        One that comes after all, when its pair has failed, is a new chance: so simultaneous opens behave.
        """
        pair = self.session.checklist.find(way)
        if pair is None or pair.revoked:
            return
        if wanted and pair.state is PairState.IN_PROGRESS:
            self._send_check(pair, pair.nominating and self.role.controlling, now)
        elif pair.state is PairState.FAILED and not (pair.is_passive or self.session.concluded):
            self.session.checklist.trigger(pair)

    def handle_timeout(self, now: float) -> None:
        self._sleep_off(now)
        self._send_due(now)
        for check in self._outstanding.expired(now):
            self._check_failed(check, now)
        for pair in self._consent.expired(now):
            self.session.lose(pair, LossReason.CONSENT_EXPIRED, now)
        for pair in self._consent.due(now):
            self._ask_consent(pair, now)
        for pair in self._consent.keepalives(now):
            if pair.transport.is_stream:
                continue  # RFC 8445 §11 has them over UDP only
            data = write_keepalive(self._entropy(TRANSACTION_ID_SIZE))
            self._outbox.ask(pair.way.transmit(data))
        self.session.end_former(self.session.former.expired(now), LossReason.RESTARTED)
        for lost in self.session.retries.due(now):
            self._try_again(lost)
        for way in self.session.connections.overdue(now):
            self.session.connection_lost(way, now)
            self._outbox.say(ConnectionUnwanted(way.base, way.remote))

    def next_timeout(self) -> float | None:
        times = [
            self._outstanding.next_timeout(),
            self._consent.next_timeout(),
            self._nominator.next_timeout(),
            self.session.former.next_timeout(),
            self.session.retries.next_timeout(),
            self.session.connections.next_timeout(),
        ]
        at = min((time for time in times if time is not None), default=None)
        if (at is None or self._next_check < at) and self._may_start():
            at = self._next_check
        return at

    def _may_start(self) -> bool:
        """Whether there is a check to start, and all that it needs."""
        ready = self.session.credentials.remote_password and self._outstanding.has_room()
        return bool(ready) and self.session.checklist.has_work()

    def _sleep_off(self, now: float) -> None:
        """Time in which the machine slept does not count for checks: nobody could hear an answer in it.

        So it makes no difference whether the clock stood still meanwhile. Consent, which the other side has
        given until a certain time, ends all the same (RFC 7675 §5.1).
        """
        times = (self._outstanding.next_timeout(), self.session.connections.next_timeout())
        expected = min((time for time in times if time is not None), default=None)
        if expected is not None and now - expected > SLEEP:
            late = now - expected + WAKING
            self._outstanding.postpone(late)
            self.session.connections.postpone(late)
            self._outbox.notice(Oddity.SLEPT)

    def send_failed(self, refusal: SendRefused) -> None:
        """The checks of that way go on: firewalls open and routes come while they last."""
        self._outstanding.refused(Way(refusal.base, refusal.destination))
        self._outbox.refused(refusal)

    # --- answers --------------------------------------------------------------------------------------

    def receive_response(self, received: Received, way: Way, now: float) -> None:
        transaction_id = received.message.transaction_id
        check = self._outstanding.find(transaction_id, way)
        request = self._consent.find(transaction_id) if check is None else None
        if check is None and (request is None or request.pair.way != way):
            self._outbox.counters["answer to nothing"] += 1
            if request is not None or self._outstanding.asked_elsewhere(transaction_id):
                self._outbox.notice(Oddity.ANSWER_FROM_ELSEWHERE)
            return
        answer = verify_answer(received, self.session.credentials if request is None else request.credentials)
        if answer is None:
            self._outbox.counters["answer not verified"] += 1
            self._outbox.notice(Oddity.FORGED_ANSWER)
            return
        self._outbox.proven(way.remote)
        self.session.ever_left = True
        if check is not None:
            self._outstanding.remove(check)
            self._on_answer(check, answer, now)
        elif request is not None:
            self._consent.close(transaction_id, request)
            self._on_consent(request, answer, now)

    def _on_answer(self, check: Check, answer: VerifiedAnswer, now: float) -> None:
        if answer.mapped is not None:
            self._on_success(check, answer.mapped, now)
        elif answer.error == ROLE_CONFLICT:
            self._on_role_conflict(check)
        else:
            self._check_failed(check, now)

    def _on_success(self, check: Check, mapped: Address, now: float) -> None:
        """RFC 8445 §7.2.5.3."""
        pair, session = check.pair, self.session
        if pair.revoked:
            return
        if not pair.nominating:
            session.checklist.untrigger(pair)
            self._outstanding.forget(pair)
        valid = session.succeeded(pair, mapped, check.priority, now)
        round_trip = check.transaction.round_trip(now)
        if round_trip is not None:
            valid.measure(round_trip)
        # A nomination that was abandoned meanwhile is a plain success.
        ours = pair.nominating if check.use_candidate else self._went_along(check)
        if ours or (pair.nominate_on_success and not session.role.controlling):
            self._nominator.nominated(valid, now)

    def _went_along(self, check: Check) -> bool:
        """Whether an ordinary check that was answered has nominated its pair."""
        is_current = check.rank > 0 and check.rank == check.pair.nomination
        return is_current and self.role.controlling and not check.pair.nominating

    def _on_role_conflict(self, check: Check) -> None:
        """RFC 8445 §7.2.5.1: the role to leave is the one that this request claimed."""
        pair = check.pair
        pair.conflicts += 1
        if self.role.give_in(check.controlling):
            self.session.role_changed()
        if pair.conflicts > MAX_CONFLICTS:
            self._outbox.notice(Oddity.ENDLESS_CONFLICT)
            self.session.checklist.untrigger(pair)
            pair.apply(PairInput.FAIL)
        else:
            pair.apply(PairInput.CONFLICT)
            self._outstanding.supersede(pair)
            self.session.checklist.trigger(pair)

    def _check_failed(self, check: Check, now: float) -> None:
        pair = check.pair
        if not check.never_left:
            self.session.ever_left = True
        if self._nominator.failed(check, now):
            return
        if not check.superseded and pair.state is PairState.IN_PROGRESS:
            pair.apply(PairInput.FAIL)

    def _on_consent(self, request: Request, answer: VerifiedAnswer, now: float) -> None:
        pair = request.pair
        if answer.mapped is not None:
            pair.measure(now - request.sent_at)
            self.session.consented(pair, answer.mapped, now)
        elif answer.error == FORBIDDEN:
            self.session.lose(pair, LossReason.CONSENT_REVOKED, now)
        elif answer.error == ROLE_CONFLICT and self.role.give_in(request.controlling):
            self.session.role_changed()

    # --- requests -------------------------------------------------------------------------------------

    def _start(self, pair: CandidatePair, now: float) -> bool:
        """Send a check; False when there is no longer a reason for it."""
        nominates = pair.nominating and self.role.controlling
        if pair.revoked or (pair.state is PairState.SUCCEEDED and not nominates):
            return False
        pair.apply(PairInput.START)
        if pair.first_checked is None:
            pair.first_checked = now
        if not pair.way.transport.is_stream or self.session.connections.is_open(pair.way):
            self._send_check(pair, nominates, now)
        else:
            self._dial(pair, now)
        return True

    def _dial(self, pair: CandidatePair, now: float) -> None:
        """Ask for the connection of a pair; its check has had its turn with that (RFC 6544 §4.1, §7.1)."""
        session, way = self.session, pair.way
        if pair.is_passive:
            pair.apply(PairInput.FAIL)
        elif not session.connections.is_wanted(way):
            session.connections.want(way, now)
            session.ever_left = True
            meets = pair.local.tcp_type is TcpType.SIMULTANEOUS_OPEN
            self._outbox.say(ConnectionWanted(way.base, way.remote, meets))

    def _send_check(self, pair: CandidatePair, nominates: bool, now: float) -> None:
        rank = pair.nomination if not nominates and self._nominator.goes_along(pair) else 0
        credentials = self.session.credentials
        transaction_id, request = self._write_check(pair, credentials, use_candidate=nominates or rank > 0)
        # RFC 8445 §14.3: with many checks on their way, each waits longer for its turn again.
        schedule = Schedule(rto=max(self._rto, self._ta * len(self._outstanding)))
        base, destination, transport = pair.way
        transaction = Transaction(
            transaction_id,
            request,
            destination,
            now,
            schedule=RELIABLE if transport.is_stream else schedule,
            local=base,
            transport=transport,
        )
        priority = pair.local.peer_reflexive_priority
        self._outstanding.add(Check(pair, transaction, priority, self.role.controlling, nominates, rank))
        self._send_due(now)

    def _send_due(self, now: float) -> None:
        for transmit in self._outstanding.due(now):
            if not self._outbox.ask(transmit) and transmit.local is not None:
                self._outstanding.refused(Way(transmit.local, transmit.destination, transmit.transport))

    def _try_again(self, pair: CandidatePair) -> None:
        if self.session.checklist.find(pair.way) is not pair:
            self.session.retries.forget(pair)
            return
        self._outstanding.supersede(pair)
        self.session.checklist.trigger(pair)

    def _ask_consent(self, pair: ValidPair, now: float) -> None:
        credentials = self.session.credentials_of(pair)
        transaction_id, request = self._write_check(pair.checked, credentials, use_candidate=False)
        self._consent.sent(transaction_id, Request(pair, now, self.role.controlling, credentials))
        self._outbox.ask(pair.way.transmit(request))

    def _write_check(
        self, pair: CandidatePair, credentials: Credentials, *, use_candidate: bool
    ) -> tuple[bytes, bytes]:
        transaction_id = self._entropy(TRANSACTION_ID_SIZE)
        priority, claim = pair.local.peer_reflexive_priority, self.role.attribute()
        rank = pair.nomination if self._renominate else 0
        request = write_check(
            transaction_id, credentials, priority, claim, use_candidate=use_candidate, rank=rank
        )
        return transaction_id, request
