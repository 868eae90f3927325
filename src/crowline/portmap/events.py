"""What the client of a gateway says to its owner. `number` is that of `MappingClient.open`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crowline.base.addresses import Address
from crowline.portmap.natpmp import NatPmpResult
from crowline.portmap.pcp import PcpResult


class Dialect(Enum):
    """The protocol that a gateway speaks."""

    NAT_PMP = "NAT-PMP"
    PCP = "PCP"


class Trouble(Enum):
    """Why there is no mapping, where no result of the gateway says it."""

    SILENT = "no gateway answers"
    EXPIRED = "the gateway did not renew it in time"
    RESTARTED = "the gateway started anew and has forgotten it"
    OTHER_PORT = "the gateway offers only another outside port"
    TOO_SHORT = "the gateway gives it for too short a time"
    NO_ADDRESS = "the gateway names no outside address that could be reached"
    UNABLE = "the gateway's protocol cannot do that"

    @property
    def words(self) -> str:
        return self.value


Reason = Trouble | NatPmpResult | PcpResult


@dataclass(frozen=True, slots=True)
class GatewayFound:
    """The gateway speaks that protocol."""

    dialect: Dialect


@dataclass(frozen=True, slots=True)
class GatewaySilent:
    """No protocol is answered, or none is spoken; it is tried again in `retry_in` seconds."""

    retry_in: float


@dataclass(frozen=True, slots=True)
class OutsideHost:
    """The gateway's outside address is this, or this from now on. It may be private: behind another
    translator it is no address for strangers."""

    host: str


@dataclass(frozen=True, slots=True)
class PortOpened:
    """Who sends to `outside` reaches the inside port from now on; also when `outside` has changed."""

    number: int
    outside: Address
    lifetime: float


@dataclass(frozen=True, slots=True)
class PortRenewed:
    """It stays open for `lifetime` seconds more."""

    number: int
    lifetime: float


@dataclass(frozen=True, slots=True)
class PortLost:
    """It is open no more; it is asked for anew."""

    number: int
    reason: Reason


@dataclass(frozen=True, slots=True)
class PortRefused:
    """It is not opened; it is asked for again in `retry_in` seconds."""

    number: int
    reason: Reason
    retry_in: float


@dataclass(frozen=True, slots=True)
class PortClosed:
    """The owner's `close` is done. Not `confirmed`: it may be open until its lifetime ends."""

    number: int
    confirmed: bool


PortMapEvent = (
    GatewayFound
    | GatewaySilent
    | OutsideHost
    | PortOpened
    | PortRenewed
    | PortLost
    | PortRefused
    | PortClosed
)
