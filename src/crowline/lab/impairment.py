"""What a line does to packets: delay, jitter, loss, reordering, duplication, a largest size, a rate, a queue.

Sizes count the IP packet. All chance comes from the generator that a `Line` was built with.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass

from crowline.base.errors import UsageError

IPV4_UDP_HEADERS = 28  # bytes of IPv4 and UDP header
IPV6_UDP_HEADERS = 48
DEFAULT_QUEUE = 64 * 1024  # bytes: what a home router keeps, 50 ms at 10 Mbit/s
NEVER = ()


@dataclass(frozen=True, slots=True)
class GilbertElliott:
    """Loss in bursts: a good and a bad state, entered and left before each packet with these probabilities.

    `good` and `bad` are the shares lost in each state (Gilbert 1960 with 0 and 1, Elliott 1963).
    """

    enter: float
    leave: float
    good: float = 0.0
    bad: float = 1.0

    def __post_init__(self) -> None:
        for share in (self.enter, self.leave, self.good, self.bad):
            _check_share(share)

    @classmethod
    def of_bursts(cls, loss: float, burst: float) -> GilbertElliott:
        """Bursts of `burst` packets on average that make up the share `loss` of all packets."""
        if burst < 1 or not 0 <= loss < 1:
            raise UsageError("a burst has at least one packet, and not everything is lost")
        leave = 1 / burst
        enter = loss * leave / (1 - loss)
        if enter > 1:
            raise UsageError("so much loss needs longer bursts")
        return cls(enter, leave)

    @property
    def mean(self) -> float:
        """The share lost in the long run."""
        if self.enter + self.leave == 0:
            return self.good
        in_bad = self.enter / (self.enter + self.leave)
        return in_bad * self.bad + (1 - in_bad) * self.good


@dataclass(frozen=True, slots=True)
class Impairment:
    """One direction of a line.

    `delay` is in seconds; `jitter` adds up to so many more, evenly spread, and keeps the order of packets,
    as a queue elsewhere does. `loss` is a share or a model of bursts. `reorder` is the share of packets that
    are held back by `reorder_delay` seconds and so come after later ones; `duplicate` the share that comes
    twice. `mtu` is the largest IP packet in bytes; what is larger vanishes, as UDP does where ICMP is
    filtered. `rate` is in bytes a second; up to `queue` bytes wait for their turn, the rest is dropped.
    """

    delay: float = 0.0
    jitter: float = 0.0
    loss: float | GilbertElliott = 0.0
    reorder: float = 0.0
    reorder_delay: float = 0.01
    duplicate: float = 0.0
    mtu: int | None = None
    rate: float | None = None
    queue: int = DEFAULT_QUEUE

    def __post_init__(self) -> None:
        if min(self.delay, self.jitter, self.reorder_delay) < 0:
            raise UsageError("no line carries packets into the past")
        if self.rate is not None and self.rate <= 0:
            raise UsageError("a rate is more than nothing")
        for share in (self.reorder, self.duplicate):
            _check_share(share)
        if not isinstance(self.loss, GilbertElliott):
            _check_share(self.loss)


class Line:
    """One direction of a line with its state: the queue, the burst it is in, the packet before."""

    def __init__(self, impairment: Impairment, chance: random.Random, counters: Counter[str]) -> None:
        """`counters` gets what was dropped, by reason."""
        self.impairment = impairment
        self._chance = chance
        self._counters = counters
        self._in_burst = False
        self._free_at = 0.0  # when the last queued byte has left
        self._last = 0.0  # arrival of the latest packet that kept its place

    def carry(self, size: int, now: float) -> tuple[float, ...]:
        """When a packet of `size` bytes arrives: no time if it is lost, two if it comes twice."""
        how = self.impairment
        if how.mtu is not None and size > how.mtu:
            self._counters["too big"] += 1
            return NEVER
        if self._is_lost():
            self._counters["lost"] += 1
            return NEVER
        left = self._leave_queue(size, now)
        if left is None:
            self._counters["queue full"] += 1
            return NEVER
        arrival = left + how.delay
        if how.jitter:
            arrival += how.jitter * self._chance.random()
        if how.reorder and self._chance.random() < how.reorder:
            arrival += how.reorder_delay
        else:
            arrival = self._last = max(arrival, self._last)
        if how.duplicate and self._chance.random() < how.duplicate:
            return (arrival, arrival)
        return (arrival,)

    def _is_lost(self) -> bool:
        loss = self.impairment.loss
        if not isinstance(loss, GilbertElliott):
            return loss > 0 and self._chance.random() < loss
        change = loss.leave if self._in_burst else loss.enter
        if self._chance.random() < change:
            self._in_burst = not self._in_burst
        share = loss.bad if self._in_burst else loss.good
        return share > 0 and self._chance.random() < share

    def _leave_queue(self, size: int, now: float) -> float | None:
        """When the last byte of the packet is on the line; ``None`` when the queue has no room for it."""
        rate = self.impairment.rate
        if rate is None:
            return now
        waiting = max(0.0, self._free_at - now) * rate
        if waiting + size > max(self.impairment.queue, size):
            return None
        self._free_at = max(now, self._free_at) + size / rate
        return self._free_at


def _check_share(share: float) -> None:
    if not 0 <= share <= 1:
        raise UsageError(f"{share} is not a share of 1")
