"""What a `Meeting` tells its owner."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from crowline.base.errors import CrowlineError
from crowline.base.secrets import Secret
from crowline.rendezvous.code import Code
from crowline.rendezvous.signals import Signal
from crowline.rendezvous.wire import TurnGrant, Welcome


class Welcomed(Struct, frozen=True):
    """The hub is there. Its message of the day has been cut to one short line of printable characters."""

    welcome: Welcome


class CodeReady(Struct, frozen=True):
    """The host's code: show it."""

    code: Code


class PlaceReady(Struct, frozen=True):
    """This side is where the appointment is, and waits for the other one there."""


class TokenReady(Struct, frozen=True):
    """The own token, where two sides meet by tokens: hand it over."""

    text: str


class PeerPresent(Struct, frozen=True):
    """The hub says that both are there; nothing is proven yet."""

    turn: TurnGrant | None


class Keyed(Struct, frozen=True):
    """The other side has proven that it knows the code; key and verifier words are the same on both sides."""

    key: Secret
    verifier: tuple[str, ...]


class Signalled(Struct, frozen=True):
    """The other side's next signal, in the order of sending; only after `Keyed`."""

    signal: Signal


class PeerLeft(Struct, frozen=True):
    """The other side's WebSocket ended. If not `final`, it may come back. `is_silent`: it was not closed, but
    nothing came any more.
    """

    final: bool
    is_silent: bool = False


class PeerReturned(Struct, frozen=True):
    """The other side is back."""


class BudgetGranted(Struct, frozen=True):
    """This side may send `limit` bytes of binary messages in all; if `final`, the hub gives it no more."""

    limit: int
    final: bool


class HostVouched(Struct, frozen=True):
    """The hub has seen the other side at that IP address, for which this side had asked."""

    host: str


class MeetingFailed(Struct, frozen=True):
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
