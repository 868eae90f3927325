"""The actions of WANIPv6FirewallControl: requests, and what their results say."""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass
from enum import IntEnum

from crowline.base.errors import UsageError
from crowline.portmap.upnp.port_actions import read_number
from crowline.portmap.upnp.soap import Action, Answered

MAX_PINHOLE_LEASE = 86_400
"""Seconds, one day (WANIPv6FirewallControl:1 §2.4.5); an unbounded one does not exist."""


class PinholeProtocol(IntEnum):
    """IANA's numbers, as this service takes them."""

    TCP = 6
    UDP = 17


@dataclass(frozen=True, slots=True)
class Pinhole:
    """Lets everybody reach `port` of `host`, an IPv6 address of this machine, for `lease` seconds."""

    protocol: PinholeProtocol
    host: str
    port: int
    lease: int

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise UsageError("A port is a number from 1 to 65535.")
        if not 1 <= self.lease <= MAX_PINHOLE_LEASE:
            raise UsageError(f"The lease of a pinhole is 1 to {MAX_PINHOLE_LEASE} seconds.")
        try:
            ipaddress.IPv6Address(self.host)
        except ValueError:
            raise UsageError("A pinhole leads to an IPv6 address.") from None


@dataclass(frozen=True, slots=True)
class FirewallStatus:
    """Whether IPv6 is filtered at all, and whether pinholes may be asked for."""

    is_enabled: bool
    allows_pinholes: bool


def get_firewall_status() -> Action:
    return Action("GetFirewallStatus")


def add_pinhole(pinhole: Pinhole) -> Action:
    return Action(
        "AddPinhole",
        (
            ("RemoteHost", ""),
            ("RemotePort", "0"),
            ("InternalClient", pinhole.host),
            ("InternalPort", str(pinhole.port)),
            ("Protocol", str(pinhole.protocol.value)),
            ("LeaseTime", str(pinhole.lease)),
        ),
    )


def update_pinhole(identity: int, lease: int) -> Action:
    return Action("UpdatePinhole", (("UniqueID", str(identity)), ("NewLeaseTime", str(lease))))


def delete_pinhole(identity: int) -> Action:
    return Action("DeletePinhole", (("UniqueID", str(identity)),))


def read_firewall_status(answer: Answered) -> FirewallStatus | None:
    """``None`` where one of the two is missing or no boolean."""
    enabled = _boolean(answer, "firewallenabled")
    allowed = _boolean(answer, "inboundpinholeallowed")
    return None if enabled is None or allowed is None else FirewallStatus(enabled, allowed)


def read_identity(answer: Answered) -> int | None:
    """The number of the pinhole that was added, 16 bits."""
    identity = read_number(answer, "uniqueid")
    return identity if identity is not None and identity < 2**16 else None


def _boolean(answer: Answered, name: str) -> bool | None:
    """UPnP Device Architecture 1.1 §2.5 allows all of these."""
    return {"1": True, "true": True, "yes": True, "0": False, "false": False, "no": False}.get(
        answer.results.get(name, "").lower()
    )
