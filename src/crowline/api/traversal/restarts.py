"""When one side restarts ICE because its network has changed (RFC 8445 §9), and what follows from it."""

from __future__ import annotations

import asyncio

from crowline.api.traversal.announcer import Announcer
from crowline.api.traversal.gatherer import Gatherer
from crowline.api.traversal.owner import PairOwner
from crowline.api.traversal.questions import Questions
from crowline.api.traversal.restart_pace import RestartPace
from crowline.base.machine import Transmit
from crowline.ice.agent import IceAgent
from crowline.ice.events import IceEvent
from crowline.net.pump import Pump


class Restarts:
    """Begins anew at a pace that a hub can follow; what carries data goes on meanwhile."""

    def __init__(
        self,
        agent: IceAgent,
        pump: Pump[Transmit, IceEvent],
        gatherer: Gatherer,
        announcer: Announcer,
        questions: Questions,
        pairs: PairOwner,
    ) -> None:
        # Whether the other side knows what a restart is.
        self.is_understood = False
        # Whether the network has changed since the last one.
        self.is_due = False
        self._agent = agent
        self._pump = pump
        self._gatherer = gatherer
        self._announcer = announcer
        self._questions = questions
        self._pairs = pairs
        self._is_demanded = False
        self._pace = RestartPace()
        self._timer: asyncio.TimerHandle | None = None
        self._loop = asyncio.get_running_loop()

    def take(self) -> None:
        """Restart if that is due: now, or when enough time has passed since the others."""
        if not self.is_due or self._timer is not None:
            return
        wait = self._pace.wait(self._loop.time())
        if wait:
            self._timer = self._loop.call_later(wait, self._now)
        else:
            self._now()

    def demand(self) -> None:
        """Restart whatever the network has done; where there is nothing to begin anew, tell all once more."""
        self._is_demanded = True
        self.is_due = True
        self.take()

    def begin(self) -> bool:
        """Look for all pairs anew; False where there is nothing to begin anew."""
        began = self._agent.restart(self._pump.now)
        self._pump.flush()
        return began

    def on_restarted(self) -> None:
        """Either side began anew: the agent has other credentials."""
        self._gatherer.restart({pair.remote.address.host for pair in self._agent.valid_pairs()})
        self._tell_all()
        self._pairs.on_restarted()

    def close(self) -> None:
        self.is_due = False
        if self._timer is not None:
            self._timer.cancel()

    def _now(self) -> None:
        self._timer = None
        self.is_due = False
        is_demanded, self._is_demanded = self._is_demanded, False
        if self.is_understood and self.begin():
            self._pace.take(self._loop.time())
        elif is_demanded:
            self._tell_all()

    def _tell_all(self) -> None:
        """Who this side is and what it has, once more."""
        self._announcer.repeat()
        self._questions.restart()
