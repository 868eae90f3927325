"""When one side restarts ICE because its network has changed (RFC 8445 §9)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from crowline.api.traversal.restart_pace import RestartPace


class Restarts:
    """`begin` restarts, and says whether there was anything to begin anew."""

    def __init__(self, begin: Callable[[], bool]) -> None:
        # Whether the other side knows what a restart is.
        self.is_understood = False
        # Whether the network has changed since the last one.
        self.is_due = False
        self._begin = begin
        self._otherwise: Callable[[], None] | None = None
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

    def demand(self, otherwise: Callable[[], None]) -> None:
        """Restart whatever the network has done; `otherwise` where there is nothing to begin anew."""
        self._otherwise = otherwise
        self.is_due = True
        self.take()

    def close(self) -> None:
        self.is_due = False
        if self._timer is not None:
            self._timer.cancel()

    def _now(self) -> None:
        self._timer = None
        self.is_due = False
        otherwise, self._otherwise = self._otherwise, None
        if self.is_understood and self._begin():
            self._pace.take(self._loop.time())
        elif otherwise is not None:
            otherwise()
