"""What every kind of link tells its driver."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct


class LinkUp(Struct, frozen=True):
    """Both ends are authenticated as far as this end has to check; bytes may be sent."""


class LinkData(Struct, frozen=True):
    """The next bytes of the other side, in order."""

    data: bytes | memoryview


class LinkDatagram(Struct, frozen=True):
    """Bytes that came in a packet of their own, once, late or never."""

    data: bytes | memoryview


class LinkDown(Struct, frozen=True):
    """The link carries nothing more. `reason` is for people."""

    reason: str


LinkEvent: TypeAlias = LinkUp | LinkData | LinkDatagram | LinkDown
