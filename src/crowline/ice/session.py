"""What one agent knows: its candidates, its pairs, which of them work, and what they are kept up with."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.ice.candidate import Candidate
from crowline.ice.checklist import CheckList
from crowline.ice.checks import Credentials
from crowline.ice.connections import Connections
from crowline.ice.consent import ConsentKeeper
from crowline.ice.events import (
    ConnectionUnwanted,
    LossReason,
    PairLost,
    PairMoved,
    PairReclassified,
    PairValid,
    Restarted,
    RoleChanged,
)
from crowline.ice.former import FormerSessions
from crowline.ice.locals import LocalCandidates
from crowline.ice.nomination import NominationPolicy
from crowline.ice.outbox import Outbox
from crowline.ice.outstanding import OutstandingChecks
from crowline.ice.pair import CandidatePair, ValidPair, Way
from crowline.ice.remotes import RemoteCandidates
from crowline.ice.retries import Retries
from crowline.ice.role import Role
from crowline.ice.states import OUTSTANDING, PairInput, PairState
from crowline.ice.valid import ValidList

# What may be regained by new checks, where both sides agreed to that.
_SILENCE = (LossReason.CONSENT_EXPIRED, LossReason.NOMINATION_FAILED, LossReason.CONNECTION_LOST)

# The ranks of nominations that have a check of their own begin here.
LATER = 1 << 63


class IceSession:
    """The state that answers, checks and nominations share, and the changes that touch several parts of it.

    `regain`: a pair that fell silent is tried again (see `Retries`); `tells_moves`: `PairMoved` is said.
    """

    def __init__(
        self,
        role: Role,
        credentials: Credentials,
        remotes: RemoteCandidates,
        policy: NominationPolicy,
        *,
        entropy: Callable[[int], bytes],
        renominate: bool,
        regain: bool,
        tells_moves: bool,
    ) -> None:
        self.role = role
        self.credentials = credentials
        self.locals = LocalCandidates()
        self.remotes = remotes
        self.checklist = CheckList()
        self.valid = ValidList(policy, renominate=renominate)
        self.outstanding = OutstandingChecks()
        self.consent = ConsentKeeper(entropy)
        self.former = FormerSessions()
        self.retries = Retries()
        self.connections = Connections()
        self.outbox = Outbox()
        # A nomination ended the search (never with renomination).
        self.concluded = False
        self.ever_valid = False
        # Some check has left this machine, as far as the system says.
        self.ever_left = False
        # Either side may still find candidates.
        self.gathering = True
        self.regain = regain
        self._tells_moves = tells_moves
        self._nominations = 0

    # --- pairs to check -------------------------------------------------------------------------------

    def add_pair(self, local: Candidate, remote: Candidate) -> CandidatePair | None:
        """Put a pair on the check list; ``None`` when it is redundant or there is no room."""
        pair = CandidatePair(local, remote)
        pair.prioritise(self.role.controlling)
        if self._tells_moves:
            pair.on_move = self._say_move
        if self.connections.is_handed_over(pair.way):
            return None
        known = self.checklist.find(pair.way)
        if known is None:
            return pair if self.checklist.add(pair) else None
        if known.priority < pair.priority and known.state in (PairState.FROZEN, PairState.WAITING):
            # TCP candidates of two types at one address: nobody has dialled yet, so the better way of
            # dialling is taken (RFC 8838 §12).
            known.local, known.remote, known.priority = local, remote, pair.priority
        return None

    def learn_pair(self, way: Way, priority: int) -> CandidatePair | None:
        """The pair of a check that came (RFC 8445 §7.3.1.3)."""
        local = self.locals.receiver(way.base, way.transport)
        remote = None if local is None else self.remotes.learn(way.remote, priority, local)
        return None if local is None or remote is None else self.add_pair(local, remote)

    def replace_remote(self, remote: Candidate) -> None:
        """A peer-reflexive candidate was signalled after all: its pairs take the new form (§7.3.1.3)."""
        for pair in self.checklist:
            if _is_same(pair.remote, remote):
                pair.remote = remote
                pair.prioritise(self.role.controlling)
        for valid in self.valid.sorted():
            if _is_same(valid.remote, remote):
                kind, valid.remote = valid.kind, remote
                if valid.kind != kind:
                    self.outbox.say(PairReclassified(valid))

    def remove_base(self, base: Address, transport: Transport) -> None:
        """Nothing leaves by `base` any more."""
        gone = (base, transport)
        self._remove(lambda way: (way.base, way.transport) == gone, LossReason.LOCAL_REMOVED)

    def remove_remote(self, address: Address, transport: Transport) -> None:
        """The other side is no longer at `address`."""
        gone = (address, transport)
        self._remove(lambda way: (way.remote, way.transport) == gone, LossReason.REMOTE_REMOVED)

    def rank_nomination(self, pair: CandidatePair, rank: int | None = None) -> None:
        """A nomination of `pair` has that rank; without one it is the latest of all, and outranks the others.

        A nomination that goes along with an ordinary check has the pair's priority for its rank: below 2^63
        (RFC 8445 §6.1.2.3), and so less than all of those.
        """
        self._nominations += 1
        pair.nomination = LATER + self._nominations if rank is None else rank

    # --- pairs that work ------------------------------------------------------------------------------

    @property
    def selected(self) -> ValidPair | None:
        """The agreed pair; after a restart the former one until the new session has its own (§12.1)."""
        return self.valid.selected or self.former.selected

    def working(self) -> list[ValidPair]:
        """All pairs on which data may be sent, best first."""
        pairs = [*self.valid.sorted(), *self.former]
        return sorted(pairs, key=lambda pair: pair.priority, reverse=True)

    def is_working(self, pair: ValidPair) -> bool:
        return self.valid.find(pair.way) is pair or pair in self.former

    def credentials_of(self, pair: ValidPair) -> Credentials:
        """What the consent of `pair` is asked with."""
        return self.former.credentials_of(pair) or self.credentials

    def succeeded(self, pair: CandidatePair, mapped: Address, priority: int, now: float) -> ValidPair:
        """A check of `pair` was answered: it works (RFC 8445 §7.2.5.3)."""
        pair.apply(PairInput.SUCCEED)
        self.checklist.thaw(pair.foundation)
        local = self._seen_as(mapped, pair, priority)
        valid, is_new = self.valid.record(pair, local, self.former.take(pair.way))
        self.consent.proven(valid, now)
        self.retries.forget(pair)
        if is_new:
            self.ever_valid = True
            self.outbox.say(PairValid(valid))
        return valid

    def consented(self, valid: ValidPair, mapped: Address, now: float) -> None:
        """A consent request on `valid` was answered."""
        valid.local = self._seen_as(mapped, valid.checked, valid.checked.local.peer_reflexive_priority)
        self.consent.proven(valid, now)

    def lose(self, valid: ValidPair, reason: LossReason, now: float) -> None:
        """Nothing is sent on `valid` any more."""
        checked, was_selected = valid.checked, self.selected is valid
        if was_selected:
            self.concluded = False
        self._forget(valid, reason)
        if not self.role.controlling:
            # The other side may nominate it again in the way that it did.
            checked.nomination, checked.nominated_by = 0, b""
        checked.apply(PairInput.LOSE)
        self.checklist.untrigger(checked)
        self.outstanding.forget(checked)
        agreed = self.regain and reason in _SILENCE
        # RFC 7675 §5.1: only new credentials help, unless both sides agreed that a new check is enough.
        checked.revoked = reason in (LossReason.CONSENT_EXPIRED, LossReason.CONSENT_REVOKED) and not agreed
        if self.checklist.find(checked.way) is not checked:
            return
        if agreed:
            self.retries.lost(checked, now)
        elif reason is LossReason.CONNECTION_LOST and was_selected:
            # RFC 6544 §11.1: whoever dialled dials again; for the other side there is nothing to start.
            self.checklist.trigger(checked)

    def role_changed(self) -> None:
        """What was agreed under the old roles is void; the side that controls now nominates again."""
        self.checklist.prioritise(self.role.controlling)
        self.valid.start_over()
        self.outstanding.void_nominations()
        for pair in self.checklist:
            pair.nominate_on_success = False
            pair.nomination, pair.nominated_by = 0, b""
            # Sent again, these checks would claim the old role and stir up the conflict anew.
            self.outstanding.supersede(pair)
            if pair.state is PairState.IN_PROGRESS:
                self.checklist.trigger(pair)
        self.concluded = False
        self.outbox.say(RoleChanged(self.role.controlling))

    # --- connections ----------------------------------------------------------------------------------

    def connection_lost(self, way: Way, now: float) -> bool:
        """There is no TCP connection on `way`: nothing came of an attempt, or it has ended.

        True when a pair that worked is lost with it.
        """
        self.connections.ended(way)
        valid = self.valid.find(way) or self.former.find(way)
        if valid is not None:
            self.lose(valid, LossReason.CONNECTION_LOST, now)
        self._give_up(way)
        pair = self.checklist.find(way)
        if pair is None:
            return valid is not None
        if pair.is_passive:
            # Whoever dials again may do so from another port.
            self.remotes.forget_learned(pair.remote)
        elif valid is not None and pair is not valid.checked and pair.state is PairState.FAILED:
            # It carried data until now, and a check after a restart went by it: RFC 6544 §11.1 again.
            self.checklist.trigger(pair)
        return valid is not None

    def hand_over(self, valid: ValidPair) -> None:
        """The connection of `valid` is somebody else's; what was asked by it is not waited for."""
        self.connections.hand_over(valid.way)
        valid.handed_over = self.connections.is_handed_over(valid.way)
        if valid.handed_over:
            self.consent.stop(valid)
            self.outstanding.forget(valid.checked)
            self.checklist.untrigger(valid.checked)
            self.valid.nomination_over(valid)

    def release_connections(self) -> None:
        """Say which connections serve no pair any more (RFC 6544 §8)."""
        for way in self.connections.forget(self._serves):
            self._give_up(way)
            self.outbox.say(ConnectionUnwanted(way.base, way.remote))

    def _serves(self, way: Way) -> bool:
        if way in self.valid or self.former.find(way) is not None:
            return True
        pair = self.checklist.find(way)
        if pair is None or (self.concluded and not pair.nominate_on_success):
            return False
        return pair.state in OUTSTANDING

    def _give_up(self, way: Way) -> None:
        """A check that waits for a connection, or went by one that is gone, has failed."""
        pair = self.checklist.find(way)
        if pair is not None and pair.state is PairState.IN_PROGRESS:
            self.outstanding.forget(pair)
            pair.apply(PairInput.FAIL)

    # --- restart --------------------------------------------------------------------------------------

    def restart(self, credentials: Credentials, *, by_peer: bool) -> None:
        """Flush everything but the roles, the local candidates, and the pairs that carry data (§9)."""
        selected = self.selected
        carrying = []
        for valid in self.valid.sorted():
            if valid is selected or self.consent.watches(valid):
                carrying.append(valid)
            else:
                self._forget(valid, LossReason.RESTARTED)
        self.former.add(self.credentials, carrying, selected)
        self.end_former(self.former.crowded_out(), LossReason.RESTARTED)
        self.credentials = credentials
        self.remotes.clear()
        self.checklist.clear()
        self.valid.clear()
        self.outstanding.clear()
        self.retries.clear()
        self.concluded = self.ever_valid = self.ever_left = False
        self.gathering = True
        if by_peer:
            self.outbox.forget_proven()
        else:
            self.outbox.renew()
        for valid in carrying:
            self.outbox.proven(valid.remote.address)
        self.outbox.say(Restarted(by_peer))

    def end_former(self, pairs: Iterable[ValidPair], reason: LossReason) -> None:
        """Former pairs end: their time is over, or their user let them go."""
        for valid in list(pairs):
            self._forget(valid, reason)

    # --------------------------------------------------------------------------------------------------

    def _say_move(self, pair: CandidatePair, before: PairState, cause: PairInput) -> None:
        self.outbox.say(PairMoved(*pair.way, before, cause, pair.state))

    def _seen_as(self, mapped: Address, pair: CandidatePair, priority: int) -> Candidate:
        known = self.valid.find(pair.way)
        if known is not None and known.local.address == mapped:
            return known.local
        return self.locals.seen_as(mapped, pair.local, priority)

    def _remove(self, gone: Callable[[Way], bool], reason: LossReason) -> None:
        for valid in self.working():
            if gone(valid.way):
                if self.selected is valid:
                    self.concluded = False
                self._forget(valid, reason)
        for pair in [pair for pair in self.checklist if gone(pair.way)]:
            self.checklist.remove(pair)
            self.outstanding.forget(pair)
            self.retries.forget(pair)

    def _forget(self, valid: ValidPair, reason: LossReason) -> None:
        self.former.remove(valid)
        self.valid.remove(valid)
        self.consent.forget(valid)
        self.outbox.say(PairLost(valid, reason))


def _is_same(known: Candidate, signalled: Candidate) -> bool:
    return (known.address, known.protocol, known.tcp_type) == (
        signalled.address,
        signalled.protocol,
        signalled.tcp_type,
    )
