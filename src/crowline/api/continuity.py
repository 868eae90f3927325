"""Whether who comes to a later meeting goes on with the same session, or is another process of that side."""

from __future__ import annotations

import os
from enum import Enum, auto

from crowline.base.secrets import Secret
from crowline.rendezvous.keys import derive
from crowline.rendezvous.signals import SESSION_BYTES, Continuation


class Relation(Enum):
    """What the other side's first words say."""

    SAME = auto()
    """It goes on with the session of these two."""
    NEW = auto()
    """It begins a session, as this side does."""
    RESTARTED = auto()
    """It begins a session, but this side is in the middle of one: the other process is gone."""
    STALE = auto()
    """It is in the middle of a session with an earlier process of this side, and is about to learn that."""


class Continuity:
    """One end of one session. `session` is drawn by lot and tells it from all others."""

    def __init__(self) -> None:
        self.session = os.urandom(SESSION_BYTES)
        self._peer = b""

    def words(self, key: Secret | None) -> Continuation:
        """What the other side has to hear first. `key`: the session's, if it has one."""
        return Continuation(self.session, self._peer, _name(key))

    def hear(self, words: Continuation, key: Secret | None) -> Relation:
        """Its first words; a session that begins is that of these two from now on.

        Of a session that one side took for begun, and the other did not, nothing can go on.
        """
        is_meant = words.peer in (b"", self.session)
        if key is None:
            if words.key or not is_meant:
                return Relation.STALE
        elif self._peer:
            is_same = is_meant and words.session == self._peer and words.key == _name(key)
            return Relation.SAME if is_same else Relation.RESTARTED
        elif not is_meant or words.key not in (b"", _name(key)):
            return Relation.RESTARTED
        self._peer = words.session
        return Relation.NEW


def _name(key: Secret | None) -> bytes:
    return derive(key, "session-name", SESSION_BYTES).reveal() if key is not None else b""
