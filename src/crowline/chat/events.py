"""What a chat tells the program that shows it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias


@dataclass(frozen=True, slots=True)
class Arrived:
    """The other side's next message, the lines of `text` separated by newlines. Escape it before showing."""

    number: int
    text: str


@dataclass(frozen=True, slots=True)
class Delivered:
    """The other side has this side's messages up to `number`."""

    number: int


@dataclass(frozen=True, slots=True)
class Read:
    """The other person has seen this side's messages up to `number`."""

    number: int


@dataclass(frozen=True, slots=True)
class PeerTyping:
    """The other person writes, or does not any more."""

    on: bool


@dataclass(frozen=True, slots=True)
class PeerAway:
    """The other person is away, with a line about it that may be empty, or back. Escape `note`."""

    on: bool
    note: str


@dataclass(frozen=True, slots=True)
class Reachable:
    """Whether there is a path to the other side now. What is said meanwhile is kept, and delivered then."""

    on: bool


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The other side ended the chat; nothing follows."""


@dataclass(frozen=True, slots=True)
class Broken:
    """The other side broke the protocol; nothing follows."""

    reason: str


ChatEvent: TypeAlias = Arrived | Delivered | Read | PeerTyping | PeerAway | Reachable | PeerLeft | Broken
