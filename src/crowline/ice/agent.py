"""A full ICE agent for one data stream of one component: RFC 8445, 8838 (trickle), 8863, 7675 (consent)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.ice.candidate import Candidate
from crowline.ice.checker import Checker
from crowline.ice.checks import Credentials, draw_credentials
from crowline.ice.events import FailureReason, IceEvent, IceFailed
from crowline.ice.nomination import BestPossible, FirstValid, NominationPolicy
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import RemoteCandidates, permits_unicast
from crowline.ice.role import Role
from crowline.stun.message import MalformedStun, MessageClass, Method, parse

DEFAULT_TA = 0.05  # seconds between checks, RFC 8445 §14.2
MIN_TA = 0.005  # the least that RFC 8445 §14.2 allows
DEFAULT_RTO = 0.5  # seconds, RFC 8445 §14.3
PATIENCE = 39.5  # seconds before failure may be declared, RFC 8863 §4
MIN_UFRAG = 4  # characters, RFC 8839 §5.4
MIN_PASSWORD = 22  # characters, RFC 8839 §5.4


class IceAgent:
    """One side of one connection; a five-verb machine whose events are `ice.events`.

    Gather elsewhere and add candidates as they are found, before or after `set_remote`. Checks start as
    soon as there is a pair and the other side's password. Data may be sent on a pair from its `PairValid`
    on; call `use` for every pair that carries data, so that consent is kept up, and stop at `PairLost`.

    `ta` is the time between checks, at least 5 ms; `rto` the first retransmission time, both in seconds.
    `renominate`: both sides agreed to move to better pairs by further nominations; the search then goes on
    after the first one. `permits` judges remote addresses before anything is sent there. `policy` chooses
    what to nominate: the first valid pair with renomination, else the best that can be had.
    """

    def __init__(
        self,
        controlling: bool,
        *,
        entropy: Callable[[int], bytes],
        ta: float = DEFAULT_TA,
        rto: float = DEFAULT_RTO,
        renominate: bool = False,
        permits: Callable[[Address], bool] = permits_unicast,
        policy: NominationPolicy | None = None,
    ) -> None:
        if rto <= 0:
            raise UsageError("a retransmission time is longer than nothing")
        self.ufrag, self.pwd = draw_credentials(entropy)
        self._remotes = RemoteCandidates(permits)
        self._checker = Checker(
            Role(controlling, entropy),
            Credentials(self.ufrag, self.pwd),
            self._remotes,
            policy or (FirstValid() if renominate else BestPossible()),
            entropy=entropy,
            ta=max(ta, MIN_TA),
            rto=rto,
            renominate=renominate,
        )
        self._patient_until: float | None = None
        self._local_ended = False
        self._remote_ended = False
        self._over = False

    # --- candidates and credentials -------------------------------------------------------------------

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        """Check from this candidate too. A redundant one is ignored; the 65th raises `UsageError`."""
        if self._checker.locals.add(candidate):
            sender = self._checker.locals.sender(candidate.sending_base)
            for remote in self._remotes:
                self._pair(sender, remote)
        self._settle(now)

    def set_remote(self, ufrag: str, pwd: str, now: float) -> None:
        """The other side's credentials. Raises `UsageError` for ones that are too short or changed."""
        credentials = self._checker.credentials
        if len(ufrag) < MIN_UFRAG or len(pwd) < MIN_PASSWORD:
            raise UsageError("ICE credentials shorter than RFC 8445 allows")
        if credentials.remote_ufrag and (credentials.remote_ufrag, credentials.remote_password) != (
            ufrag,
            pwd,
        ):
            raise UsageError("new ICE credentials need a new agent")
        if self._patient_until is None:
            self._patient_until = now + PATIENCE
            credentials.remote_ufrag, credentials.remote_password = ufrag, pwd
            self._checker.remote_known()
        self._settle(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """Check towards this candidate too, if it is permitted and not one too many."""
        kept = self._remotes.add(candidate)
        if kept is None:
            self._checker.counters["remote candidate ignored"] += 1
        else:
            self._checker.replace_remote(kept)
            for base in self._checker.locals.bases:
                self._pair(self._checker.locals.sender(base), kept)
        self._settle(now)

    def end_of_local_candidates(self, now: float) -> None:
        """Gathering is over on this side; without that the agent never fails (RFC 8838 §8.2)."""
        self._local_ended = True
        self._settle(now)

    def end_of_remote_candidates(self, now: float) -> None:
        """The other side has told all its candidates."""
        self._remote_ended = True
        self._settle(now)

    # --- what is known --------------------------------------------------------------------------------

    @property
    def controlling(self) -> bool:
        """The current role."""
        return self._checker.role.controlling

    @property
    def selected(self) -> ValidPair | None:
        """The pair that both sides agreed on, as far as this side knows."""
        return self._checker.valid.selected

    @property
    def counters(self) -> Mapping[str, int]:
        """What was dropped, by reason."""
        return self._checker.counters

    def valid_pairs(self) -> list[ValidPair]:
        """All pairs that work, best first."""
        return self._checker.valid.sorted()

    def is_valid(self, local: Address, remote: Address) -> bool:
        """Whether packets between the base `local` and `remote` have been proven to be the other side's."""
        return (local, remote) in self._checker.valid

    # --- consent --------------------------------------------------------------------------------------

    def use(self, pair: ValidPair, now: float) -> bool:
        """Keep consent for `pair` from now on. False when it is no longer valid: its `PairLost` is queued."""
        if self._checker.valid.find(pair.key) is not pair:
            return False
        self._checker.consent.start(pair, now)
        return True

    def release(self, pair: ValidPair) -> None:
        """Nothing is sent on `pair` any more; it stays valid."""
        self._checker.consent.stop(pair)

    def close(self) -> None:
        """End everything: nothing more is sent, said or answered."""
        self._over = True
        self._checker.transmits.clear()
        self._checker.events.clear()

    # --- the five verbs -------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        """A STUN datagram that came from `source` to the base `local` (needed where there are several)."""
        if self._over:
            return
        base = self._base(local)
        if base is None:
            self._checker.counters["unknown base"] += 1
            return
        try:
            received = parse(data)
        except MalformedStun:
            self._checker.counters["malformed"] += 1
            return
        message = received.message
        if message.method is not Method.BINDING:
            self._checker.counters["not a Binding"] += 1
        elif message.message_class is MessageClass.REQUEST:
            self._checker.receive_request(received, source, base)
        elif message.message_class is not MessageClass.INDICATION:
            self._checker.receive_response(received, source, base, now)
        self._settle(now)

    def handle_timeout(self, now: float) -> None:
        if not self._over:
            self._checker.handle_timeout(now)
            self._settle(now)

    def next_timeout(self) -> float | None:
        if self._over:
            return None
        at, end = self._checker.next_timeout(), self._patient_until
        if end is not None and (at is None or end < at) and (self._checker.gathering or self._may_fail()):
            return end
        return at

    def next_transmit(self) -> Transmit | None:
        return self._checker.transmits.popleft() if self._checker.transmits else None

    def next_event(self) -> IceEvent | None:
        return self._checker.events.popleft() if self._checker.events else None

    def _base(self, local: Address | None) -> Address | None:
        bases = self._checker.locals.bases
        if local is None:
            return bases[0] if len(bases) == 1 else None
        return local if local in bases else None

    def _pair(self, local: Candidate | None, remote: Candidate) -> None:
        """Form a pair of one family (RFC 8445 §6.1.2.2), unless a nomination ended the search."""
        if local is None or self._checker.concluded:
            return
        base, address = local.sending_base, remote.address
        if base.is_ipv6 == address.is_ipv6 and base != address:
            self._checker.add_pair(local, remote)

    def _settle(self, now: float) -> None:
        """After every input: start what may start, and see whether it is time to give up."""
        if self._over:
            return
        ended = self._local_ended and self._remote_ended
        impatient = self._patient_until is not None and now >= self._patient_until
        # A peer that never says that it has no more candidates is not waited for longer than any check.
        self._checker.gathering = not (ended or impatient)
        self._checker.run(now)
        if impatient and self._may_fail():
            self._over = True
            self._checker.events.append(IceFailed(self._failure()))

    def _failure(self) -> FailureReason:
        if self._checker.ever_valid:
            return FailureReason.ALL_LOST
        return FailureReason.NO_ANSWER if len(self._checker.checklist) else FailureReason.NO_CANDIDATES

    def _may_fail(self) -> bool:
        """All candidates are known and every check has an outcome, but none is good (RFC 8838 §8.1)."""
        if not (self._local_ended and self._remote_ended) or self._checker.valid:
            return False
        return not self._checker.checklist.outstanding()
