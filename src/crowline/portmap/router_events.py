"""What the client of one router says to its owner, whichever protocol it was. Numbers are those of `open`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.portmap.upnp.listing import ListedPort


class Protocol(Enum):
    """How routers are asked, the better ones first: with UPnP some know only mappings that never end."""

    PCP = "PCP"
    NAT_PMP = "NAT-PMP"
    UPNP = "UPnP"


@dataclass(frozen=True, slots=True)
class ProtocolFound:
    """The router speaks that protocol."""

    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Settled:
    """Every protocol has been tried: what the router speaks is known. Said once."""


@dataclass(frozen=True, slots=True)
class RouterSilent:
    """Every protocol was tried, and none is spoken; it is tried again from time to time."""


@dataclass(frozen=True, slots=True)
class OutsideIs:
    """The router's outside address, at first and whenever it changes; ``None`` where it has none that makes
    sense. It may be private, where there is another router outside of this one."""

    host: str | None


@dataclass(frozen=True, slots=True)
class Opened:
    """`port` of the router leads to the inside port from now on; also when something of that has changed.

    `outside` has the host that the router names; ``None`` where it names none.
    """

    number: int
    port: int
    outside: Address | None
    lifetime: float
    protocol: Protocol


@dataclass(frozen=True, slots=True)
class Renewed:
    """It stays open for `lifetime` seconds more."""

    number: int
    lifetime: float


@dataclass(frozen=True, slots=True)
class Lost:
    """It is open no more; it is asked for anew."""

    number: int
    words: str


@dataclass(frozen=True, slots=True)
class Refused:
    """No protocol opens it; `words` says why. It is asked for again from time to time."""

    number: int
    words: str


@dataclass(frozen=True, slots=True)
class Closed:
    """The owner's `close` is done. Not `confirmed`: it may be open until its lifetime ends."""

    number: int
    confirmed: bool


@dataclass(frozen=True, slots=True)
class PortsListed:
    """What the router has open for all hosts of its network, as far as UPnP tells."""

    ports: tuple[ListedPort, ...]


RouterEvent: TypeAlias = (
    ProtocolFound
    | Settled
    | RouterSilent
    | OutsideIs
    | Opened
    | Renewed
    | Lost
    | Refused
    | Closed
    | PortsListed
)
