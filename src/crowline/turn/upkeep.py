"""When a client's allocation is to be refreshed, and its path kept open."""

from __future__ import annotations

# A refresh that nobody answers takes 39.5 s to fail; started so early it fails before the allocation does.
REFRESH_MARGIN = 60.0
# Seconds between refreshes at least, whatever lifetime a server may name: real ones name minutes.
MIN_REFRESH_INTERVAL = 1.0
# RFC 8445 §11 asks for 15 s or more between keepalives; NATs of today forget a silent flow after 30 s.
KEEPALIVE_INTERVAL = 20.0


class Upkeep:
    """Nothing is due before the first grant, nor after `stop` until the next."""

    def __init__(self) -> None:
        self._refresh_at: float | None = None
        self._keepalive_at: float | None = None

    @property
    def awaits_refresh(self) -> bool:
        """Whether a refresh lies ahead; ``False`` too while one is under way."""
        return self._refresh_at is not None

    def granted(self, seconds: int, now: float) -> None:
        """The server keeps the allocation for so long from now on."""
        self._refresh_at = now + max(seconds - REFRESH_MARGIN, seconds / 2, MIN_REFRESH_INTERVAL)
        if self._keepalive_at is None:
            self._keepalive_at = now + KEEPALIVE_INTERVAL

    def asked(self) -> None:
        """A refresh is under way."""
        self._refresh_at = None

    def stop(self) -> None:
        self._refresh_at = self._keepalive_at = None

    def is_refresh_due(self, now: float) -> bool:
        return self._refresh_at is not None and now >= self._refresh_at

    def takes_keepalive(self, now: float) -> bool:
        """Whether one is due, which counts as sent then."""
        if self._keepalive_at is None or now < self._keepalive_at:
            return False
        self._keepalive_at = now + KEEPALIVE_INTERVAL
        return True

    def next_timeout(self) -> float | None:
        times = [self._refresh_at, self._keepalive_at]
        return min([time for time in times if time is not None], default=None)
