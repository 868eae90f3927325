"""What agents of both kinds have: credentials, candidates, pairs that work, and most of the verbs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.ice.answering import Answering
from crowline.ice.candidate import HIGHEST_LOCAL_PREFERENCE, Candidate, CandidateType, candidate_priority
from crowline.ice.checks import (
    Credentials,
    VerifiedCheck,
    draw_credentials,
    verify_answer,
    verify_check,
    write_check,
)
from crowline.ice.events import IceEvent, LossReason
from crowline.ice.pair import CandidatePair, ValidPair, Way
from crowline.ice.session import IceSession
from crowline.stun.message import TRANSACTION_ID_SIZE, MalformedStun, MessageClass, Method, Received, parse

MIN_UFRAG = 4  # characters, RFC 8839 §5.4
MIN_PASSWORD = 22  # characters, RFC 8839 §5.4

# What a check from a socket announces that is no base yet: the priority of a host's only socket.
_UNKNOWN_BASE_PRIORITY = candidate_priority(CandidateType.PEER_REFLEXIVE, HIGHEST_LOCAL_PREFERENCE)


class IceEndpoint(ABC):
    """The common part of `IceAgent` and `LiteAgent`, which describe how it is used."""

    def __init__(self, session: IceSession, answering: Answering, *, entropy: Callable[[int], bytes]) -> None:
        self._session = session
        self._answering = answering
        self._entropy = entropy
        # The other side's user fragment and password, in the present session or in the one before.
        self._last_remote = ("", "")
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
        """The other side's credentials; `lite`: it only answers checks (RFC 8445 §6.1.1).

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
        self._remote_known(now, lite=lite)
        self._answering.remote_known(now)
        self._settle(now)

    def agree_to_regain(self) -> None:
        """The other side says that it too takes a new authenticated check for consent after a silence."""
        self._session.regain = True

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

    def remove_local_candidate(
        self, address: Address, now: float, *, transport: Transport = Transport.UDP
    ) -> None:
        """The candidate at `address` is gone; where it is a base, everything that leaves by it goes too.

        Pairs that worked there are lost (`PairLost`). Tell the other side.
        """
        base = self._session.locals.remove(address, transport)
        if base is not None:
            self._session.remove_base(base, transport)
        self._settle(now)

    def add_remote_candidate(self, candidate: Candidate, now: float) -> None:
        """Take a candidate of the other side in, if it is permitted and not one too many."""
        remotes = self._session.remotes
        kept = None if self._awaits_answer else remotes.add(candidate)
        if kept is None:
            self._session.outbox.counters["remote candidate ignored"] += 1
            oddity = None if self._awaits_answer else remotes.objection(candidate)
            if oddity is not None:
                self._session.outbox.notice(oddity)
        else:
            self._session.replace_remote(kept)
            self._remote_added(kept)
        self._settle(now)

    def remove_remote_candidate(
        self, address: Address, now: float, *, transport: Transport = Transport.UDP
    ) -> None:
        """The other side has left `address`: its pairs go, and those that worked are lost (`PairLost`).

        A check that comes from there later makes it a peer-reflexive candidate like any other.
        """
        self._session.remotes.remove(address, transport)
        self._session.remove_remote(address, transport)
        self._settle(now)

    def end_of_local_candidates(self, now: float) -> None:
        """Gathering is over on this side; without that the agent never fails (RFC 8838 §8.2)."""
        self._local_ended = True
        self._settle(now)

    def end_of_remote_candidates(self, now: float) -> None:
        """The other side has told all its candidates."""
        self._remote_ended = not self._awaits_answer
        self._settle(now)

    # --- guesses ------------------------------------------------------------------------------------

    def probe(self, base: Address, destination: Address) -> bytes:
        """A check that belongs to no pair, from `base` to an address that was guessed: a plan sends it.

        `base` need not be a base of this agent's yet, and nobody waits for an answer: the other side learns a
        peer-reflexive candidate from the check and checks back (RFC 8445 §7.3.1.3, §7.3.1.4). Raises
        `UsageError` while the other side's password is not known, and for two addresses of different
        families.
        """
        session = self._session
        if not session.credentials.remote_password:
            raise UsageError("nothing can be asked of an unknown side")
        if base.is_ipv6 != destination.is_ipv6:
            raise UsageError("a probe goes from one address to another of its family")
        local = session.locals.receiver(base, Transport.UDP)
        return write_check(
            self._entropy(TRANSACTION_ID_SIZE),
            session.credentials,
            _UNKNOWN_BASE_PRIORITY if local is None else local.peer_reflexive_priority,
            session.role.attribute(),
            use_candidate=False,
        )

    def authenticates(self, data: Buffer) -> bool:
        """Whether only the other side of this session can have made `data`: a check, or an answer to one.

        Nothing changes by that. For sockets that are not bases: one at which such a packet arrives may become
        a base (`add_local_candidate`) and have the packet given to `receive`.
        """
        try:
            received = parse(data)
        except MalformedStun:
            return False
        message, credentials = received.message, self._session.credentials
        if message.method is not Method.BINDING or not credentials.remote_password:
            return False
        if message.message_class is MessageClass.REQUEST:
            return isinstance(verify_check(received, credentials), VerifiedCheck)
        if message.message_class is MessageClass.INDICATION:
            return False
        return verify_answer(received, credentials) is not None

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

    def pairs(self) -> list[CandidatePair]:
        """The check list as it stands, best first, for whoever wants to see it; the pairs are the agent's."""
        return sorted(self._session.checklist, key=lambda pair: pair.priority, reverse=True)

    def valid_pairs(self) -> list[ValidPair]:
        """All pairs that work, best first; those of a session before a restart too while they carry data."""
        return self._session.working()

    def is_valid(self, local: Address, remote: Address, transport: Transport = Transport.UDP) -> bool:
        """Whether packets between the base `local` and `remote` have been proven to be the other side's."""
        way = Way(local, remote, transport)
        return way in self._session.valid or self._session.former.find(way) is not None

    # --- pairs in use ---------------------------------------------------------------------------------

    def use(self, pair: ValidPair, now: float) -> bool:
        """Data goes by `pair` from now on. False when it is no longer valid: its `PairLost` is queued."""
        if not self._session.is_working(pair):
            return False
        if not pair.handed_over:
            self._session.consent.start(pair, now)
        return True

    def release(self, pair: ValidPair) -> None:
        """Nothing is sent on `pair` any more; it stays valid, but for one of a session before a restart."""
        self._session.consent.stop(pair)
        if pair in self._session.former:
            self._session.end_former([pair], LossReason.RELEASED)

    def close(self) -> None:
        """End everything: nothing more is sent, said or answered."""
        self._over = self._closed = True
        self._session.outbox.clear()

    # --- TCP connections (RFC 6544) -------------------------------------------------------------------

    def connected(self, local: Address, remote: Address, now: float) -> None:
        """There is a connection between the base `local` and `remote`: dialled, met half-way or accepted."""
        if self._closed:
            return
        if self._base(local, Transport.TCP) is None:
            self._session.outbox.counters["unknown base"] += 1
            return
        way = Way(local, remote, Transport.TCP)
        wanted = self._session.connections.opened(way)
        if not self._over:
            self._on_connected(way, now, wanted=wanted)
            self._settle(now)

    def disconnected(self, local: Address, remote: Address, now: float) -> None:
        """Between these there is neither a connection nor an attempt at one any more."""
        way = Way(local, remote, Transport.TCP)
        if self._over:
            self._session.connections.ended(way)
            return
        self._on_disconnected(way, now, worked=self._session.connection_lost(way, now))
        self._settle(now)

    def hand_over(self, pair: ValidPair) -> None:
        """The connection of `pair` carries something else than ICE from now on (RFC 6544 §10.1).

        Nothing is checked, asked or nominated by it any more; what comes by it is still answered. The pair
        stays valid until `disconnected`, or until a new session has taken the place of its own; that asks for
        no second connection there. Without effect on a pair that is lost, or goes over UDP.
        """
        if self._session.is_working(pair):
            self._session.hand_over(pair)

    # --- verbs that do not differ ---------------------------------------------------------------------

    def receive(
        self,
        data: Buffer,
        source: Address,
        now: float,
        local: Address | None = None,
        transport: Transport = Transport.UDP,
    ) -> None:
        """A STUN message that came from `source` to the base `local` (needed where there are several).

        Over TCP it is the packet in one frame, of a connection that `connected` has told of.
        """
        if self._over:
            return
        base = self._base(local, transport)
        if base is None:
            self._session.outbox.counters["unknown base"] += 1
            return
        way = Way(base, source, transport)
        if transport.is_stream and not self._session.connections.is_open(way):
            self._session.outbox.counters["unknown connection"] += 1
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
            self._answering.receive(received, way, now)
        elif message.message_class is not MessageClass.INDICATION:
            self._on_response(received, way, now)
        self._settle(now)

    def next_transmit(self) -> Transmit | None:
        transmits = self._session.outbox.transmits
        return transmits.popleft() if transmits else None

    def next_event(self) -> IceEvent | None:
        events = self._session.outbox.events
        return events.popleft() if events else None

    # --- what differs ---------------------------------------------------------------------------------

    @abstractmethod
    def _remote_known(self, now: float, *, lite: bool) -> None:
        """The other side's credentials have just been set."""

    @abstractmethod
    def _remote_added(self, remote: Candidate) -> None:
        """The other side has one candidate more."""

    @abstractmethod
    def _on_response(self, received: Received, way: Way, now: float) -> None:
        """An answer to a request came."""

    def _on_connected(self, way: Way, now: float, *, wanted: bool) -> None:  # noqa: B027
        """There is a connection; `wanted`: it had been asked for, which a lite agent does not do."""

    def _on_disconnected(self, way: Way, now: float, *, worked: bool) -> None:  # noqa: B027
        """There is no connection any more; a lite agent has nothing to do about that."""

    @abstractmethod
    def _settle(self, now: float) -> None:
        """After every input: do what may be done now."""

    # --------------------------------------------------------------------------------------------------

    @property
    def _awaits_answer(self) -> bool:
        """This side has restarted, and the other side's new credentials are not here yet."""
        return bool(self._last_remote[0]) and not self._session.credentials.remote_ufrag

    def _restart(self, *, by_peer: bool) -> None:
        self._session.restart(Credentials(*draw_credentials(self._entropy)), by_peer=by_peer)
        self._answering.restart()
        self._local_ended = self._remote_ended = self._over = False

    def _base(self, local: Address | None, transport: Transport) -> Address | None:
        bases = self._session.locals.bases(transport)
        if local is None:
            return bases[0] if len(bases) == 1 else None
        return local if local in bases else None
