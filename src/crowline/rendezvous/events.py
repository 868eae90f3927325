"""What a `Meeting` tells its owner."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.errors import CrowlineError
from crowline.base.secrets import Secret
from crowline.rendezvous.code import Code
from crowline.rendezvous.signals import Signal
from crowline.rendezvous.wire import TurnGrant, Welcome


@dataclass(frozen=True, slots=True)
class Welcomed:
    """The hub is there. Its message of the day has been cut to one short line of printable characters."""

    welcome: Welcome


@dataclass(frozen=True, slots=True)
class CodeReady:
    """The host's code: show it."""

    code: Code


@dataclass(frozen=True, slots=True)
class PlaceReady:
    """This side is where the appointment is, and waits for the other one there."""


@dataclass(frozen=True, slots=True)
class TokenReady:
    """The own token, where two sides meet by tokens: hand it over."""

    text: str


@dataclass(frozen=True, slots=True)
class PeerPresent:
    """The hub says that both are there; nothing is proven yet."""

    turn: TurnGrant | None


@dataclass(frozen=True, slots=True)
class Keyed:
    """The other side has proven that it knows the code; key and verifier words are the same on both sides."""

    key: Secret
    verifier: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Signalled:
    """The other side's next signal, in the order of sending; only after `Keyed`."""

    signal: Signal


@dataclass(frozen=True, slots=True)
class PeerLeft:
    """The other side's WebSocket ended. If not `final`, it may come back. `is_silent`: it was not closed, but
    nothing came any more.
    """

    final: bool
    is_silent: bool = False


@dataclass(frozen=True, slots=True)
class PeerReturned:
    """The other side is back."""


@dataclass(frozen=True, slots=True)
class BudgetGranted:
    """This side may send `limit` bytes of binary messages in all; if `final`, the hub gives it no more."""

    limit: int
    final: bool


@dataclass(frozen=True, slots=True)
class HostVouched:
    """The hub has seen the other side at that IP address, for which this side had asked."""

    host: str


@dataclass(frozen=True, slots=True)
class MeetingFailed:
    """The meeting is over; the error says why, and what to do."""

    error: CrowlineError


MeetingEvent: TypeAlias = (
    Welcomed
    | CodeReady
    | PlaceReady
    | TokenReady
    | PeerPresent
    | Keyed
    | Signalled
    | PeerLeft
    | PeerReturned
    | BudgetGranted
    | HostVouched
    | MeetingFailed
)
