"""What a conductor of plans says to its driver."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address
from crowline.punch.plan_choice import Fit, Opens, Way
from crowline.punch.punch_signals import PunchSignal
from crowline.punch.round import RoundOutcome


class SignalWanted(Struct, frozen=True):
    """The other side has to hear this."""

    signal: PunchSignal


class VouchWanted(Struct, frozen=True):
    """Ask the hub whether it saw the other side at that host; on a yes call `host_proven`."""

    host: str


class Adopt(Struct, frozen=True):
    """The packet that came from `source` to that socket: make the socket a base, give the packet to ICE."""

    socket: int
    source: Address


class SocketsDone(Struct, frozen=True):
    """Close the sockets of all numbers below `below` that were not adopted."""

    below: int


class PlanBegun(Struct, frozen=True):
    """A round begins; `name` is what `PlanMemory` knows the plan by."""

    way: Way
    opens: Opens
    fit: Fit
    reason: str
    name: str


class PlanOver(Struct, frozen=True):
    """It has ended, after so many packets of this side."""

    way: Way
    opens: Opens
    outcome: RoundOutcome
    sent: int
    name: str


class PlansExhausted(Struct, frozen=True):
    """All that was worth a try has been tried.

    `rests`: seconds until it is tried again; ``None``: never, or when the other side, which leads, wants it.
    """

    rests: float | None


ConductorEvent: TypeAlias = (
    SignalWanted | VouchWanted | Adopt | SocketsDone | PlanBegun | PlanOver | PlansExhausted
)
