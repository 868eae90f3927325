"""A full ICE agent for one data stream of one component: RFC 8445, 8838 (trickle), 8863, 7675 (consent)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.send_problem import SendProblem
from crowline.ice.candidate import Candidate
from crowline.ice.checker import Checker
from crowline.ice.checks import Credentials, draw_credentials
from crowline.ice.events import FailureReason, IceEvent, IceFailed, LossReason, SendRefused
from crowline.ice.nomination import BestPossible, FirstValid, NominationPolicy
from crowline.ice.pair import ValidPair
from crowline.ice.remotes import RemoteCandidates, permits_unicast
from crowline.ice.role import Role
from crowline.ice.session import IceSession
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
    After `IceFailed` only a restart, of either side, brings the agent back.

    `ta` is the time between checks, at least 5 ms; `rto` the first retransmission time, both in seconds.
    `renominate`: both sides agreed to move to better pairs by further nominations; the search then goes on
    after the first one. `regain`: both sides agreed to try a pair again that fell silent, after 1, 2, 4 …
    60 s, and to take a new authenticated check for consent; without that only a restart brings it back (RFC
    7675 §5.1). `permits` judges remote addresses before anything is sent there. `policy` chooses
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
        regain: bool = False,
        permits: Callable[[Address], bool] = permits_unicast,
        policy: NominationPolicy | None = None,
    ) -> None:
        if rto <= 0:
            raise UsageError("a retransmission time is longer than nothing")
        self._entropy = entropy
        self._session = IceSession(
            Role(controlling, entropy),
            Credentials(*draw_credentials(entropy)),
            RemoteCandidates(permits),
            policy or (FirstValid() if renominate else BestPossible()),
            entropy=entropy,
            renominate=renominate,
            regain=regain,
        )
        self._checker = Checker(
            self._session, entropy=entropy, ta=max(ta, MIN_TA), rto=rto, renominate=renominate
        )
        # The other side's user fragment and password, in the present session or in the one before.
        self._last_remote = ("", "")
        self._patient_until: float | None = None
        self._local_ended = False
        self._remote_ended = False
        self._over = False
        self._closed = False

    # --- credentials ----------------------------------------------------------------------------------

    @property
    def ufrag(self) -> str:
        """This side's user fragment; a restart changes it."""
        return self._session.credentials.local_ufrag

    @property
    def pwd(self) -> str:
        """This side's password; a restart changes it."""
        return self._session.credentials.local_password

    def set_remote(self, ufrag: str, pwd: str, now: float, *, lite: bool = False) -> None:
        """The other side's credentials; `lite`: it only answers checks, so that this side controls (§6.1.1).

        Other ones than before are its restart: this side restarts too, unless it has begun that itself, and
        says `Restarted`. Those of a session that has ended change nothing. Raises `UsageError` for
        credentials that are too short, and for a change of only one of the two.
        """
        if len(ufrag) < MIN_UFRAG or len(pwd) < MIN_PASSWORD:
            raise UsageError("ICE credentials shorter than RFC 8445 allows")
        if (ufrag, pwd) == self._last_remote or self._closed:
            return
        if ufrag == self._last_remote[0] or pwd == self._last_remote[1]:
            raise UsageError("an ICE restart changes both the user fragment and the password")
        if self._session.credentials.remote_ufrag:
            self._restart(by_peer=True)
        self._last_remote = (ufrag, pwd)
        credentials = self._session.credentials
        credentials.remote_ufrag, credentials.remote_password = ufrag, pwd
        self._patient_until = now + PATIENCE
        if lite and self._session.role.pin():
            self._session.role_changed()
        self._checker.answering.remote_known(now)
        self._settle(now)

    def restart(self, now: float) -> bool:
        """Begin anew with new credentials (RFC 8445 §9); the roles and this side's candidates stay.

        Pairs in use, and the selected one, go on carrying data with their consent under the old credentials.
        Where the new session proves the same way, its pair is the same object and stays in use; the others
        are lost three seconds after the new session has agreed on a pair. The other side's candidates are
        forgotten: those that it signals before its new credentials belong to the past.

        False when there is nothing to begin anew: the other side is not known, or has not answered the last
        restart yet. After True comes `Restarted`.
        """
        if self._closed or not self._session.credentials.remote_ufrag:
            return False
        self._restart(by_peer=False)
        self._settle(now)
        return True

    # --- candidates -----------------------------------------------------------------------------------

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        """Check from this candidate too. A redundant one is ignored; the 65th raises `UsageError`."""
        if self._session.locals.add(candidate):
            sender = self._session.locals.sender(candidate.sending_base)
            for remote in self._session.remotes:
                self._pair(sender, remote)
        self._settle(now)

    def remove_local_candidate(self, address: Address, now: float) -> None:
        """The candidate at `address` is gone; where it is a base, everything that leaves by it goes too.

        Pairs that worked there are lost (`PairLost`). Tell the other side.
        """
        base = self._session.locals.remove(address)
        if base is not None:
            self._session.remove_base(base)
        self._settle(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """Check towards this candidate too, if it is permitted and not one too many."""
        remotes = self._session.remotes
        kept = None if self._awaits_answer else remotes.add(candidate)
        if kept is None:
            self._session.outbox.counters["remote candidate ignored"] += 1
            oddity = None if self._awaits_answer else remotes.objection(candidate)
            if oddity is not None:
                self._session.outbox.notice(oddity)
        else:
            self._session.replace_remote(kept)
            for base in self._session.locals.bases:
                self._pair(self._session.locals.sender(base), kept)
        self._settle(now)

    def remove_remote_candidate(self, address: Address, now: float) -> None:
        """The other side has left `address`: its pairs go, and those that worked are lost (`PairLost`).

        A check that comes from there later makes it a peer-reflexive candidate like any other.
        """
        self._session.remotes.remove(address)
        self._session.remove_remote(address)
        self._settle(now)

    def end_of_local_candidates(self, now: float) -> None:
        """Gathering is over on this side; without that the agent never fails (RFC 8838 §8.2)."""
        self._local_ended = True
        self._settle(now)

    def end_of_remote_candidates(self, now: float) -> None:
        """The other side has told all its candidates."""
        self._remote_ended = not self._awaits_answer
        self._settle(now)

    # --- what is known --------------------------------------------------------------------------------

    @property
    def controlling(self) -> bool:
        """The current role."""
        return self._session.role.controlling

    @property
    def selected(self) -> ValidPair | None:
        """The pair that both sides agreed on, as far as this side knows."""
        return self._session.selected

    @property
    def counters(self) -> Mapping[str, int]:
        """What was dropped, by reason."""
        return self._session.outbox.counters

    def local_candidates(self) -> list[Candidate]:
        """This side's candidates: what the other side must hear again after a restart."""
        return list(self._session.locals)

    def valid_pairs(self) -> list[ValidPair]:
        """All pairs that work, best first; those of a session before a restart too while they carry data."""
        return self._session.working()

    def is_valid(self, local: Address, remote: Address) -> bool:
        """Whether packets between the base `local` and `remote` have been proven to be the other side's."""
        key = (local, remote)
        return key in self._session.valid or self._session.former.find(key) is not None

    # --- consent --------------------------------------------------------------------------------------

    def use(self, pair: ValidPair, now: float) -> bool:
        """Keep consent for `pair` from now on. False when it is no longer valid: its `PairLost` is queued."""
        if not self._session.is_working(pair):
            return False
        self._session.consent.start(pair, now)
        return True

    def release(self, pair: ValidPair) -> None:
        """Nothing is sent on `pair` any more; it stays valid, but for one of a session before a restart."""
        self._session.consent.stop(pair)
        if pair in self._session.former:
            self._session.end_former([pair], LossReason.RELEASED)

    def abandon(self, pair: ValidPair) -> None:
        """Do not try to regain `pair`, which is lost."""
        self._session.retries.forget(pair.checked)

    def close(self) -> None:
        """End everything: nothing more is sent, said or answered."""
        self._over = self._closed = True
        self._session.outbox.clear()

    # --- the five verbs -------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        """A STUN datagram that came from `source` to the base `local` (needed where there are several)."""
        if self._over:
            return
        base = self._base(local)
        if base is None:
            self._session.outbox.counters["unknown base"] += 1
            return
        try:
            received = parse(data)
        except MalformedStun:
            self._session.outbox.counters["malformed"] += 1
            return
        message = received.message
        if message.method is not Method.BINDING:
            self._session.outbox.counters["not a Binding"] += 1
        elif message.message_class is MessageClass.REQUEST:
            self._checker.answering.receive(received, source, base, now)
        elif message.message_class is not MessageClass.INDICATION:
            self._checker.receive_response(received, source, base, now)
        self._settle(now)

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

    def next_transmit(self) -> Transmit | None:
        transmits = self._session.outbox.transmits
        return transmits.popleft() if transmits else None

    def next_event(self) -> IceEvent | None:
        events = self._session.outbox.events
        return events.popleft() if events else None

    @property
    def _awaits_answer(self) -> bool:
        """This side has restarted, and the other side's new credentials are not here yet."""
        return bool(self._last_remote[0]) and not self._session.credentials.remote_ufrag

    def _restart(self, *, by_peer: bool) -> None:
        self._session.restart(Credentials(*draw_credentials(self._entropy)), by_peer=by_peer)
        self._checker.answering.restart()
        self._patient_until = None
        self._local_ended = self._remote_ended = self._over = False

    def _base(self, local: Address | None) -> Address | None:
        bases = self._session.locals.bases
        if local is None:
            return bases[0] if len(bases) == 1 else None
        return local if local in bases else None

    def _pair(self, local: Candidate | None, remote: Candidate) -> None:
        """Form a pair of one family (RFC 8445 §6.1.2.2), unless a nomination ended the search."""
        if local is None or self._session.concluded:
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
        if impatient and self._may_fail():
            self._over = True
            self._session.outbox.say(IceFailed(self._failure()))

    def _failure(self) -> FailureReason:
        if self._session.ever_valid:
            return FailureReason.ALL_LOST
        if not len(self._session.checklist):
            return FailureReason.NO_CANDIDATES
        return FailureReason.NO_ANSWER if self._session.ever_left else FailureReason.NOTHING_LEFT

    def _may_fail(self) -> bool:
        """All candidates are known and every check has an outcome, but none is good (RFC 8838 §8.1)."""
        if not (self._local_ended and self._remote_ended) or self._session.working():
            return False
        return not self._session.retries and not self._session.checklist.outstanding()
