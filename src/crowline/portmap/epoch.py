"""Whether a gateway has forgotten its mappings, told by the clock that its answers carry."""

from __future__ import annotations


class Epoch:
    """The gateway's clock as it was last seen. `is_strict` is RFC 6887 §8.5, which knows jumps ahead too;
    without it RFC 6886 §3.6 holds."""

    def __init__(self, *, is_strict: bool) -> None:
        self._is_strict = is_strict
        self._last: tuple[int, float] | None = None

    def is_lost(self, seconds: int, now: float) -> bool:
        """Take note of what an answer says; True if the gateway started anew since the one before."""
        last, self._last = self._last, (seconds, now)
        if last is None:
            return False
        served, passed = seconds - last[0], now - last[1]
        if not self._is_strict:
            return served < passed * 7 / 8 - 2
        return served < -1 or passed + 2 < served * 15 / 16 or served + 2 < passed * 15 / 16
