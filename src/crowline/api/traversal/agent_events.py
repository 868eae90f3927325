"""Who hears of what the agent of a traversal says."""

from __future__ import annotations

import logging
from collections.abc import Callable

from crowline.api.allowed import Allowed
from crowline.api.traversal.announcer import Announcer
from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.owner import PairOwner, TraversalOwner
from crowline.base.send_problem import SendProblem
from crowline.ice.candidate import CandidateType
from crowline.ice.events import (
    IceEvent,
    IceFailed,
    LossReason,
    Noticed,
    PairLost,
    PairNominated,
    PairReclassified,
    PairValid,
    Restarted,
    SendRefused,
)

# What no user has to act on, for those who look for the cause of something.
_log = logging.getLogger("crowline.ice")


class AgentEvents:
    """`on_restarted` is called when all pairs are looked for anew."""

    def __init__(
        self,
        owner: TraversalOwner,
        pairs: PairOwner,
        *,
        allowed: Allowed,
        gatherer: Gatherer,
        announcer: Announcer,
        on_restarted: Callable[[], None],
    ) -> None:
        self._owner = owner
        self._pairs = pairs
        self._allowed = allowed
        self._gatherer = gatherer
        self._announcer = announcer
        self._on_restarted = on_restarted
        self._has_warned = False

    def tell(self, event: IceEvent) -> None:
        """Tell those whom it concerns."""
        if isinstance(event, PairValid) and self._allowed.pair(event.pair):
            self._pairs.on_pair_valid(event.pair)
        elif isinstance(event, PairNominated) and self._allowed.pair(event.pair):
            self._pairs.on_pair_nominated(event.pair)
        elif isinstance(event, PairReclassified):
            self._pairs.on_pair_reclassified(event.pair)
        elif isinstance(event, PairLost):
            self._on_lost(event)
        elif isinstance(event, SendRefused):
            # A candidate that no way leads to is nothing unusual; a firewall on this very machine is.
            if event.problem is SendProblem.FORBIDDEN:
                self.forbidden(event.base.host)
        elif isinstance(event, Restarted):
            self._on_restarted()
        elif isinstance(event, Noticed):
            _log.info("ICE: %s", event.oddity.value)
        elif isinstance(event, IceFailed):
            _log.info("ICE: %s", event.reason.value)

    def forbidden(self, host: str) -> None:
        """This machine lets some packets from there not out: a person should know, once."""
        if not self._has_warned:
            self._has_warned = True
            words = SendProblem.FORBIDDEN.value
            self._owner.on_warning(f"Some UDP packets from {host} are not let out: {words}.")

    def _on_lost(self, event: PairLost) -> None:
        self._gatherer.verify(event.pair.base)
        self._pairs.on_pair_lost(event.pair, event.reason.value)
        local = event.pair.local
        if event.reason is LossReason.LOCAL_REMOVED and local.type is CandidateType.PEER_REFLEXIVE:
            # Nobody but the other side has ever named it.
            self._announcer.gone(local)
