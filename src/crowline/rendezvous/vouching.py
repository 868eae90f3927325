"""What a side asks the hub about addresses of the other side, and for which it may believe an answer."""

from __future__ import annotations

MAX_ASKED_HOSTS = 32
"""Hosts that the hub is asked about: the 64 candidates that the other side may have share them."""


class Vouching:
    """Questions that are open."""

    def __init__(self) -> None:
        # Whether this hub knows the question.
        self.is_known = False
        self._asked: set[str] = set()

    def ask(self, host: str) -> bool:
        """Whether the hub may be asked about `host`, again or for the first time."""
        if not self.is_known or (host not in self._asked and len(self._asked) >= MAX_ASKED_HOSTS):
            return False
        self._asked.add(host)
        return True

    def hear(self, host: str) -> bool:
        """Whether `host` was asked about, and not answered yet."""
        is_asked = host in self._asked
        self._asked.discard(host)
        return is_asked
