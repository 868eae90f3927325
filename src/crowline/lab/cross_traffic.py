"""What other hosts behind the same translator do meanwhile: they make mappings, at random times."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, log

from crowline.base.errors import UsageError

# Mappings in one wait above which their number is the expected one: nobody predicts across so many.
_MANY = 1000


class CrossTraffic:
    """Mappings of others at `rate` a second, one after the other at intervals as a Poisson process has them.

    Each protocol has as many. Counting begins with the first look, when a box has been on for long.
    """

    def __init__(self, rate: float, entropy: Callable[[int], bytes]) -> None:
        if not 0 <= rate < inf:
            raise UsageError(f"{rate} mappings a second make no sense")
        self._rate = rate
        self._entropy = entropy
        self._next: dict[int, float] = {}

    def since(self, protocol: int, now: float) -> int:
        """How many there were since the last look."""
        if not self._rate:
            return 0
        at = self._next.setdefault(protocol, now + self._interval())
        if (now - at) * self._rate > _MANY:
            self._next[protocol] = now + self._interval()
            return round((now - at) * self._rate)
        count = 0
        while at <= now:
            at += self._interval()
            count += 1
        self._next[protocol] = at
        return count

    def _interval(self) -> float:
        share = (int.from_bytes(self._entropy(4), "big") + 1) / 2**32
        return -log(share) / self._rate
