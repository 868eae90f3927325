"""What a TURN client tells its user."""

from __future__ import annotations

from typing import TypeAlias

from msgspec import Struct

from crowline.base.addresses import Address


class Allocated(Struct, frozen=True):
    """The server relays `relayed` to us, and sees us as `mapped`, for `lifetime` seconds at a time.

    Of two relayed addresses each has an event of its own.
    """

    relayed: Address
    mapped: Address
    lifetime: int


class AllocationFailed(Struct, frozen=True):
    """No allocation; `code` is the server's, or 408 when it did not answer. `alternate` comes with a 300, and
    `domain` where its certificate has another name than the server's.
    """

    code: int
    reason: str
    alternate: Address | None = None
    domain: str = ""


class AllocationLost(Struct, frozen=True):
    """The allocation is gone, and not because we closed it; `reason` is a phrase for people."""

    reason: str


class Moved(Struct, frozen=True):
    """The allocation is kept on the new 5-tuple (RFC 8016); data may be sent again."""


class DataReceived(Struct, frozen=True):
    """A datagram that `peer` sent to our relayed address."""

    data: bytes
    peer: Address


class PermissionCreated(Struct, frozen=True):
    """The server lets `peer` (any of its ports) reach us."""

    peer: Address


class PermissionRefused(Struct, frozen=True):
    """The server will not relay to `peer`; `code` says why (RFC 8656 §19): 403 is a policy."""

    peer: Address
    code: int


class ChannelBound(Struct, frozen=True):
    """Data to and from `peer` now travels as ChannelData with that `number` (RFC 8656 §12)."""

    peer: Address
    number: int


class PeerConnection(Struct, frozen=True):
    """A TCP connection between the server and `peer` waits to be taken up (RFC 6062 §4.3, §4.4).

    `dialled` by us through `TcpTurnClient.connect`, or else by the peer.
    """

    connection: int
    peer: Address
    dialled: bool


class ConnectFailed(Struct, frozen=True):
    """The server has no connection to `peer`. After a 447 it may be asked again, 10 s later."""

    peer: Address
    code: int
    reason: str


TurnEvent: TypeAlias = (
    Allocated | AllocationFailed | AllocationLost | Moved | DataReceived | PermissionCreated
    | PermissionRefused | ChannelBound | PeerConnection | ConnectFailed
)  # fmt: skip
