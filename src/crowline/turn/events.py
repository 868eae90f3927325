"""What a TURN client tells its user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address


@dataclass(frozen=True, slots=True)
class Allocated:
    """The server relays `relayed` to us, and sees us as `mapped`, for `lifetime` seconds at a time."""

    relayed: Address
    mapped: Address
    lifetime: int


@dataclass(frozen=True, slots=True)
class AllocationFailed:
    """No allocation; `code` is the server's, or 408 when it did not answer. `alternate` comes with a 300."""

    code: int
    reason: str
    alternate: Address | None = None


@dataclass(frozen=True, slots=True)
class AllocationLost:
    """The allocation is gone, and not because we closed it."""

    reason: str


@dataclass(frozen=True, slots=True)
class DataReceived:
    """A datagram that `peer` sent to our relayed address."""

    data: bytes
    peer: Address


@dataclass(frozen=True, slots=True)
class PermissionCreated:
    """The server lets `peer` (any of its ports) reach us."""

    peer: Address


@dataclass(frozen=True, slots=True)
class PermissionRefused:
    """The server will not relay to `peer`."""

    peer: Address
    code: int


@dataclass(frozen=True, slots=True)
class ChannelBound:
    """Data to and from `peer` now travels as ChannelData."""

    peer: Address
    number: int


TurnEvent: TypeAlias = (
    Allocated | AllocationFailed | AllocationLost | DataReceived | PermissionCreated | PermissionRefused
    | ChannelBound
)  # fmt: skip
