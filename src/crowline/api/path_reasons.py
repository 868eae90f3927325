"""Why a path is as it is, in words: what is known of both NATs, and which plan found what."""

from __future__ import annotations

from collections.abc import Callable

from crowline.api.options import Options
from crowline.base.addresses import Address
from crowline.ice.pair import ValidPair
from crowline.punch.obstacle import NOTHING_YET, STILL_SOUGHT, merit, obstacle
from crowline.punch.plan_choice import NatSummary, Way

RELAY_WISHED = "this side asked for a relay only"

# Pairs remembered with the plan that found them: more than a meeting ever has.
_MAX_WON = 64


class PathReasons:
    """Tell it what is learnt; it knows the words. `on_change`: a reason may be another one now."""

    def __init__(self, on_change: Callable[[], None] = lambda: None) -> None:
        self.own: NatSummary | None = None
        self.peer: NatSummary | None = None
        self._wish = ""
        self._won: dict[tuple[Address, Address], Way] = {}
        self.is_exhausted = False
        self._on_change = on_change

    def heed(self, options: Options) -> None:
        """Who wants no direct path has no obstacle to it."""
        self._wish = RELAY_WISHED if options.relay_only else ""

    def won(self, key: tuple[Address, Address], way: Way) -> None:
        """A plan made the pair with this base and remote address."""
        if len(self._won) < _MAX_WON:
            self._won[key] = way
            self._on_change()

    def exhausted(self) -> None:
        """Every way was tried, and none leads across directly."""
        self.is_exhausted = True
        self._on_change()

    def of_pair(self, pair: ValidPair) -> str:
        if pair.kind == "relay":
            return self.obstacle
        return merit(pair, self.own, self.peer, self._won.get(pair.key))

    def of_hub(self) -> str:
        if self.is_exhausted:
            return self.obstacle
        return STILL_SOUGHT

    @property
    def obstacle(self) -> str:
        """Why there is no direct path, as far as that is known yet."""
        if self._wish:
            return self._wish
        return obstacle(self.own, self.peer) if self.is_exhausted else NOTHING_YET
