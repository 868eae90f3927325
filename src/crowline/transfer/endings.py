"""The ways a transfer ends early, as either machine reports them."""

from __future__ import annotations

from msgspec import Struct

from crowline.transfer.messages import Reason


class PeerStopped(Struct, frozen=True):
    """The other side gave up, and says why. `sentence` is its text raw: escape it before showing it."""

    reason: Reason
    sentence: str


class PeerBroke(Struct, frozen=True):
    """The other side sent what makes no sense here; it has been told."""

    sentence: str


class PeerLeft(Struct, frozen=True):
    """The stream ended before the transfer did."""


Ending = PeerStopped | PeerBroke | PeerLeft
