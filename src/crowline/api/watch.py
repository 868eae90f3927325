"""Once a second: is the other side still there, and is there a path that can go on?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol

from crowline.base.errors import CrowlineError, Interrupted, NobodyCame, NoPath

# Seconds in which a path must be found, at the beginning and whenever there is none; link zero counts as
# one while it can carry the rest. Checks are sent at 0, 0.5, 1.5, 3.5 and 7.5 s (RFC 8489 §6.2.1), so five
# of them have been lost by then.
PATH_LIMIT = 10.0
# Seconds without a word on any link, each of which is pinged every 5 s, until the other side counts as gone.
SILENCE_LIMIT = 16.0
# The same once the hub has said that the other side left; the links are asked again in the meantime.
LEFT_LIMIT = 3.0
# Seconds after that news in which packets may still be ones that were on their way.
_IN_FLIGHT = 1.0
_INTERVAL = 1.0

# What follows is for two sides that can meet again. Seconds without any path until people are told: a change
# of networks takes less.
TELL_AFTER = 3.0
# Until the way to the hub is tried, and how often it is again: a translator that began anew lets nothing in.
VERIFY_AFTER, VERIFY_EVERY = 2.0, 5.0
# Until this side looks for the other one elsewhere, and how often again: a side that has to reach the hub
# again, as after a change of networks, does so sooner.
SEEK_AFTER, SEEK_EVERY = 5.0, 5.0
# Until all pairs are looked for anew, and the longest time between two such attempts, which double: plans for
# hard translators take ten.
ANEW_AFTER, ANEW_AT_MOST = 2.0, 60.0
# For another process that went away without a word, by the word of a hub that saw its connection end.
HUNG_UP_LIMIT = 30.0
# For everything else, unless people say how long.
DEADLINE = 1200.0

PATH_BROKE = "The path broke; looking for the other side again."
PATH_BROKE_HINT = "Ctrl-C stops; running the same command again resumes."


class Rescuer(Protocol):
    """What can be done while nothing works."""

    def tell_lost(self) -> None:
        """Let people know."""

    def verify(self) -> None:
        """See whether the way to the hub works."""

    def begin_anew(self) -> None:
        """Have both sides look for all pairs anew."""

    def seek(self, *, is_absent: bool) -> None:
        """Look for the other side elsewhere, where this meeting cannot help; if `is_absent`, it cannot."""


class Watch:
    """Begins when both sides are there. `on_verdict` is called once, with the error that ends the meeting.

    `no_path` is what to say where there is no server; nothing but direct paths can be meant. With a `rescuer`
    a session in which bytes could flow outlives all its paths until `deadline` seconds have passed;
    `lost_since` says since when it has none.
    """

    def __init__(
        self,
        *,
        is_stuck: Callable[[], bool],
        direct_only: bool,
        on_verdict: Callable[[CrowlineError], None],
        no_path: Callable[[], NoPath] | None = None,
        rescuer: Rescuer | None = None,
        lost_since: Callable[[], float | None] = lambda: None,
        deadline: float = DEADLINE,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_stuck = is_stuck
        self._direct_only = direct_only
        self._on_verdict = on_verdict
        self._no_path_words = no_path
        self._rescuer = rescuer
        self._lost_since = lost_since
        self._deadline = deadline
        self._heard_at = self._loop.time()
        # Since when there has been no path that can go on.
        self._stuck_since: float | None = self._heard_at
        self._left_at: float | None = None
        self._is_silent = False
        self.usable = False
        # Whether there has ever been a path besides link zero.
        self.has_had_pair = False
        self._outage: _Outage | None = None
        self._timer = self._loop.call_later(_INTERVAL, self._look)

    def heard(self, now: float) -> None:
        """Something came from the other side itself."""
        self._heard_at = now

    def left(self, *, is_silent: bool = False) -> None:
        """The hub says that the other side is not connected to it; if `is_silent`, nobody saw it go."""
        if self._left_at is None:
            self._left_at = self._loop.time()
        self._is_silent = is_silent

    def returned(self) -> None:
        """It is."""
        self._left_at = None
        self._heard_at = self._loop.time()

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        verdict = self._judge(self._loop.time())
        if verdict is not None:
            self._on_verdict(verdict)
            return
        self._timer = self._loop.call_later(_INTERVAL, self._look)

    def _judge(self, now: float) -> CrowlineError | None:
        if self._rescuer is not None and self.usable:
            return self._judge_outage(now, self._rescuer)
        if self._left_at is not None and now - self._left_at > LEFT_LIMIT:
            if self._heard_at < self._left_at + _IN_FLIGHT:
                return self._departed()
            self._left_at = None
        if now - self._heard_at > SILENCE_LIMIT:
            return self._departed()
        return self._judge_stuck(now)

    def _judge_stuck(self, now: float) -> CrowlineError | None:
        if not self._is_stuck():
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > PATH_LIMIT:
            return self._no_path()
        return None

    def _judge_outage(self, now: float, rescuer: Rescuer) -> CrowlineError | None:
        if not self.has_had_pair and (verdict := self._judge_stuck(now)) is not None:
            return verdict
        since = self._out_since(now)
        if since is None:
            self._outage = None
            return None
        if self._outage is None:
            self._outage = _Outage(since)
        if (hung_up_at := self._hung_up_at()) is not None and now - max(since, hung_up_at) > HUNG_UP_LIMIT:
            return self._departed()
        if now - since > self._deadline:
            return self._departed()
        is_absent = self._left_at is not None and now - self._left_at > SEEK_AFTER
        self._outage.act(now, rescuer, is_absent=is_absent)
        return None

    def _hung_up_at(self) -> float | None:
        """When the other process ended its connection to the hub, unless it has shown since that it lives: a
        side may lose the hub alone.
        """
        if self._left_at is None or self._is_silent or self._heard_at > self._left_at + LEFT_LIMIT:
            return None
        return self._left_at

    def _out_since(self, now: float) -> float | None:
        """Since when nothing works, if so. What worked once may again, and is waited for; where link zero was
        all that ever worked, there is no hope beyond it.
        """
        since = self._lost_since()
        if since is None and now - self._heard_at > SILENCE_LIMIT:
            since = self._heard_at
        if since is None and self.has_had_pair:
            self._stuck_since = (self._stuck_since or now) if self._is_stuck() else None
            since = self._stuck_since
        return since

    def _departed(self) -> CrowlineError:
        if self.usable:
            return Interrupted("The other side went away.", hint="Run the same command again on both sides.")
        return NobodyCame("The other side went away before a connection was made.")

    def _no_path(self) -> NoPath:
        if self._no_path_words is not None:
            return self._no_path_words()
        if self._direct_only:
            return NoPath(
                "No direct path was found, and nothing else is allowed.",
                hint="Allow a relay by leaving out --direct-only.",
            )
        return NoPath(
            "No path but the server's own connection works, and its allowance for one meeting is used up.",
            hint="UDP and TURN over TCP seem to be blocked on one side: open one, or let the server's owner "
            "raise the allowance (crowline serve --budget or --hub-rate).",
        )


class _Outage:
    """A time without any path, and what has been done about it."""

    def __init__(self, since: float) -> None:
        self._verify_at = since + VERIFY_AFTER
        self._seek_at = since + SEEK_AFTER
        self._anew_at = since + ANEW_AFTER
        self._anew_interval = 8 * ANEW_AFTER
        self._tell_at: float | None = since + TELL_AFTER

    def act(self, now: float, rescuer: Rescuer, *, is_absent: bool) -> None:
        if self._tell_at is not None and now >= self._tell_at:
            self._tell_at = None
            rescuer.tell_lost()
        if now >= self._verify_at:
            self._verify_at = now + VERIFY_EVERY
            rescuer.verify()
        if now >= self._anew_at:
            self._anew_at = now + self._anew_interval
            self._anew_interval = min(2 * self._anew_interval, ANEW_AT_MOST)
            rescuer.begin_anew()
        if now >= self._seek_at:
            self._seek_at = now + SEEK_EVERY
            rescuer.seek(is_absent=is_absent)
