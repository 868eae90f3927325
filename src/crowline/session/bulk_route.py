"""Whether bulk goes by the link that is best for everything else, or by another one that was found faster.

A QUIC link halves its window for each loss that a path makes, and so uses little of a long path that loses
one packet in a hundred. The kernel's TCP may do better there (BBR), or worse: that is not foreseen but tried.

Rules of this file
1. Only bulk is moved: bytes that have waited for their link without a pause. When they pause, everything
   goes by the natural link again.
2. The other link is tried when the natural one is slow although no queue stands before the narrow place of
   the path, which they share: then it may have more to give. The other keeps what it carries if that gets
   `GAIN` times the rate.
3. Between near machines the processors are what is narrow, and the kernel's TCP asks less of them. There the
   other link is used without a trial once bulk is fast, and left if it turns out to be much slower.
4. A trial that is lost makes the next one wait, twice as long each time, unless the natural link has become
   much slower than the other was. What was won is given back when it gets no better than what the natural
   link had.
"""

from __future__ import annotations

from msgspec import Struct

from crowline.session.throughput import Throughput

# Bytes a second above which a link is fast enough: what is left to gain there is the processor's business.
FAST = 40e6
# How many times faster the other link must be.
GAIN = 1.25
# Seconds of a round trip without load up to which machines are near: on one machine or in one network.
NEAR = 0.003
# The part of the rate before, in that first short time, below which the other link of near machines is left.
_NEAR_SHARE = 0.5
# Seconds, and round trips, of one trial; the last of them, `throughput.WINDOW`, are what counts.
TRIAL = 2.5
_TRIAL_ROUND_TRIPS = 30
# Seconds of waiting bytes after which bulk goes at once by a link that has won before.
KNOWN_AFTER = 0.3
# Seconds without waiting bytes after which everything goes by the natural link again.
PAUSE = 1.0
# The same between near machines, where nothing waits for long behind bulk: a source that is faster than one
# link and slower than the other leaves pauses on the faster one only.
_NEAR_PAUSE = 10.0
# Seconds until the next trial after one that was lost, the first time and at most; and after one that ended
# because the other link did.
FIRST_REST = 60.0
LONGEST_REST = 600.0
_AFTER_AN_END = 5.0
# How many times slower than the other one was, and seconds since then, for another trial before that.
_MUCH = 3.0
_SHORTEST_REST = 5.0
# Seconds between two wishes for a second link.
WISH_INTERVAL = 10.0
# A path that takes so many times its idle round trip, and so many seconds more, has a queue before its narrow
# place: it is full. Two flows that share a queue of one round trip leave a third of it when both back off; a
# busy machine lets a ping wait for some milliseconds.
_QUEUE_SHARE = 1.15
_QUEUE_DELAY = 0.015
# Seconds that what the link left behind needs to arrive, above which it is sent again at once.
_DRAIN = 1.0


class Natural(Struct, frozen=True):
    """The link that is best for everything else; `rtt` is its round trip without any load, in seconds."""

    link: int
    rtt: float


class Other(Struct, frozen=True):
    """A link beside it that may be tried; `rtt` is its round trip of late, None until that is known."""

    link: int
    rtt: float | None


class Verdict(Struct, frozen=True):
    """`link` carries the streams from now on. With `resends`, what the one before carried goes again."""

    link: int
    reason: str = ""
    resends: bool = False


class BulkRoute:
    """Decides between two links; tell it what happens on the one that carries."""

    def __init__(self) -> None:
        self.meter = Throughput()
        self._natural: int | None = None
        self._other: int | None = None
        self._is_away = False
        self._pause = PAUSE
        self._trial_until: float | None = None
        # What the natural link had, and the link that was found to be faster.
        self._base = 0.0
        self._winner: int | None = None
        # What the other one had when it lost, and when that was.
        self._lost: tuple[float, float] | None = None
        self._rest = FIRST_REST
        self._not_before = float("-inf")
        self._wish_at = float("-inf")
        self._wishes = False

    def take_wish(self) -> bool:
        """Whether a second link is wished for; said once each time."""
        wishes, self._wishes = self._wishes, False
        return wishes

    def decide(
        self, natural: Natural | None, other: Other | None, on_the_way: int, now: float
    ) -> Verdict | None:
        """The link for the streams; None without any. `on_the_way`: bytes given to links that nobody has
        acknowledged."""
        self.meter.look(now)
        if natural is None:
            self._forget(None)
            return None
        if natural.link != self._natural:
            if other is not None and other.link in (self._other, self._winner):
                self._natural = natural.link  # in place of one on the same path
            else:
                self._forget(natural.link)
        if not self._is_away:
            return self._stay(natural, other, on_the_way, now)
        if other is None or other.link != self._other:
            self._not_before = now + _AFTER_AN_END
            return self._return(natural, now)
        if self._trial_until is not None:
            return self._judge(natural, now)
        return self._keep(natural, now)

    def next_timeout(self) -> float | None:
        """When to decide again, although nothing happens."""
        if not self._is_away:
            return None
        pause = self.meter.last_full + self._pause
        return pause if self._trial_until is None else min(pause, self._trial_until)

    # ------------------------------------------------------------------------------------------------

    def _stay(self, natural: Natural, other: Other | None, on_the_way: int, now: float) -> Verdict:
        verdict = Verdict(natural.link)
        if other is not None and other.link == self._winner:
            if self.meter.busy_for(now) < KNOWN_AFTER:
                return verdict
            return self._leave(other.link, on_the_way, now, "it was better for bulk before")
        if 0 < natural.rtt <= NEAR and (rate := self.meter.so_far(now)) is not None and rate >= FAST:
            return self._stay_near(verdict, other, on_the_way, rate, now)
        rate = self.meter.rate(now, natural.rtt)
        if rate is None or rate >= FAST or not self._is_rested(rate, now):
            return verdict
        if other is None:
            self._wish(now)
            return verdict
        if other.rtt is None or _has_queue(natural.rtt, other.rtt):
            return verdict
        self._base = rate
        self._trial_until = now + max(TRIAL, _TRIAL_ROUND_TRIPS * natural.rtt)
        return self._leave(
            other.link, on_the_way, now, f"a trial, since the path before brings {_rate(rate)}"
        )

    def _stay_near(
        self, verdict: Verdict, other: Other | None, on_the_way: int, rate: float, now: float
    ) -> Verdict:
        if now < self._not_before:
            return verdict
        if other is None:
            self._wish(now)
            return verdict
        self._base, self._winner, self._pause = _NEAR_SHARE * rate, other.link, _NEAR_PAUSE
        return self._leave(other.link, on_the_way, now, "it asks less of the processors")

    def _wish(self, now: float) -> None:
        if now >= self._wish_at:
            self._wishes, self._wish_at = True, now + WISH_INTERVAL

    def _is_rested(self, rate: float, now: float) -> bool:
        if now >= self._not_before:
            return True
        if self._lost is None:
            return False
        other, since = self._lost
        return _MUCH * rate <= other and now >= since + _SHORTEST_REST

    def _leave(self, other: int, on_the_way: int, now: float, reason: str) -> Verdict:
        self._is_away, self._other = True, other
        self.meter.restart(now)
        return Verdict(other, reason, resends=on_the_way > _DRAIN * self._base)

    def _judge(self, natural: Natural, now: float) -> Verdict:
        assert self._other is not None and self._trial_until is not None
        if now < self._trial_until and now < self.meter.last_full + PAUSE:
            return Verdict(self._other)
        self._trial_until = None
        rate = self.meter.rate(now, natural.rtt)
        if rate is None:  # the bulk has ended before anything was known
            return self._return(natural, now)
        if rate >= GAIN * self._base:
            self._winner, self._rest = self._other, FIRST_REST
            return Verdict(self._other)
        return self._lose(natural, now, rate)

    def _keep(self, natural: Natural, now: float) -> Verdict:
        assert self._other is not None
        if now >= self.meter.last_full + self._pause:
            return self._return(natural, now)
        rate = self.meter.rate(now, natural.rtt)
        if rate is not None and rate < self._base:
            return self._lose(natural, now, rate)
        return Verdict(self._other)

    def _lose(self, natural: Natural, now: float, rate: float) -> Verdict:
        self._winner, self._lost = None, (rate, now)
        self._not_before = now + self._rest
        self._rest = min(2 * self._rest, LONGEST_REST)
        reason = f"the other path brings {_rate(rate)}, and this one {_rate(self._base)}"
        return self._return(natural, now, reason)

    def _return(self, natural: Natural, now: float, reason: str = "") -> Verdict:
        self._is_away, self._other, self._trial_until = False, None, None
        self.meter.restart(now)
        return Verdict(natural.link, reason)

    def _forget(self, natural: int | None) -> None:
        """Another link is the natural one: nothing of what was measured is about it."""
        self._natural = natural
        self._is_away, self._other, self._trial_until, self._winner = False, None, None, None
        self._rest, self._not_before, self._lost = FIRST_REST, float("-inf"), None
        self._pause = PAUSE
        self.meter = Throughput()


def _has_queue(idle: float, rtt: float) -> bool:
    """Whether packets wait on the path itself: both links share it."""
    return rtt > _QUEUE_SHARE * idle + _QUEUE_DELAY


def _rate(rate: float) -> str:
    return f"{rate / 1e6:.1f} MB/s"
