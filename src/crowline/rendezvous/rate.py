"""Rates by source: token buckets for as many sources as fit in a bounded table."""

from __future__ import annotations

import ipaddress
from collections import OrderedDict

MAX_SOURCES = 50_000
"""Sources remembered, about 10 MB; beyond that the one longest unseen is forgotten."""


class Bucket:
    """`capacity` tokens at once and `rate` a second after that."""

    __slots__ = ("_capacity", "_rate", "_time", "_tokens")

    def __init__(self, capacity: float, rate: float, now: float) -> None:
        self._capacity = capacity
        self._rate = rate
        self._tokens = capacity
        self._time = now

    def take(self, tokens: float, now: float) -> bool:
        """Whether there were that many; if not, none are taken."""
        self._tokens = min(self._capacity, self._tokens + (now - self._time) * self._rate)
        self._time = now
        if self._tokens < tokens:
            return False
        self._tokens -= tokens
        return True

    def wait(self, tokens: float) -> float:
        """Seconds until there are that many."""
        return max(0.0, tokens - self._tokens) / self._rate


class Pace:
    """Points in time at which bytes may go, `rate` a second, each claim after those before it; 0: at once."""

    __slots__ = ("_free_at", "_rate")

    def __init__(self, rate: int) -> None:
        self._rate = rate
        self._free_at = 0.0

    def book(self, size: int, now: float) -> float:
        """When `size` bytes may go."""
        if not self._rate:
            return now
        start = max(now, self._free_at)
        self._free_at = start + size / self._rate
        return start


class SourceRate:
    """At most `per_minute` events from one source, as many at once."""

    def __init__(self, per_minute: int) -> None:
        self._per_minute = per_minute
        self._buckets: OrderedDict[str, Bucket] = OrderedDict()

    def refuse(self, source: str, now: float) -> int:
        """0 if the event may happen, else the seconds to wait. `source` comes from `source_of`."""
        bucket = self._buckets.get(source)
        if bucket is None:
            bucket = self._buckets[source] = Bucket(self._per_minute, self._per_minute / 60, now)
            if len(self._buckets) > MAX_SOURCES:
                self._buckets.popitem(last=False)
        self._buckets.move_to_end(source)
        if bucket.take(1, now):
            return 0
        return int(bucket.wait(1)) + 1


def source_of(host: str) -> str:
    """What counts as one source: an IPv4 address, or an IPv6 /64, which one subscriber has to himself."""
    address = ipaddress.ip_address(host)
    if isinstance(address, ipaddress.IPv4Address):
        return host
    return str(ipaddress.IPv6Network((address, 64), strict=False))
