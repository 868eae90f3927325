"""What a virtual peer tells of its own candidates: each as it is found, once the other side is there."""

from __future__ import annotations

from collections.abc import Callable

from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate
from crowline.lab.virtual import Internet
from crowline.link.renewal import is_replaced
from crowline.rendezvous.candidates import OwnCandidates, gone_signal, to_signal
from crowline.rendezvous.signals import EndOfCandidates, Signal


class VirtualOffers:
    """Gives candidates to the agent and to the other side, one that moved in place of the one before.

    `searches`: how many must say `gathered` before the other side is told that there are no more. `flush`
    lets the agent send.
    """

    def __init__(
        self,
        internet: Internet,
        agent: IceAgent,
        *,
        searches: int,
        signal: Callable[[Signal], None],
        flush: Callable[[], None],
    ) -> None:
        self.own = OwnCandidates()
        self._internet = internet
        self._agent = agent
        self._searches = searches
        self._signal = signal
        self._flush = flush

    def add(self, candidate: Candidate) -> None:
        """One was found."""
        for each in self.own.add(candidate):
            self._offer(each)

    def meet(self) -> None:
        """The other side is there."""
        for candidate in self.own.meet():
            self._offer(candidate)

    def gathered(self) -> None:
        """One search has found all that it could."""
        self._searches -= 1
        if self._searches == 0:
            self._signal(EndOfCandidates())
            self._agent.end_of_local_candidates(self._internet.now)
            self._flush()

    def _offer(self, candidate: Candidate) -> None:
        now = self._internet.now
        for known in self._agent.local_candidates():
            if is_replaced(known, candidate):
                self._agent.remove_local_candidate(known.address, now, transport=known.protocol)
                self._signal(gone_signal(known.address, known.protocol))
        self._agent.add_local_candidate(candidate, now)
        self._signal(to_signal(candidate, private=False))
        self._flush()
