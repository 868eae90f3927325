"""What the TURN server asks of its driver, beyond datagrams: TCP connections with peers (RFC 6062).

A connection has a number from its first event, or from `TurnServer.peer_connected`, to its end.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from crowline.base.addresses import Address
from crowline.base.transport import Transport


@dataclass(frozen=True, slots=True)
class Dial:
    """Open a TCP connection from `relayed` to `peer`, then call `dialled` or `dial_failed`."""

    connection: int
    relayed: Address
    peer: Address


@dataclass(frozen=True, slots=True)
class Splice:
    """From now on the bytes of that client stream and of the peer connection belong to each other.

    What the machine gave to send before comes first on the client stream; what the client sent behind its
    last message is data.
    """

    connection: int
    client: Address
    local: Address | None
    transport: Transport


@dataclass(frozen=True, slots=True)
class HangUp:
    """Close the peer connection or stop dialling it, and close the client stream spliced to it."""

    connection: int


ServerEvent: TypeAlias = Dial | Splice | HangUp
