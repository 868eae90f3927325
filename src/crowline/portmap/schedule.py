"""When a request is sent again, and when it is given up."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

Entropy = Callable[[int], bytes]


def fraction(entropy: Entropy) -> float:
    """A number from 0 to below 1."""
    return int.from_bytes(entropy(4), "big") / 2**32


@dataclass(frozen=True, slots=True)
class Schedule:
    """`sends` in all; the wait after the first is `first` seconds and doubles up to `longest`. Each wait is
    stretched or shortened by up to `jitter` of itself."""

    first: float
    sends: int
    longest: float
    jitter: float = 0.0


# RFC 6886 §3.1: given up after 127.75 s.
NAT_PMP = Schedule(0.25, 9, 64.0)
# RFC 6887 §8.1.1, for what nobody waits for. The RFC knows no end; after the last wait, the gateway is looked
# for anew, since it may be another by then.
PCP = Schedule(3.0, 9, 1024.0, 0.1)
# While somebody waits: a gateway is one hop away and answers within milliseconds, so that a lost packet is
# no reason to wait 3 s. From the fifth wait on they are about those of the RFC.
PCP_AWAITED = Schedule(0.25, 13, 1024.0, 0.1)
# Is there a gateway that opens ports? Over after 3.75 s.
PROBE = Schedule(0.25, 4, 2.0)
# A program that ends waits 1.75 s at most: what stays open ends with its lifetime.
CLOSING = Schedule(0.25, 3, 1.0)


class Repeats:
    """One request on its way. `due` is the time of the next send, or of the end."""

    def __init__(self, schedule: Schedule, entropy: Entropy, at: float) -> None:
        self.due = at
        self.sends = 0
        self._schedule = schedule
        self._entropy = entropy
        self._wait = schedule.first

    def send(self, now: float) -> bool:
        """At `due`: whether to send once more; False when it is over."""
        if self.sends == self._schedule.sends:
            return False
        self.sends += 1
        jitter = self._schedule.jitter * (2 * fraction(self._entropy) - 1) if self._schedule.jitter else 0.0
        wait = self._wait * (1 + jitter)
        self.due = now + wait
        self._wait = min(2 * wait, self._schedule.longest)
        return True
