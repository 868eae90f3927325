"""TURN (RFC 8656): client and server machines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crowline.base.lazy import lazy

if TYPE_CHECKING:
    from crowline.turn.client import TurnClient
    from crowline.turn.events import (
        Allocated,
        AllocationFailed,
        AllocationLost,
        ChannelBound,
        ConnectFailed,
        DataReceived,
        Moved,
        PeerConnection,
        PermissionCreated,
        PermissionRefused,
        TurnEvent,
    )
    from crowline.turn.framing import StreamFramer
    from crowline.turn.tcp_client import (
        BindFailed,
        Bound,
        DataConnection,
        DataEvent,
        PeerBytes,
        TcpTurnClient,
    )

__all__ = [
    "Allocated",
    "AllocationFailed",
    "AllocationLost",
    "BindFailed",
    "Bound",
    "ChannelBound",
    "ConnectFailed",
    "DataConnection",
    "DataEvent",
    "DataReceived",
    "Moved",
    "PeerBytes",
    "PeerConnection",
    "PermissionCreated",
    "PermissionRefused",
    "StreamFramer",
    "TcpTurnClient",
    "TurnClient",
    "TurnEvent",
]

__getattr__ = lazy(
    __name__,
    {
        "client": "TurnClient",
        "events": (
            "Allocated AllocationFailed AllocationLost ChannelBound ConnectFailed DataReceived Moved "
            "PeerConnection PermissionCreated PermissionRefused TurnEvent"
        ),
        "framing": "StreamFramer",
        "tcp_client": "BindFailed Bound DataConnection DataEvent PeerBytes TcpTurnClient",
    },
)
