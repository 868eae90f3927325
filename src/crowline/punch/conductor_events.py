"""What a conductor of plans says to its driver."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.punch.plan_choice import Fit, Opens, Way
from crowline.punch.punch_signals import PunchSignal
from crowline.punch.round import RoundOutcome


@dataclass(frozen=True, slots=True)
class SignalWanted:
    """The other side has to hear this."""

    signal: PunchSignal


@dataclass(frozen=True, slots=True)
class VouchWanted:
    """Ask the hub whether it saw the other side at that host; on a yes call `host_proven`."""

    host: str


@dataclass(frozen=True, slots=True)
class Adopt:
    """The packet that came from `source` to that socket: make the socket a base, give the packet to ICE."""

    socket: int
    source: Address


@dataclass(frozen=True, slots=True)
class SocketsDone:
    """Close the sockets of all numbers below `below` that were not adopted."""

    below: int


@dataclass(frozen=True, slots=True)
class PlanBegun:
    """A round begins; `name` is what `PlanMemory` knows the plan by."""

    way: Way
    opens: Opens
    fit: Fit
    reason: str
    name: str


@dataclass(frozen=True, slots=True)
class PlanOver:
    """It has ended, after so many packets of this side."""

    way: Way
    opens: Opens
    outcome: RoundOutcome
    sent: int
    name: str


@dataclass(frozen=True, slots=True)
class PlansExhausted:
    """All that was worth a try has been tried.

    `rests`: seconds until it is tried again; ``None``: never, or when the other side, which leads, wants it.
    """

    rests: float | None


ConductorEvent: TypeAlias = (
    SignalWanted | VouchWanted | Adopt | SocketsDone | PlanBegun | PlanOver | PlansExhausted
)
