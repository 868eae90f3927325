"""What the other side is told of this one: who it is, where it can be reached, and where it no longer can."""

from __future__ import annotations

from collections.abc import Callable

from crowline.api.traversal.candidate_names import CandidateNames
from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.base.transport import Transport
from crowline.ice.agent import MIN_TA, IceAgent
from crowline.ice.candidate import Candidate
from crowline.ice.events import IceEvent
from crowline.link.identity import Identity
from crowline.link.renewal import is_replaced
from crowline.net.pump import Pump
from crowline.rendezvous.candidates import OwnCandidates, gone_signal, to_signal
from crowline.rendezvous.signals import CandidateFading, Description, EndOfCandidates, Signal


class Announcer:
    """Tells the agent and, by `signal`, the other side. `private`: not what candidates were derived from;
    `punches`: this side takes part in plans for hard NATs."""

    def __init__(
        self,
        agent: IceAgent,
        pump: Pump[Transmit, IceEvent],
        names: CandidateNames,
        identity: Identity,
        *,
        private: bool,
        punches: bool = False,
        signal: Callable[[Signal], None],
    ) -> None:
        self._agent = agent
        self._pump = pump
        self._names = names
        self._identity = identity
        self._private = private
        self._punches = punches
        self._signal = signal
        self._own = OwnCandidates()

    @property
    def met(self) -> bool:
        """Whether the other side is there."""
        return self._own.met

    def offered(self) -> list[Candidate]:
        """What the other side has been told and what still leads here."""
        return self._own.offered()

    def describe(self) -> None:
        """Tell who this is, and the credentials of now."""
        self._signal(
            Description(
                ufrag=self._agent.ufrag,
                pwd=self._agent.pwd,
                fingerprint=self._identity.fingerprint.hex(),
                ta_ms=round(MIN_TA * 1000),
                renominate=True,
                certificate=self._identity.certificate_der,
                restarts=True,
                regains=True,
                punches=self._punches,
            )
        )

    def meet(self) -> None:
        """The other side is there: offer what has been found, and what will be."""
        for candidate in self._own.meet():
            self._offer(candidate)

    def add(self, candidate: Candidate) -> None:
        """Something leads here."""
        for each in self._own.add(candidate):
            self._offer(each)

    def repeat(self) -> None:
        """Tell the new credentials, and under them everything again."""
        self.describe()
        for candidate in self._own.offered():
            self._tell(candidate)

    def end(self) -> None:
        """There is nothing more to come."""
        self._signal(EndOfCandidates())
        self._agent.end_of_local_candidates(self._pump.now)
        self._pump.flush()

    def lost(self, base: Address, transport: Transport) -> None:
        """Nothing leaves by that base any more."""
        for candidate in self._own.remove(base):
            self.gone(candidate)
        self._agent.remove_local_candidate(base, self._pump.now, transport=transport)
        self._pump.flush()

    def gone(self, candidate: Candidate) -> None:
        """Nothing leads here by it any more."""
        if (host := self._names.written(candidate)) is not None:
            self._signal(gone_signal(candidate.address, candidate.protocol, host=host))

    def fading(self, base: Address) -> None:
        """Nothing will leave by that base soon; what the other side knows it by."""
        candidates = [each for each in self._own.offered() if each.sending_base == base]
        ends = {(self._names.written(each), each.address.port) for each in candidates}
        for pair in self._agent.valid_pairs():
            if pair.base == base and pair.local.address != base:
                ends.add((pair.local.address.host, pair.local.address.port))
        for host, port in ends:
            if host is not None:
                self._signal(CandidateFading(host, port))

    def _offer(self, candidate: Candidate) -> None:
        self._agent.add_local_candidate(candidate, self._pump.now)
        for known in self._agent.local_candidates():
            # The mapping has moved: what it was before leads elsewhere.
            if is_replaced(known, candidate):
                self._agent.remove_local_candidate(known.address, self._pump.now, transport=known.protocol)
                self.gone(known)
        self._tell(candidate)
        self._pump.flush()

    def _tell(self, candidate: Candidate) -> None:
        if (host := self._names.written(candidate)) is not None:
            self._signal(to_signal(candidate, private=self._private, host=host))
