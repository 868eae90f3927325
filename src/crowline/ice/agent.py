"""A full ICE agent for one data stream of one component: RFC 8445, 8838 (trickle), 8863, 7675 (consent)."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.send_problem import SendProblem
from crowline.ice.candidate import COUNTERPART, Candidate
from crowline.ice.checker import Checker
from crowline.ice.checks import Credentials, draw_credentials
from crowline.ice.endpoint import IceEndpoint
from crowline.ice.events import FailureReason, IceFailed, SendRefused
from crowline.ice.nomination import BestPossible, FirstValid, NominationPolicy
from crowline.ice.pair import ValidPair, Way
from crowline.ice.remotes import RemoteCandidates, permits_unicast
from crowline.ice.role import Role
from crowline.ice.session import IceSession
from crowline.stun.message import Received

DEFAULT_TA = 0.05  # seconds between checks, RFC 8445 §14.2
MIN_TA = 0.005  # the least that RFC 8445 §14.2 allows
DEFAULT_RTO = 0.5  # seconds, RFC 8445 §14.3
PATIENCE = 39.5  # seconds before failure may be declared, RFC 8863 §4


class IceAgent(IceEndpoint):
    """One side of one connection; a five-verb machine whose events are `ice.events`.

    Gather elsewhere and add candidates as they are found, before or after `set_remote`. Checks start as
    soon as there is a pair and the other side's password. Data may be sent on a pair from its `PairValid`
    on; call `use` for every pair that carries data, so that consent is kept up, and stop at `PairLost`.
    After `IceFailed` only a restart, of either side, brings the agent back.

    `ta` is the time between checks, at least 5 ms; `rto` the first retransmission time, both in seconds.
    `renominate`: both sides agreed to move to better pairs by further nominations; the search then goes on
    after the first one. `regain`: both sides agreed to try a pair again that fell silent, after 1, 2, 4 …
    60 s, and to take a new authenticated check for consent; without that only a restart brings it back (RFC
    7675 §5.1). `permits` judges remote addresses before anything is sent there. `policy` chooses
    what to nominate: the first valid pair with renomination (then ordinary checks over UDP nominate too,
    which saves a round trip), else the best that can be had. Towards a lite agent this side controls,
    whatever `controlling` says. `tells_moves`: say every move of a pair from one state to another
    (`PairMoved`), for whoever wants to see how a way was found.
    """

    def __init__(
        self,
        controlling: bool,
        *,
        entropy: Callable[[int], bytes],
        ta: float = DEFAULT_TA,
        rto: float = DEFAULT_RTO,
        renominate: bool = False,
        regain: bool = False,
        permits: Callable[[Address], bool] = permits_unicast,
        tells_moves: bool = False,
        policy: NominationPolicy | None = None,
    ) -> None:
        if rto <= 0:
            raise UsageError("a retransmission time is longer than nothing")
        session = IceSession(
            Role(controlling, entropy),
            Credentials(*draw_credentials(entropy)),
            RemoteCandidates(permits),
            policy or (FirstValid() if renominate else BestPossible()),
            entropy=entropy,
            renominate=renominate,
            regain=regain,
            tells_moves=tells_moves,
        )
        self._checker = Checker(
            session,
            entropy=entropy,
            ta=max(ta, MIN_TA),
            rto=rto,
            renominate=renominate,
            eager=renominate and policy is None,
        )
        self._patient_until: float | None = None
        super().__init__(session, self._checker.answering, entropy=entropy)

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        """Check from this candidate too. A redundant one is ignored; the 65th raises `UsageError`."""
        if self._session.locals.add(candidate):
            base = (candidate.sending_base, candidate.protocol)
            for sender in self._session.locals.senders():
                if (sender.sending_base, sender.protocol) == base:
                    for remote in self._session.remotes:
                        self._pair(sender, remote)
        self._settle(now)

    def nominate(self, pair: ValidPair, now: float) -> bool:
        """Have both sides agree on `pair`, which works but need not be the best; whether that begins.

        For a pair whose connection is to be handed over beside the one that carries data. Only the
        controlling side can, with renomination, and one at a time. Then the best pair is nominated again.
        """
        begins = not self._over and self._checker.nominate(pair, now)
        self._settle(now)
        return begins

    def abandon(self, pair: ValidPair) -> None:
        """Do not try to regain `pair`, which is lost."""
        self._session.retries.forget(pair.checked)

    def send_failed(self, base: Address, destination: Address, problem: SendProblem) -> None:
        """This machine did not let out a datagram from `base` to `destination`, and said so itself.

        That is told as `SendRefused`, and counts as a loss like any other. What routers say (ICMP) is
        anybody's word (RFC 8445 §19.2): keep it away from here.
        """
        if not self._over:
            self._checker.send_failed(SendRefused(base, destination, problem))

    def handle_timeout(self, now: float) -> None:
        if not self._over:
            self._checker.handle_timeout(now)
            self._settle(now)

    def next_timeout(self) -> float | None:
        if self._over:
            return None
        at, end = self._checker.next_timeout(), self._patient_until
        if end is not None and (at is None or end < at) and (self._session.gathering or self._may_fail()):
            return end
        return at

    def _remote_known(self, now: float, *, lite: bool) -> None:
        """The agent that is not lite controls (RFC 8445 §6.1.1)."""
        self._patient_until = now + PATIENCE
        role = self._session.role
        if not lite:
            role.unpin()
        elif role.pin(controlling=True):
            self._session.role_changed()

    def _remote_added(self, remote: Candidate) -> None:
        for sender in self._session.locals.senders():
            self._pair(sender, remote)

    def _on_response(self, received: Received, way: Way, now: float) -> None:
        self._checker.receive_response(received, way, now)

    def _on_connected(self, way: Way, now: float, *, wanted: bool) -> None:
        self._checker.connected(way, now, wanted=wanted)

    def _on_disconnected(self, way: Way, now: float, *, worked: bool) -> None:
        if worked and self._patient_until is not None:
            # Whoever dialled dials again (RFC 6544 §11.1); the other side has to be there then.
            self._patient_until = max(self._patient_until, now + PATIENCE)
        # While the connection was handed over, a restart has left its pair out.
        for sender in self._session.locals.senders():
            for remote in self._session.remotes:
                if Way(sender.sending_base, remote.address, sender.protocol) == way:
                    self._pair(sender, remote)

    def _restart(self, *, by_peer: bool) -> None:
        super()._restart(by_peer=by_peer)
        self._patient_until = None

    def _pair(self, local: Candidate, remote: Candidate) -> None:
        """Form a pair of one family and kind (RFC 8445 §6.1.2.2), unless a nomination ended the search."""
        if self._session.concluded:
            return
        if local.protocol is not remote.protocol or COUNTERPART[local.tcp_type] is not remote.tcp_type:
            return
        base, address = local.sending_base, remote.address
        if base.is_ipv6 == address.is_ipv6 and base != address:
            self._session.add_pair(local, remote)

    def _settle(self, now: float) -> None:
        """After every input: start what may start, and see whether it is time to give up."""
        if self._over:
            return
        ended = self._local_ended and self._remote_ended
        impatient = self._patient_until is not None and now >= self._patient_until
        # A peer that never says that it has no more candidates is not waited for longer than any check.
        self._session.gathering = not (ended or impatient)
        self._checker.run(now)
        self._session.release_connections()
        if impatient and self._may_fail():
            self._over = True
            self._session.outbox.say(IceFailed(self._failure()))

    def _failure(self) -> FailureReason:
        if self._session.ever_valid:
            return FailureReason.ALL_LOST
        if not len(self._session.checklist):
            return FailureReason.NO_CANDIDATES
        refused = self.counters["refused by this machine"] and not self._session.ever_left
        return FailureReason.NOTHING_LEFT if refused else FailureReason.NO_ANSWER

    def _may_fail(self) -> bool:
        """All candidates are known and every check has an outcome, but none is good (RFC 8838 §8.1)."""
        if not (self._local_ended and self._remote_ended) or self._session.working():
            return False
        return not self._session.retries and not self._session.checklist.outstanding()
