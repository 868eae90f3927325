"""What the other side says of itself, and what of that its checks may go to."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from crowline.api.allowed import Allowed
from crowline.api.traversal.candidate_names import CandidateNames
from crowline.api.traversal.restart_pace import BURST, INTERVAL, RestartPace
from crowline.api.traversal.translation import Translation
from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Transmit
from crowline.base.mdns_name import is_mdns_name
from crowline.base.transport import Transport
from crowline.ice.agent import IceAgent
from crowline.ice.candidate import Candidate
from crowline.ice.events import IceEvent
from crowline.ice.remotes import MAX_REMOTE_CANDIDATES
from crowline.net.chores import Chores
from crowline.net.pump import Pump
from crowline.rendezvous.candidates import address_of, from_signal
from crowline.rendezvous.signals import (
    CandidateFading,
    CandidateGone,
    CandidateSignal,
    Description,
    EndOfCandidates,
    Signal,
)

# Its restarts that are followed, at once and in the long run: more than those that it makes at `RestartPace`
# and its answers to this side's together, also when the hub hands over what has come in half a minute. Each
# costs this side all its signals.
MAX_RESTARTS, RESTART_INTERVAL = 4 * BURST, INTERVAL / 2


class OtherSide:
    """Tells the agent. `permit`: let an address reach our relayed ones; `on_fading`: what is at an address
    will be gone soon; `finds_names`: names of this network may be looked for.
    """

    def __init__(
        self,
        agent: IceAgent,
        pump: Pump[Transmit, IceEvent],
        *,
        allowed: Allowed,
        names: CandidateNames,
        translation: Translation,
        permit: Callable[[Address], None],
        on_fading: Callable[[Address], None],
        finds_names: bool,
    ) -> None:
        self._agent = agent
        self._pump = pump
        self._allowed = allowed
        self._names = names
        self._translation = translation
        self._permit = permit
        self._on_fading = on_fading
        self._finds_names = finds_names
        self._candidates: list[Candidate] = []
        self._pace = RestartPace(MAX_RESTARTS, RESTART_INTERVAL)
        self._chores = Chores()

    def describe(self, description: Description) -> bool:
        """Begin to check, or to check anew; False when the credentials are none (RFC 8445 §5.3).

        Who begins anew more often than any honest side is not followed.
        """
        now = self._pump.now
        if self._pace.wait(now):
            return True
        self._pace.take(now)
        self._candidates.clear()
        if description.regains:
            self._agent.agree_to_regain()
        try:
            self._agent.set_remote(description.ufrag, description.pwd, now)
        except UsageError:
            return False
        self._pump.flush()
        return True

    def hear(self, signal: Signal) -> None:
        """What it says of its candidates."""
        if isinstance(signal, CandidateSignal) and is_mdns_name(signal.host):
            self._chores.beside(self._find(signal))
        elif isinstance(signal, CandidateSignal):
            self.add(signal)
        elif isinstance(signal, CandidateGone):
            for each in self._addresses_of(signal):
                transport = Transport(signal.transport)
                self._agent.remove_remote_candidate(each, self._pump.now, transport=transport)
            self._pump.flush()
        elif isinstance(signal, CandidateFading):
            for each in self._addresses_of(signal):
                self._on_fading(each)
        elif isinstance(signal, EndOfCandidates):
            self._agent.end_of_remote_candidates(self._pump.now)
            self._pump.flush()

    def add(self, signal: CandidateSignal, *, relays: bool = True) -> None:
        """`relays`: relayed addresses may be used towards it too."""
        candidate = from_signal(signal)
        if candidate is None or not self._allowed.candidate(candidate):
            return
        if self._allowed.avoids(candidate):
            return
        if relays and self._allowed.check(candidate.address):
            self._permit(candidate.address)
        if len(self._candidates) < MAX_REMOTE_CANDIDATES:
            self._candidates.append(candidate)
        self._agent.add_remote_candidate(candidate, self._pump.now)
        self._check_translated([candidate])
        self._pump.flush()

    def translate(self) -> None:
        """There is a way to IPv4 now: check by that too."""
        self._check_translated(self._candidates)
        self._pump.flush()

    def close(self) -> None:
        self._chores.stop()

    def _check_translated(self, candidates: list[Candidate]) -> None:
        for candidate in self._translation.checkable(candidates):
            self._agent.add_remote_candidate(candidate, self._pump.now)

    async def _find(self, signal: CandidateSignal) -> None:
        """A name that means something on the other side's network, which may be this one."""
        if self._finds_names and (host := await self._names.find(signal.host)) is not None:
            # No server is told what the name stands for; nor could it send there.
            self.add(msgspec.structs.replace(signal, host=host), relays=False)

    def _addresses_of(self, signal: CandidateGone | CandidateFading) -> set[Address]:
        """Under which addresses this side knows what the signal names."""
        host = self._names.read(signal.host)
        address = address_of(host, signal.port) if host is not None else None
        return set() if address is None else {address, self._translation.towards(address)}
