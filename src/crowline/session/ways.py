"""Ways that fell silent under the streams, and how long each must answer before it carries them again."""

from __future__ import annotations

from typing import TypeAlias

# What the other side's path is known by, whichever link uses it: rank and merit.
Way: TypeAlias = tuple[int, int]

# Seconds for which a way that fell silent once must answer before it is used again; doubled each time.
FIRST_HOLD = 1.0
# A way that comes and goes is tried about once a minute, not given up.
LONGEST_HOLD = 60.0
# Seconds of carrying the streams after which what was before no longer counts.
STEADY = 60.0
# Ways remembered: more than the pairs that a meeting uses in an hour.
MAX_WAYS = 64


class Ways:
    """How often each way fell silent while it carried the streams."""

    def __init__(self) -> None:
        self._falls: dict[Way, int] = {}

    def fell(self, way: Way, carried: float) -> None:
        """`way` fell silent after carrying the streams for that many seconds."""
        before = 0 if carried >= STEADY else self._falls.get(way, 0)
        self._falls.pop(way, None)
        if len(self._falls) >= MAX_WAYS:
            del self._falls[next(iter(self._falls))]
        self._falls[way] = before + 1

    def hold(self, way: Way) -> float:
        """Seconds for which `way` must answer before it is used; none for one that never fell silent."""
        falls = self._falls.get(way, 0)
        return min(FIRST_HOLD * 2.0 ** (falls - 1), LONGEST_HOLD) if falls else 0.0

    def clear(self) -> None:
        """Nothing of the past counts: the network is another one."""
        self._falls.clear()
