"""What a TURN client tells its user."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address


@dataclass(frozen=True, slots=True)
class Allocated:
    """The server relays `relayed` to us, and sees us as `mapped`, for `lifetime` seconds at a time.

    Of two relayed addresses each has an event of its own.
    """

    relayed: Address
    mapped: Address
    lifetime: int


@dataclass(frozen=True, slots=True)
class AllocationFailed:
    """No allocation; `code` is the server's, or 408 when it did not answer. `alternate` comes with a 300, and
    `domain` where its certificate has another name than the server's.
    """

    code: int
    reason: str
    alternate: Address | None = None
    domain: str = ""


@dataclass(frozen=True, slots=True)
class AllocationLost:
    """The allocation is gone, and not because we closed it; `reason` is a phrase for people."""

    reason: str


@dataclass(frozen=True, slots=True)
class Moved:
    """The allocation is kept on the new 5-tuple (RFC 8016); data may be sent again."""


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
    """The server will not relay to `peer`; `code` says why (RFC 8656 §19): 403 is a policy."""

    peer: Address
    code: int


@dataclass(frozen=True, slots=True)
class ChannelBound:
    """Data to and from `peer` now travels as ChannelData with that `number` (RFC 8656 §12)."""

    peer: Address
    number: int


@dataclass(frozen=True, slots=True)
class PeerConnection:
    """A TCP connection between the server and `peer` waits to be taken up (RFC 6062 §4.3, §4.4).

    `dialled` by us through `TcpTurnClient.connect`, or else by the peer.
    """

    connection: int
    peer: Address
    dialled: bool


@dataclass(frozen=True, slots=True)
class ConnectFailed:
    """The server has no connection to `peer`. After a 447 it may be asked again, 10 s later."""

    peer: Address
    code: int
    reason: str


TurnEvent: TypeAlias = (
    Allocated | AllocationFailed | AllocationLost | Moved | DataReceived | PermissionCreated
    | PermissionRefused | ChannelBound | PeerConnection | ConnectFailed
)  # fmt: skip
