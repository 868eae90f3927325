"""What this side is behind: measured once for each network, when nothing else is more urgent."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

from crowline.base.addresses import Address
from crowline.base.errors import LocalProblem

if TYPE_CHECKING:
    from crowline.punch.nat_profile import NatProfile

# Seconds until a measurement that found no answer at all may be made again: the network may have been down.
# Each time twice as many, up to the last, since it may let no UDP out at all.
AGAIN_AFTER, LONGEST_WAIT = 20.0, 600.0


class OwnNat:
    """`servers` finds the STUN servers to ask, `is_needed` says whether anybody wants to know, `on_known`
    hears of the result, and before that of what will probably come out. Nothing is asked before `measure_in`.
    """

    def __init__(
        self,
        servers: Callable[[], Awaitable[list[Address]]],
        *,
        is_needed: Callable[[], bool],
        on_known: Callable[[NatProfile], None],
    ) -> None:
        self.profile: NatProfile | None = None
        self._servers = servers
        self._is_needed = is_needed
        self._on_known = on_known
        self._loop = asyncio.get_running_loop()
        self._at = 0.0
        self._silences = 0  # measurements without any answer, since the network is this one
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._is_over = False

    def measure_in(self, delay: float) -> None:
        """Measure after so many seconds, if it is needed then and not known; sooner if that was planned."""
        at = self._loop.time() + delay
        if self._is_over or self.profile is not None or self._task is not None:
            return
        if self._timer is not None:
            if self._at <= at:
                return
            self._timer.cancel()
        self._at, self._timer = at, self._loop.call_at(at, self._begin)

    def forget(self) -> None:
        """This machine is in another network now."""
        self._stop()
        self.profile, self._silences = None, 0

    def close(self) -> None:
        self._is_over = True
        self._stop()

    def _begin(self) -> None:
        self._timer = None
        if self._is_needed():
            self._task = asyncio.create_task(self._measure(), name="NAT discovery")

    async def _measure(self) -> None:
        # Not needed before, and not by everybody.
        from crowline.net.nat_discovery import discover_nat

        try:
            servers = await self._servers()
            profile = await discover_nat(servers, on_early=self._on_known) if servers else None
        except LocalProblem:
            profile = None
        self._task = None
        if profile is None:
            return
        if profile.answers:
            self.profile = profile
        else:
            self.measure_in(min(AGAIN_AFTER * 2.0 ** min(self._silences, 16), LONGEST_WAIT))
            self._silences += 1
        self._on_known(profile)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._task is not None:
            self._task.cancel()
            self._task = None
