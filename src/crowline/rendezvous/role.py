"""Which side of a meeting one is."""

from __future__ import annotations

from enum import Enum


class Role(Enum):
    """The host has the server make up a number; the other side joins with the code."""

    HOST = "host"
    JOIN = "join"

    @property
    def other(self) -> Role:
        return Role.JOIN if self is Role.HOST else Role.HOST
