"""The links of a session: which one carries the streams, and when it is left for another.

A link that has been sending for max(3 round trips, 500 ms) without receipt is stalled; it is left for the
best link that is not, and comes back into question as soon as anything arrives on it.
"""

from __future__ import annotations

from collections import Counter, deque
from dataclasses import dataclass, field
from typing import Protocol

from crowline.base.machine import Buffer

# Seconds between pings on a link that works; they keep its NAT bindings (RFC 4787 §4.3: two minutes) and
# tell its round trip.
PING_INTERVAL = 5.0
# Seconds without receipt, while sending, that no link is blamed for.
MIN_STALL = 0.5
_STALL_ROUND_TRIPS = 3
# Reasons for a choice that lie in the chosen link itself.
FIRST_PATH = "the first path"
BETTER_PATH = "a better path"
# Round trips remembered for each link: 40 s of them.
RTT_SAMPLES = 8


class Carrier(Protocol):
    """What a session needs of a link."""

    @property
    def unanswered_since(self) -> float | None:
        """When the link first sent something that nothing has been received after."""

    def room(self) -> int:
        """Stream bytes that may be appended now; control frames are always taken."""

    def send(self, data: Buffer, now: float) -> None:
        """Append bytes."""


@dataclass(frozen=True, slots=True)
class LinkTransmit:
    """Bytes to append to a link, in this order."""

    link: int
    data: tuple[Buffer, ...]


@dataclass(slots=True)
class _Member:
    carrier: Carrier
    rank: int
    ping_at: float
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=RTT_SAMPLES))
    stalled: bool = False
    # Left while it was stalled: what it carried has gone to another link.
    abandoned: bool = False
    pings: dict[int, float] = field(default_factory=dict)

    @property
    def rtt(self) -> float | None:
        """The least of the last samples: pings wait behind stream bytes, the path itself does not."""
        return min(self.samples, default=None)

    def stall_time(self) -> float | None:
        """When the link will count as stalled if nothing arrives."""
        since = self.carrier.unanswered_since
        return None if since is None else since + max(_STALL_ROUND_TRIPS * (self.rtt or 0.0), MIN_STALL)


class LinkSet:
    """The attached links by their numbers, and the chosen one."""

    def __init__(self) -> None:
        self.chosen: int | None = None
        # Stream bytes sent and received by each link that ever was.
        self.sent: Counter[int] = Counter()
        self.received: Counter[int] = Counter()
        self._members: dict[int, _Member] = {}
        self._token = 0

    def add(self, link: int, carrier: Carrier, rank: int, now: float) -> None:
        self._members[link] = _Member(carrier, rank, ping_at=now)

    def remove(self, link: int) -> bool:
        return self._members.pop(link, None) is not None

    def rtt(self, link: int) -> float | None:
        member = self._members.get(link)
        return member.rtt if member else None

    def room(self, link: int) -> int:
        return self._members[link].carrier.room()

    def is_stalled(self, link: int) -> bool:
        member = self._members.get(link)
        return member is not None and member.stalled

    def choose(self, now: float) -> tuple[int | None, str] | None:
        """Choose the best link; on a change, the one it was before and why."""
        for member in self._members.values():
            stall = member.stall_time()
            member.stalled = stall is not None and now >= stall
            member.abandoned &= member.stalled
        best = max(self._members, key=self._preference, default=None)
        if best == self.chosen:
            return None
        was, self.chosen = self.chosen, best
        if was is None:
            return was, FIRST_PATH
        if self.is_stalled(was):
            return was, "the path before fell silent"
        if was not in self._members:
            return was, "the path before ended"
        return was, BETTER_PATH

    def abandon(self) -> list[int]:
        """Stalled links that are not chosen, each told once for each time it stalls."""
        found = []
        for link, member in self._members.items():
            if member.stalled and link != self.chosen and not member.abandoned:
                member.abandoned = True
                found.append(link)
        return found

    def is_quiet(self, link: int) -> bool:
        """Whether nothing that the link sent waits for an answer, so that it cannot be seen to stall."""
        return self._members[link].carrier.unanswered_since is None

    def ping(self, at: float) -> None:
        """Have every link pinged at `at` at the latest."""
        for member in self._members.values():
            member.ping_at = min(member.ping_at, at)

    def due_pings(self, now: float) -> list[tuple[int, int]]:
        """Links to ping now, each with the token to send."""
        due = []
        for link, member in self._members.items():
            if now < member.ping_at:
                continue
            self._token += 1
            member.ping_at = now + PING_INTERVAL
            if len(member.pings) > 8:
                member.pings.clear()
            member.pings[self._token] = now
            due.append((link, self._token))
        return due

    def pong(self, link: int, token: int, now: float) -> None:
        member = self._members.get(link)
        sent = member.pings.pop(token, None) if member else None
        if member is not None and sent is not None:
            member.samples.append(now - sent)

    def next_timeout(self) -> float | None:
        times = [member.ping_at for member in self._members.values()]
        for member in self._members.values():
            stall = None if member.stalled else member.stall_time()
            if stall is not None:
                times.append(stall)
        return min(times, default=None)

    def _preference(self, link: int) -> tuple[bool, int, float]:
        member = self._members[link]
        return (not member.stalled, member.rank, -(member.rtt if member.rtt is not None else 1.0))
