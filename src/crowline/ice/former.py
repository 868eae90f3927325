"""Sessions that a restart has ended, as far as their pairs still carry data (RFC 8445 §9, RFC 7675 §5.1)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from msgspec import Struct

from crowline.ice.checks import Credentials
from crowline.ice.pair import ValidPair, Way

# Seconds for which former pairs stay when the new session has agreed on one: what is on its way arrives, and
# whoever builds on pairs can move. RFC 8445 §8.3.1 has candidates wait as long before they are freed.
LINGER = 3.0
# More sessions than that have pairs only where somebody restarts again and again before anything is agreed.
MAX_SESSIONS = 8


class _Former(Struct, frozen=True):
    credentials: Credentials
    pairs: dict[Way, ValidPair]


class FormerSessions:
    """The last session and all older ones that still have pairs in use, each with its own credentials.

    They end `LINGER` seconds after `conclude`. Until then their checks are answered and nothing else comes
    of them: no pair, no triggered check, no nomination.
    """

    def __init__(self) -> None:
        self._sessions: list[_Former] = []
        self._ends: float | None = None
        # What was selected before the restart; data goes there until the new session has a selected pair.
        self.selected: ValidPair | None = None

    def __iter__(self) -> Iterator[ValidPair]:
        for session in self._sessions:
            yield from session.pairs.values()

    def __contains__(self, pair: ValidPair) -> bool:
        return self.find(pair.way) is pair

    def add(self, credentials: Credentials, pairs: Sequence[ValidPair], selected: ValidPair | None) -> None:
        """A restart ended the session of `credentials`; `pairs` go on carrying."""
        self._sessions = [session for session in self._sessions if session.pairs]
        self._sessions.append(_Former(credentials, {pair.way: pair for pair in pairs}))
        self._ends = None
        self.selected = selected or self.selected

    def crowded_out(self) -> list[ValidPair]:
        """The pairs of the oldest sessions, where there are more than are kept."""
        return [pair for session in self._sessions[:-MAX_SESSIONS] for pair in session.pairs.values()]

    def find(self, way: Way) -> ValidPair | None:
        return next((session.pairs[way] for session in self._sessions if way in session.pairs), None)

    def take(self, way: Way) -> ValidPair | None:
        """The pair of that way, which belongs to the new session from now on."""
        return next((each.pairs.pop(way) for each in self._sessions if way in each.pairs), None)

    def remove(self, pair: ValidPair) -> None:
        """`pair` is lost."""
        if self.find(pair.way) is pair:
            self.take(pair.way)
        if self.selected is pair:
            self.selected = None

    def credentials_of(self, pair: ValidPair) -> Credentials | None:
        """What consent for `pair` is asked with; ``None`` for a pair of the present session."""
        return next((each.credentials for each in self._sessions if each.pairs.get(pair.way) is pair), None)

    def credentials_for(self, ufrag: str) -> Credentials | None:
        """Those of the session in which our user fragment was `ufrag`."""
        found = (each.credentials for each in self._sessions if each.credentials.local_ufrag == ufrag)
        return next(found, None)

    def conclude(self, now: float) -> None:
        """The new session has agreed on a pair."""
        self.selected = None
        if self._sessions and self._ends is None:
            self._ends = now + LINGER

    def next_timeout(self) -> float | None:
        return self._ends

    def expired(self, now: float) -> list[ValidPair]:
        """The pairs whose time is over; their sessions have ended with that."""
        if self._ends is None or now < self._ends:
            return []
        pairs = list(self)
        self._sessions.clear()
        self._ends = None
        return pairs
