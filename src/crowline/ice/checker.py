"""Makes checks, answers checks, and concludes from them what works (RFC 8445 §7 and §8)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.ice.budget import Budget
from crowline.ice.candidate import Candidate
from crowline.ice.checklist import CheckList
from crowline.ice.checks import (
    FORBIDDEN,
    ROLE_CONFLICT,
    Credentials,
    VerifiedAnswer,
    VerifiedCheck,
    verify_answer,
    verify_check,
    write_check,
    write_keepalive,
    write_role_conflict,
    write_success,
)
from crowline.ice.consent import ConsentKeeper, Request
from crowline.ice.events import IceEvent, LossReason, PairLost, PairNominated, PairValid, RoleChanged
from crowline.ice.locals import LocalCandidates
from crowline.ice.nomination import NominationPolicy
from crowline.ice.outstanding import Check, OutstandingChecks
from crowline.ice.pair import CandidatePair, PairState, ValidPair
from crowline.ice.remotes import RemoteCandidates
from crowline.ice.role import Role, Verdict
from crowline.ice.valid import ValidList
from crowline.stun.message import TRANSACTION_ID_SIZE, Received
from crowline.stun.transaction import Schedule, Transaction

MAX_EARLY_CHECKS = 32  # checks remembered until the remote password is known; a real peer sends a handful
MAX_ADDRESSES = 512  # remote addresses whose datagrams are counted: more than all candidates together
MAX_CONFLICTS = 8  # 487 answers to one pair; honest peers need one or two


class Checker:
    """The state of all checks of one agent. Its agent drives it, and takes `transmits` and `events`."""

    def __init__(
        self,
        role: Role,
        credentials: Credentials,
        remotes: RemoteCandidates,
        policy: NominationPolicy,
        *,
        entropy: Callable[[int], bytes],
        ta: float,
        rto: float,
        renominate: bool,
    ) -> None:
        self.role = role
        self.credentials = credentials
        self.locals = LocalCandidates()
        self.remotes = remotes
        self.checklist = CheckList()
        self.valid = ValidList(policy, renominate=renominate)
        self.consent = ConsentKeeper(entropy)
        self.transmits: deque[Transmit] = deque()
        self.events: deque[IceEvent] = deque()
        self.counters: Counter[str] = Counter()
        self._entropy = entropy
        self._ta = ta
        self._rto = rto
        self._renominate = renominate
        self._outstanding = OutstandingChecks()
        self._budget = Budget(MAX_ADDRESSES)
        self._refusals = Budget(MAX_ADDRESSES)
        self._early: list[tuple[VerifiedCheck, Address, Address]] = []
        self._next_check = float("-inf")
        self._choose_again: float | None = None
        self._nominations = 0
        # A nomination ended the search (never with renomination).
        self.concluded = False
        self.ever_valid = False
        # Either side may still find candidates.
        self.gathering = True

    # --- what the agent calls -------------------------------------------------------------------------

    def add_pair(self, local: Candidate, remote: Candidate) -> CandidatePair | None:
        """Put a pair on the check list; ``None`` when it is redundant or there is no room."""
        if self.checklist.find((local.sending_base, remote.address)) is not None:
            return None
        pair = CandidatePair(local, remote)
        pair.prioritise(self.role.controlling)
        return pair if self.checklist.add(pair) else None

    def replace_remote(self, remote: Candidate) -> None:
        """A peer-reflexive candidate was signalled after all: its pairs take the new form (§7.3.1.3)."""
        for pair in self.checklist:
            if pair.remote.address == remote.address:
                pair.remote = remote
                pair.prioritise(self.role.controlling)
        for valid in self.valid.sorted():
            if valid.remote.address == remote.address:
                valid.remote = remote

    def remote_known(self) -> None:
        """The other side's password is here: act on the checks that came before it."""
        early, self._early = self._early, []
        for check, source, base in early:
            if check.sender == self.credentials.remote_ufrag:
                self._act_on_check(check, source, base)
            else:
                self.counters["early check of a stranger"] += 1

    def run(self, now: float) -> None:
        """Start the checks whose time has come: the first at once, each further one Ta later."""
        if not self.credentials.remote_password:
            return
        self._nominate_next(now)
        while now >= self._next_check and self._outstanding.has_room():
            pair = self.checklist.next_check()
            if pair is None:
                return
            if self._start(pair, now):
                self._next_check = now + self._ta

    def handle_timeout(self, now: float) -> None:
        for transmit in self._outstanding.due(now):
            self._send(transmit)
        for check in self._outstanding.expired(now):
            self._check_failed(check)
        for pair in self.consent.expired(now):
            self._revoke(pair, LossReason.CONSENT_EXPIRED)
        for pair in self.consent.due(now):
            self._ask_consent(pair, now)
        for pair in self.consent.keepalives(now):
            data = write_keepalive(self._entropy(TRANSACTION_ID_SIZE))
            self._send(Transmit(data, pair.remote.address, pair.base))

    def next_timeout(self) -> float | None:
        at = self._outstanding.next_timeout()
        for time in (self.consent.next_timeout(), self._choose_again):
            if time is not None and (at is None or time < at):
                at = time
        if (at is None or self._next_check < at) and self._may_start():
            at = self._next_check
        return at

    def _may_start(self) -> bool:
        """Whether there is a check to start, and all that it needs."""
        ready = self.credentials.remote_password and self._outstanding.has_room()
        return bool(ready) and self.checklist.has_work()

    # --- requests of the other side -------------------------------------------------------------------

    def receive_request(self, received: Received, source: Address, base: Address) -> None:
        verdict = verify_check(received, self.credentials)
        if isinstance(verdict, VerifiedCheck):
            self._on_check(verdict, source, base)
        elif verdict is None:
            self.counters["check without sense"] += 1
        else:
            self.counters["check refused"] += 1
            # An unsigned refusal goes to whoever the packet says it came from: no more than a few each.
            if verdict.signed or self._refusals.spend(source):
                self.transmits.append(Transmit(verdict.encode(self.credentials), source, base))

    def _on_check(self, check: VerifiedCheck, source: Address, base: Address) -> None:
        judgement = self.role.judge(check.claim)
        if judgement is Verdict.REFUSE:
            self.transmits.append(Transmit(write_role_conflict(check, self.credentials), source, base))
            return
        if judgement is Verdict.SWITCH:
            self.role.switch()
            self._role_changed()
        self.transmits.append(Transmit(write_success(check, source, self.credentials), source, base))
        if self.credentials.remote_password:
            self._act_on_check(check, source, base)
        elif len(self._early) < MAX_EARLY_CHECKS:
            self._early.append((check, source, base))

    def _act_on_check(self, check: VerifiedCheck, source: Address, base: Address) -> None:
        """Learn the candidate, queue a triggered check, note a nomination (RFC 8445 §7.3.1.3-7.3.1.5)."""
        wanted = check.use_candidate and not self.role.controlling
        pair = self.checklist.find((base, source))
        if pair is None and (wanted or not self.concluded):
            pair = self._new_pair(source, base, check.priority)
        if pair is None or pair.revoked:
            self.counters["check without a pair"] += 1
            return
        if wanted and pair.nominated_by == check.message.transaction_id:
            wanted = False  # a retransmission of what has been acted on
        if wanted:
            pair.nominated_by = check.message.transaction_id
            self._number_nomination(pair)
        valid = self.valid.find(pair.key)
        if pair.state is PairState.SUCCEEDED and valid is not None:
            if wanted:
                self._nominated(valid)
            return
        pair.nominate_on_success |= wanted
        if self.concluded and not wanted:
            return
        if pair.state is PairState.IN_PROGRESS:
            self._outstanding.supersede(pair)
        self.checklist.trigger(pair)

    def _new_pair(self, source: Address, base: Address, priority: int) -> CandidatePair | None:
        local, remote = self.locals.sender(base), self.remotes.learn(source, priority)
        return None if local is None or remote is None else self.add_pair(local, remote)

    # --- answers to our requests ----------------------------------------------------------------------

    def receive_response(self, received: Received, source: Address, base: Address, now: float) -> None:
        transaction_id = received.message.transaction_id
        check = self._outstanding.find(transaction_id, source, base)
        request = self.consent.find(transaction_id) if check is None else None
        if check is None and (request is None or request.pair.key != (base, source)):
            self.counters["answer to nothing"] += 1
            return
        answer = verify_answer(received, self.credentials)
        if answer is None:
            self.counters["answer not verified"] += 1
            return
        self._budget.answered(source)
        if check is not None:
            self._outstanding.remove(check)
            self._on_answer(check, answer, now)
        elif request is not None:
            self.consent.close(transaction_id, request)
            self._on_consent(request, answer, now)

    def _on_answer(self, check: Check, answer: VerifiedAnswer, now: float) -> None:
        if answer.mapped is not None:
            self._on_success(check, answer.mapped, now)
        elif answer.error == ROLE_CONFLICT:
            self._on_role_conflict(check)
        else:
            self._check_failed(check)

    def _on_success(self, check: Check, mapped: Address, now: float) -> None:
        """RFC 8445 §7.2.5.3."""
        pair = check.pair
        if pair.revoked:
            return
        pair.state = PairState.SUCCEEDED
        if not pair.nominating:
            self.checklist.untrigger(pair)
            self._outstanding.forget(pair)
        self.checklist.thaw(pair.foundation)
        valid, is_new = self.valid.record(pair, self._seen_as(mapped, pair, check.priority))
        round_trip = check.transaction.round_trip(now)
        if round_trip is not None:
            valid.measure(round_trip)
        self.consent.proven(valid, now)
        if is_new:
            self.ever_valid = True
            self.events.append(PairValid(valid))
        # A nomination that was abandoned meanwhile, by a change of role, is a plain success.
        ours = check.use_candidate and pair.nominating
        if ours or (pair.nominate_on_success and not self.role.controlling):
            self._nominated(valid)

    def _seen_as(self, mapped: Address, pair: CandidatePair, priority: int) -> Candidate:
        known = self.valid.find(pair.key)
        if known is not None and known.local.address == mapped:
            return known.local
        return self.locals.seen_as(mapped, pair.local, priority)

    def _on_role_conflict(self, check: Check) -> None:
        """RFC 8445 §7.2.5.1: the role to leave is the one that this request claimed."""
        pair = check.pair
        pair.conflicts += 1
        if self.role.give_in(check.controlling):
            self._role_changed()
        if pair.conflicts > MAX_CONFLICTS:
            self.checklist.untrigger(pair)
            pair.state = PairState.FAILED
        else:
            # Also when the pair has succeeded before: nobody else would settle who controls.
            pair.state = PairState.WAITING
            self._outstanding.supersede(pair)
            self.checklist.trigger(pair)

    def _check_failed(self, check: Check) -> None:
        pair = check.pair
        if check.use_candidate and pair.nominating:
            valid = self.valid.find(pair.key)
            if valid is not None:
                self._lose(valid, LossReason.NOMINATION_FAILED)
        elif not check.superseded and pair.state is PairState.IN_PROGRESS:
            pair.state = PairState.FAILED

    def _on_consent(self, request: Request, answer: VerifiedAnswer, now: float) -> None:
        pair = request.pair
        if answer.mapped is not None:
            pair.local = self._seen_as(
                answer.mapped, pair.checked, pair.checked.local.peer_reflexive_priority
            )
            pair.measure(now - request.sent_at)
            self.consent.proven(pair, now)
        elif answer.error == FORBIDDEN:
            self._revoke(pair, LossReason.CONSENT_REVOKED)
        elif answer.error == ROLE_CONFLICT and self.role.give_in(request.controlling):
            self._role_changed()

    # --- our requests ---------------------------------------------------------------------------------

    def _start(self, pair: CandidatePair, now: float) -> bool:
        """Send a check; False when there is no longer a reason for it."""
        nominates = pair.nominating and self.role.controlling
        if pair.revoked or (pair.state is PairState.SUCCEEDED and not nominates):
            return False
        if pair.state is not PairState.SUCCEEDED:
            pair.state = PairState.IN_PROGRESS
        if pair.first_checked is None:
            pair.first_checked = now
        transaction_id, request = self._write_check(pair, use_candidate=nominates)
        # RFC 8445 §14.3: with many checks on their way, each waits longer for its turn again.
        schedule = Schedule(rto=max(self._rto, self._ta * len(self._outstanding)))
        transaction = Transaction(
            transaction_id, request, pair.remote.address, now, schedule=schedule, local=pair.base
        )
        priority = pair.local.peer_reflexive_priority
        self._outstanding.add(Check(pair, transaction, priority, self.role.controlling, nominates))
        for transmit in self._outstanding.due(now):
            self._send(transmit)
        return True

    def _ask_consent(self, pair: ValidPair, now: float) -> None:
        transaction_id, request = self._write_check(pair.checked, use_candidate=False)
        self.consent.sent(transaction_id, Request(pair, now, self.role.controlling))
        self._send(Transmit(request, pair.remote.address, pair.base))

    def _write_check(self, pair: CandidatePair, *, use_candidate: bool) -> tuple[bytes, bytes]:
        transaction_id = self._entropy(TRANSACTION_ID_SIZE)
        priority, claim = pair.local.peer_reflexive_priority, self.role.attribute()
        request = write_check(transaction_id, self.credentials, priority, claim, use_candidate=use_candidate)
        return transaction_id, request

    def _send(self, transmit: Transmit) -> None:
        if self._budget.spend(transmit.destination):
            self.transmits.append(transmit)
        else:
            self.counters["held back"] += 1

    # --- conclusions ----------------------------------------------------------------------------------

    def _nominate_next(self, now: float) -> None:
        self._choose_again = None
        if not self.role.controlling or not self.valid:
            return
        decision = self.valid.choose(self.checklist.outstanding(), gathering=self.gathering, now=now)
        self._choose_again = decision.again
        if decision.pair is not None:
            self.valid.nominating = decision.pair
            decision.pair.checked.nominating = True
            self._number_nomination(decision.pair.checked)
            self.checklist.trigger(decision.pair.checked)

    def _number_nomination(self, pair: CandidatePair) -> None:
        self._nominations += 1
        pair.nomination = self._nominations

    def _nominated(self, valid: ValidPair) -> None:
        valid.checked.nominate_on_success = False
        if self.valid.nominate(valid):
            self.events.append(PairNominated(valid))
        if not self._renominate:
            self.concluded = True
            self.checklist.conclude()
            self._outstanding.cease()

    def _role_changed(self) -> None:
        """What was agreed under the old roles is void; the side that controls now nominates again."""
        self.checklist.prioritise(self.role.controlling)
        self.valid.start_over()
        for pair in self.checklist:
            pair.nominate_on_success = False
            # Sent again, these checks would claim the old role and stir up the conflict anew.
            self._outstanding.supersede(pair)
            if pair.state is PairState.IN_PROGRESS:
                self.checklist.trigger(pair)
        self.concluded = False
        self.events.append(RoleChanged(self.role.controlling))

    def _revoke(self, valid: ValidPair, reason: LossReason) -> None:
        valid.checked.revoked = True
        self._lose(valid, reason)

    def _lose(self, valid: ValidPair, reason: LossReason) -> None:
        self.valid.remove(valid)
        self.consent.forget(valid)
        valid.checked.state = PairState.FAILED
        self.checklist.untrigger(valid.checked)
        self._outstanding.forget(valid.checked)
        self.events.append(PairLost(valid, reason))
