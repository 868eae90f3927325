"""The ways a transfer ends early, as either machine reports them."""

from __future__ import annotations

from dataclasses import dataclass

from crowline.transfer.messages import Reason


@dataclass(frozen=True, slots=True)
class PeerStopped:
    """The other side gave up, and says why. `sentence` is its text raw: escape it before showing it."""

    reason: Reason
    sentence: str


@dataclass(frozen=True, slots=True)
class PeerBroke:
    """The other side sent what makes no sense here; it has been told."""

    sentence: str


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The stream ended before the transfer did."""


Ending = PeerStopped | PeerBroke | PeerLeft
