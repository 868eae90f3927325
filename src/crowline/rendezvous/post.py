"""What a hub says to its connections, in order."""

from __future__ import annotations

from collections import deque

from msgspec import Struct

from crowline.base.machine import Buffer
from crowline.rendezvous import wire
from crowline.rendezvous.mailbox import Mailbox, Side

NORMAL = 1000
POLICY_VIOLATION = 1008
"""Close codes of RFC 6455 §7.4.1."""

ENVELOPE = 128
"""Bytes that a signal costs beside its body, on its way and while it is kept: empty ones are not free."""


class Delivery(Struct, frozen=True):
    """One message for one connection, or, with `close`, the order to close it with that code."""

    connection: int
    data: Buffer = b""
    is_binary: bool = False
    close: int | None = None


class Visitor(Struct):
    """A connection: the IP address it comes from, what counts as its source, and its place, if it has one.

    `is_exempt` from the rates of sources.
    """

    number: int
    host: str
    source: str
    is_exempt: bool
    box: Mailbox | None = None
    side: Side | None = None


class Post:
    """`visitors` are all connections by number; who is dropped is forgotten at once."""

    def __init__(self, visitors: dict[int, Visitor]) -> None:
        self._visitors = visitors
        self._deliveries: deque[Delivery] = deque()

    def next(self) -> Delivery | None:
        return self._deliveries.popleft() if self._deliveries else None

    def deliver(self, connection: int, data: Buffer, *, is_binary: bool = False) -> None:
        self._deliveries.append(Delivery(connection, data, is_binary))

    def tell(self, side: Side | None, message: wire.HubMessage) -> None:
        """Only if that side is connected."""
        if side is not None and side.connection is not None:
            self.deliver(side.connection, wire.encode(message))

    def tell_logged(self, side: Side, message: wire.HubMessage) -> None:
        """What a side must get even if it has to come back for it."""
        data = wire.encode(message)
        side.log.append(data, len(data) + ENVELOPE)
        if side.connection is not None:
            self.deliver(side.connection, data)

    def drop(self, connection: int, code: int = NORMAL) -> None:
        """Have the driver close a connection."""
        self._visitors.pop(connection, None)
        self._deliveries.append(Delivery(connection, close=code))

    def part(self, side: Side) -> None:
        """Close the connection that a side has, if any."""
        if side.connection is not None:
            self.drop(side.connection)
            side.connection = None
