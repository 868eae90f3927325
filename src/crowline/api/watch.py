"""Once a second: is the other side still there, and is there a path that can go on?"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

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


class Watch:
    """Begins when both sides are there. `on_verdict` is called once, with the error that ends the meeting.

    `no_path` is what to say where there is no server; nothing but direct paths can be meant.
    """

    def __init__(
        self,
        *,
        is_stuck: Callable[[], bool],
        direct_only: bool,
        on_verdict: Callable[[CrowlineError], None],
        no_path: Callable[[], NoPath] | None = None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._is_stuck = is_stuck
        self._direct_only = direct_only
        self._on_verdict = on_verdict
        self._no_path_words = no_path
        self._heard_at = self._loop.time()
        # Since when there has been no path that can go on.
        self._stuck_since: float | None = self._heard_at
        self._left_at: float | None = None
        self.usable = False
        self._timer = self._loop.call_later(_INTERVAL, self._look)

    def heard(self, now: float) -> None:
        """Something came from the other side itself."""
        self._heard_at = now

    def left(self) -> None:
        """The hub says that the other side is not connected to it any more."""
        self._left_at = self._loop.time()

    def close(self) -> None:
        self._timer.cancel()

    def _look(self) -> None:
        verdict = self._judge(self._loop.time())
        if verdict is not None:
            self._on_verdict(verdict)
            return
        self._timer = self._loop.call_later(_INTERVAL, self._look)

    def _judge(self, now: float) -> CrowlineError | None:
        if self._left_at is not None and now - self._left_at > LEFT_LIMIT:
            if self._heard_at < self._left_at + _IN_FLIGHT:
                return self._departed()
            self._left_at = None
        if now - self._heard_at > SILENCE_LIMIT:
            return self._departed()
        if not self._is_stuck():
            self._stuck_since = None
        elif self._stuck_since is None:
            self._stuck_since = now
        elif now - self._stuck_since > PATH_LIMIT:
            return self._no_path()
        return None

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
