"""One link of a session: what is known of its path, and how far it is trusted."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from enum import IntEnum
from typing import Protocol, runtime_checkable

from msgspec import Struct, field

from crowline.base.machine import Buffer
from crowline.session.ways import Way

# Seconds between pings on a link that works; they keep its NAT bindings (RFC 4787 §4.3: two minutes) and
# tell its round trip.
PING_INTERVAL = 5.0
# The same while a link is new, or must show that it works.
QUICK_PING = 0.5
# Seconds without receipt, while sending, that no link is blamed for.
MIN_STALL = 0.5
# The same while another link has answered in the meantime: then it is neither the other side that is slow
# nor this one.
MIN_QUICK_STALL = 0.1
_STALL_ROUND_TRIPS = 3
_QUICK_STALL_ROUND_TRIPS = 2.5
# Seconds, or round trips, after which both are asked.
_MIN_DOUBT = 0.04
_DOUBT_ROUND_TRIPS = 1.25
# Round trips remembered for each link: 40 s of them.
RTT_SAMPLES = 8
# As many are needed before round trips are compared.
ENOUGH_SAMPLES = 3
# A round trip is shorter than another when it is less by a fifth and by 2 ms: more than noise.
RTT_SHARE = 0.8
RTT_MARGIN = 0.002


class Carrier(Protocol):
    """What a session needs of a link."""

    @property
    def unanswered_since(self) -> float | None:
        """When the link first sent something that nothing has been received after."""

    def room(self) -> int:
        """Stream bytes that may be appended now; control frames are always taken."""

    def send(self, data: Buffer, now: float) -> None:
        """Append bytes."""


@runtime_checkable
class DatagramCarrier(Carrier, Protocol):
    """A carrier that also takes datagrams, each as a packet of its own."""

    @property
    def max_datagram_size(self) -> int:
        """Bytes of a datagram that it takes now; 0 where it takes none."""

    def send_datagram(self, data: Buffer, now: float) -> bool:
        """Send `data` once; False where there is no room for it."""


class Trust(IntEnum):
    """How far a link may be used, least first."""

    AILING = 0
    """Silent, or nothing of what it carries arrives."""
    ON_TRIAL = 1
    """It answers again after it ailed, or is only there until another link is."""
    SOUND = 2


class Hints(Struct, frozen=True):
    """What is known of a link before the session has used it.

    `merit` orders links of one rank until their round trips are known; two of the same rank and merit use the
    same path. Without one (0) a link has a path of its own. `rtt` is the round trip as it was measured below
    the link, in seconds; links of one `path` (not 0) have the same, whatever is measured while they are in
    use. A `makeshift` link is left for any other that answers; the path of one that
    `is_fading` will not last, so that it is left for any other of its rank. One that `is_for_bulk` may be
    faster than its round trip tells.
    """

    merit: int = 0
    rtt: float | None = None
    makeshift: bool = False
    is_fading: bool = False
    is_for_bulk: bool = False
    path: int = 0


class Member(Struct):
    carrier: Carrier
    way: Way
    hints: Hints
    ping_at: float
    # The carrier, where it also takes datagrams.
    datagrams: DatagramCarrier | None = None
    # Its path will not last; another of its rank goes before it.
    fading: bool = False
    # Round trips of the last pings, and the least of them.
    samples: deque[float] = field(default_factory=lambda: deque(maxlen=RTT_SAMPLES))
    least: float | None = None
    stalled: bool = False
    # Since when nothing of what it carried has arrived, although the link itself was heard.
    stuck_since: float | None = None
    # When the trial began and when it may end.
    trial: tuple[float, float] | None = None
    # Since when it had been silent when it was left early, and how long it had carried the streams by then.
    doubted_since: float | None = None
    carried_before: float | None = None
    # When the last ping was sent that it has answered.
    answered: float = -math.inf
    # Left while it ailed: what it carried has gone to another link.
    abandoned: bool = False
    # Another link of its rank was measured to be shorter and took over.
    outdone: bool = False
    # Since when its round trip has been shorter than that of the chosen link.
    shorter_since: float | None = None
    pings: dict[int, float] = field(default_factory=dict)

    @property
    def rtt(self) -> float | None:
        """The least of the last samples: pings wait behind stream bytes, the path itself does not."""
        return self.hints.rtt if self.least is None else self.least

    @property
    def idle_rtt(self) -> float | None:
        """The round trip of the path itself, as far as that is known."""
        known = [rtt for rtt in (self.hints.rtt, self.rtt) if rtt is not None]
        return min(known, default=None)

    @property
    def recent_rtt(self) -> float | None:
        """The middle one of the last few: with a queue on the path that comes and goes with its flows."""
        if not self.is_measured():
            return None
        return sorted(list(self.samples)[-ENOUGH_SAMPLES:])[ENOUGH_SAMPLES // 2]

    def measure_anew(self, now: float) -> None:
        """Its pings have waited behind stream bytes; from now on they do not."""
        self.samples.clear()
        self.least = None
        self.ping_at = now

    @property
    def is_ailing(self) -> bool:
        return self.stalled or self.stuck_since is not None

    @property
    def ailment(self) -> str:
        """For people, of a link that is left; empty where it works."""
        if self.stalled:
            return "the path before fell silent"
        return "" if self.stuck_since is None else "nothing arrived any more by the path before"

    @property
    def needs_proof(self) -> bool:
        """Whether its pings must be full-size: it may pass nothing but small packets.

        What is makeshift is a stream of somebody else's, where sizes mean nothing and bytes are counted.
        """
        return self.is_doubtful and not self.hints.makeshift

    @property
    def is_doubtful(self) -> bool:
        """Whether it has to show that it works."""
        return self.trial is not None or self.stuck_since is not None

    @property
    def trust(self) -> Trust:
        if self.is_ailing:
            return Trust.AILING
        return Trust.ON_TRIAL if self.trial or self.hints.makeshift else Trust.SOUND

    def doubt_time(self) -> float | None:
        """When there will be reason to ask whether it still works."""
        since = self.carrier.unanswered_since
        return None if since is None else since + max(_DOUBT_ROUND_TRIPS * (self.rtt or 0.0), _MIN_DOUBT)

    def stall_time(self, *, quick: bool = False) -> float | None:
        """When the link will count as stalled if nothing arrives; `quick` while another one answers."""
        since = self.carrier.unanswered_since
        return None if since is None else since + self.longest_silence(quick=quick)

    def longest_silence(self, *, quick: bool = False) -> float:
        """Seconds that the link may be silent while it is sending."""
        if quick:
            return max(_QUICK_STALL_ROUND_TRIPS * (self.rtt or 0.0), MIN_QUICK_STALL)
        return max(_STALL_ROUND_TRIPS * (self.rtt or 0.0), MIN_STALL)

    def look(self, now: float, hold: Callable[[], float]) -> None:
        """See whether it is silent; what answers again is on trial for so many seconds as `hold` says."""
        since, stall = self.carrier.unanswered_since, self.stall_time()
        was = self.stalled
        self.stalled = since is not None and (since == self.doubted_since or now >= (stall or 0.0))
        if was and not self.stalled and (seconds := hold()):
            self.begin_trial(now, seconds)
        self.abandoned &= self.is_ailing

    def begin_trial(self, now: float, hold: float) -> None:
        self.trial = (now, now + hold)
        self.ping_at = min(self.ping_at, now)

    def sent_ping(self, token: int, now: float) -> None:
        quick = self.is_doubtful or len(self.samples) < ENOUGH_SAMPLES
        self.ping_at = now + (QUICK_PING if quick else PING_INTERVAL)
        if len(self.pings) > 8:
            self.pings.clear()
        self.pings[token] = now

    def got_pong(self, token: int, now: float, hold: float) -> bool:
        """An answer to a ping. Whether the link has proven with it that it carries something again."""
        sent = self.pings.pop(token, None)
        if sent is None:
            return False
        self.samples.append(now - sent)
        self.least = min(self.samples)
        self.answered = max(self.answered, sent)
        if self.stuck_since is not None and sent >= self.stuck_since:
            self.stuck_since = None
            self.begin_trial(now, hold)
            return True
        if self.trial is not None and sent >= self.trial[0] and now >= self.trial[1]:
            self.trial = None
        return False

    def shares_path(self, other: Member) -> bool:
        """Whether both use the same path, so that what is measured on one holds for the other."""
        return self.hints.path != 0 and self.hints.path == other.hints.path

    def is_shorter_than(self, other: Member) -> bool:
        """Whether its round trip is less by more than noise."""
        own, others = self.rtt, other.rtt
        return own is not None and others is not None and own < min(RTT_SHARE * others, others - RTT_MARGIN)

    def is_measured(self) -> bool:
        return len(self.samples) >= ENOUGH_SAMPLES

    def timeouts(self) -> list[float]:
        stall = None if self.stalled else self.stall_time()
        return [self.ping_at] if stall is None else [self.ping_at, stall]
