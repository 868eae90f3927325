"""A lite ICE agent (RFC 8445 §2.5): it answers checks, and makes none. For hosts with a public address."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.send_problem import SendProblem
from crowline.base.transport import Transport
from crowline.ice.answering import Answering
from crowline.ice.candidate import Candidate, CandidateType, TcpType
from crowline.ice.checks import Credentials, VerifiedCheck, draw_credentials
from crowline.ice.consent import CHECK_INTERVAL, CHECK_SPREAD, EXPIRY
from crowline.ice.endpoint import IceEndpoint
from crowline.ice.events import FailureReason, IceFailed, LossReason, SendRefused
from crowline.ice.nomination import FirstValid
from crowline.ice.nominator import Nominator
from crowline.ice.pair import CandidatePair, ValidPair, Way, pair_priority
from crowline.ice.remotes import RemoteCandidates, permits_unicast
from crowline.ice.role import Role
from crowline.ice.session import IceSession
from crowline.ice.states import PairInput
from crowline.stun.message import Received

MAX_NOMINATIONS_KEPT = 64  # requests that nominated; honest peers need one, renominating ones a few

# Seconds after a proof from which on a plain check on the same pair is taken for a question of consent.
_CONSENT_GAP = CHECK_INTERVAL * (1 - CHECK_SPREAD)


class LiteAgent(IceEndpoint):
    """Used like `IceAgent`, with host candidates only; it sends nothing but answers.

    A pair is valid and nominated as soon as the other side says so (RFC 8445 §7.3.2); with `renominate` a
    later nomination replaces an earlier one, else the best of them is selected. Consent is the other side's
    to ask (RFC 7675 §1). Where it does, its silence of 30 s is a `PairLost`, and with `regain` a new
    nomination brings that pair back; where it does not, the pair stays. Whether a full agent finds no way at
    all is for that one to say: there is no `IceFailed` then.

    Towards another lite agent nothing is checked: `controlling` says which of the two began, and when both
    sides' candidates are complete, the best pair over UDP is taken for valid (§8.2). Nothing is proven of it.
    `tells_moves` is that of `IceAgent`.
    """

    def __init__(
        self,
        controlling: bool,
        *,
        entropy: Callable[[int], bytes],
        renominate: bool = False,
        regain: bool = False,
        permits: Callable[[Address], bool] = permits_unicast,
        tells_moves: bool = False,
    ) -> None:
        session = IceSession(
            Role(False, entropy),
            Credentials(*draw_credentials(entropy)),
            RemoteCandidates(permits),
            FirstValid(),
            entropy=entropy,
            renominate=renominate,
            regain=regain,
            tells_moves=tells_moves,
        )
        session.role.pin(controlling=False)
        self._began = controlling
        self._other_is_lite = False
        self._nominator = Nominator(session, renominate=renominate)
        self._hearing = _LiteAnswering(session, self._nominator)
        super().__init__(session, self._hearing, entropy=entropy)

    def add_local_candidate(self, candidate: Candidate, now: float) -> None:
        """May be reached at this host candidate, one for each IP address (RFC 8445 §5.2).

        Over TCP it is a passive one (RFC 6544 §4.4).

        A redundant one is ignored; others raise `UsageError`.
        """
        if candidate.type is not CandidateType.HOST or candidate.tcp_type not in (None, TcpType.PASSIVE):
            raise UsageError("a lite agent has host candidates only, and dials nobody")
        others = [
            each.address.host
            for each in self._session.locals
            if each.address != candidate.address and each.transport == candidate.transport
        ]
        if candidate.address.host in others:
            raise UsageError("a lite agent has one candidate for each IP address")
        self._session.locals.add(candidate)
        self._settle(now)

    def nominate(self, pair: ValidPair, now: float) -> bool:
        """Never: that is the other side's to do."""
        return False

    def abandon(self, pair: ValidPair) -> None:
        """Do not take `pair`, which is lost, back: for symmetry with `IceAgent`; a lite agent never tries."""
        pair.checked.revoked = True

    def send_failed(self, base: Address, destination: Address, problem: SendProblem) -> None:
        """This machine did not let out a datagram; told as `SendRefused`."""
        if not self._over:
            self._session.outbox.refused(SendRefused(base, destination, problem))

    def handle_timeout(self, now: float) -> None:
        if self._over:
            return
        self._session.end_former(self._session.former.expired(now), LossReason.RESTARTED)
        for pair in self._hearing.silent(now):
            self._session.lose(pair, LossReason.CONSENT_EXPIRED, now)
        self._settle(now)

    def next_timeout(self) -> float | None:
        if self._over:
            return None
        times = (self._session.former.next_timeout(), self._hearing.next_timeout())
        return min((time for time in times if time is not None), default=None)

    def _remote_known(self, now: float, *, lite: bool) -> None:
        self._other_is_lite = lite
        self._session.role.pin(controlling=lite and self._began)

    def _remote_added(self, remote: Candidate) -> None:
        """Towards a full agent, nothing comes of it: it is heard before it is known."""

    def _on_response(self, received: Received, way: Way, now: float) -> None:
        self._session.outbox.counters["answer to nothing"] += 1

    def _settle(self, now: float) -> None:
        self._session.release_connections()
        complete = self._local_ended and self._remote_ended
        if self._over or not (self._other_is_lite and complete) or self._session.valid.selected is not None:
            return
        best = max(self._ways(), key=self._rank, default=None)
        if best is None:
            if not self._session.working():
                self._over = True
                self._session.outbox.say(IceFailed(FailureReason.NO_CANDIDATES))
            return
        pair = self._session.add_pair(*best)
        if pair is not None:
            self._nominator.nominated(_prove(self._session, pair, now), now)

    def _ways(self) -> Iterator[tuple[Candidate, Candidate]]:
        for local in self._session.locals:
            for remote in self._session.remotes:
                over_udp = local.protocol is remote.protocol is Transport.UDP
                if over_udp and local.address.is_ipv6 == remote.address.is_ipv6:
                    yield local, remote

    def _rank(self, way: tuple[Candidate, Candidate]) -> tuple[int, list[str]]:
        """The same on both sides, so that they choose the same pair without telling each other."""
        local, remote = way
        ours, theirs = local.priority, remote.priority
        priority = pair_priority(ours, theirs) if self.controlling else pair_priority(theirs, ours)
        return priority, sorted((str(local.address), str(remote.address)))


class _LiteAnswering(Answering):
    """Takes nominations for proven, and listens whether the other side asks for consent."""

    def __init__(self, session: IceSession, nominator: Nominator) -> None:
        super().__init__(session, nominator)
        # The requests that nominated, by transaction id, with the pair of each.
        self._nominations: dict[bytes, Way] = {}
        self._asking: set[ValidPair] = set()

    def silent(self, now: float) -> list[ValidPair]:
        """Pairs on which the other side has asked for consent, and no more for 30 s."""
        return [pair for pair in self._watched() if pair.proven_at + EXPIRY <= now]

    def next_timeout(self) -> float | None:
        return min((pair.proven_at + EXPIRY for pair in self._watched()), default=None)

    def restart(self) -> None:
        super().restart()
        self._nominations.clear()

    def _on_former_check(self, check: VerifiedCheck, way: Way, now: float) -> None:
        """Consent for a pair that goes on carrying data is asked under its own credentials."""
        valid = self._session.former.find(way)
        if valid is not None:
            self._heard(valid, check, now)

    def _act_on_check(self, check: VerifiedCheck, way: Way, now: float) -> None:
        """RFC 8445 §7.3.2."""
        valid = self._session.valid.find(way)
        if valid is not None:
            self._heard(valid, check, now)
        if not check.use_candidate or not self._is_new_nomination(check, way):
            return
        pair = self._session.checklist.find(way) or self._session.learn_pair(way, check.priority)
        if pair is None or pair.revoked:
            self._session.outbox.counters["check without a pair"] += 1
            return
        if not pair.has_overtaken(check.rank):
            self._session.rank_nomination(pair, check.rank)
            self._nominator.nominated(valid or _prove(self._session, pair, now), now)

    def _heard(self, valid: ValidPair, check: VerifiedCheck, now: float) -> None:
        """The other side still wants `valid`, and perhaps it asks for consent with that."""
        if not check.use_candidate and now - valid.proven_at >= _CONSENT_GAP:
            self._asking.add(valid)
        self._session.consent.proven(valid, now)

    def _is_new_nomination(self, check: VerifiedCheck, way: Way) -> bool:
        """False for a retransmission, and for a copy that somebody sends from another address.

        A full agent would find out by a check of its own; this one can only remember what it has heard.
        """
        transaction_id = check.message.transaction_id
        known = self._nominations.get(transaction_id)
        if known is None:
            if len(self._nominations) >= MAX_NOMINATIONS_KEPT:
                del self._nominations[next(iter(self._nominations))]
            self._nominations[transaction_id] = way
        elif known != way:
            self._session.outbox.counters["nomination from elsewhere"] += 1
        return known is None

    def _watched(self) -> Iterator[ValidPair]:
        self._asking = {pair for pair in self._asking if self._session.is_working(pair)}
        yield from self._asking


def _prove(session: IceSession, pair: CandidatePair, now: float) -> ValidPair:
    """`pair` works, because the other side says so."""
    pair.apply(PairInput.TRIGGER)
    return session.succeeded(pair, pair.base, pair.local.priority, now)
