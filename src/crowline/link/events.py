"""What every kind of link tells its driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class LinkUp:
    """Both ends are authenticated as far as this end has to check; bytes may be sent."""


@dataclass(frozen=True, slots=True)
class LinkData:
    """The next bytes of the other side, in order."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class LinkDatagram:
    """Bytes that came in a packet of their own, once, late or never."""

    data: bytes | memoryview


@dataclass(frozen=True, slots=True)
class LinkDown:
    """The link carries nothing more. `reason` is for people."""

    reason: str


LinkEvent: TypeAlias = LinkUp | LinkData | LinkDatagram | LinkDown
