"""Sockets of a virtual peer that get successors before their mappings end."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.ice.agent import IceAgent
from crowline.lab.clock import Timer
from crowline.lab.virtual import Internet
from crowline.lab.virtual_sockets import VirtualSockets
from crowline.link.renewal import Renewal
from crowline.rendezvous.candidates import OwnCandidates
from crowline.rendezvous.signals import CandidateFading, CandidateGone, Signal


class VirtualRenewal:
    """`in_use`: the bases of the chosen path. `on_fading` is told a base that will be gone soon, `on_retired`
    that the agent has been told of one that is."""

    def __init__(
        self,
        internet: Internet,
        sockets: VirtualSockets,
        agent: IceAgent,
        own: OwnCandidates,
        *,
        in_use: Callable[[], list[Address]],
        signal: Callable[[Signal], None],
        on_fading: Callable[[Address], None],
        on_retired: Callable[[], None],
    ) -> None:
        self._internet = internet
        self._sockets = sockets
        self._agent = agent
        self._own = own
        self._signal = signal
        self._in_use = in_use
        self._on_fading, self._on_retired = on_fading, on_retired
        self._timer: Timer | None = None
        self._renewal = Renewal()
        for base in sockets.bases:
            self._renewal.opened(base, internet.now)

    def fell_silent(self, base: Address) -> None:
        """A direct path by that socket carries nothing any more."""
        self._renewal.fell_silent(base, self._internet.now)
        self._work()

    def seen(self, base: Address, address: Address) -> None:
        """The server sees a socket under that address."""
        self._renewal.seen(base, address, self._internet.now)
        self._work()

    def is_renewed(self, base: Address) -> bool:
        """Whether nothing new is to be built on that socket."""
        return self._renewal.is_renewed(base)

    def _work(self) -> None:
        now = self._internet.now
        work = self._renewal.due(now, self._in_use())
        self._sockets.ask(work.ask)
        for base in work.renew:
            self._renewal.renewed(base, now)
            self._renewal.opened(self._sockets.renew(base), now)
            self._fade(base)
        for base in work.retire:
            self._renewal.closed(base)
            self._retire(base)
        if self._timer is not None:
            self._timer.cancel()
        at = self._renewal.next_timeout()
        self._timer = None if at is None else self._internet.call_at(at, self._work)

    def _fade(self, base: Address) -> None:
        """Say under which addresses the other side knows what will be gone."""
        seen = {pair.local.address for pair in self._agent.valid_pairs() if pair.base == base}
        for address in sorted({base, *seen}):
            self._signal(CandidateFading(address.host, address.port))
        self._on_fading(base)

    def _retire(self, base: Address) -> None:
        for candidate in self._own.remove(base):
            self._signal(CandidateGone(candidate.address.host, candidate.address.port))
        self._agent.remove_local_candidate(base, self._internet.now)
        self._on_retired()
        self._sockets.retire(base)
