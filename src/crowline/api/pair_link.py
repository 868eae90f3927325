"""One QUIC link with the pair below it."""

from __future__ import annotations

import math
from typing import Protocol

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.ice.pair import ValidPair
from crowline.link.choice import category_of
from crowline.link.events import LinkEvent
from crowline.link.quic import QuicLink
from crowline.net.pump import Pump

# Seconds of silence after which a pair that still answers needs another link: its connection is not going to
# recover, or later than a new one is there.
STALL_TIME = 3.0


class LinkOwner(Protocol):
    """The table of links."""

    dirty: set[PairLink]

    def send(self, transmit: Transmit) -> None: ...

    def on_event(self, link: PairLink, event: LinkEvent) -> None: ...

    def grow_soon(self, link: PairLink) -> None:
        """The link has carried as much as it was to carry before larger packets are thought of."""


class PairLink:
    """One QUIC link with the pair below it; the session's carrier."""

    def __init__(self, table: LinkOwner, number: int, pair: ValidPair, quic: QuicLink) -> None:
        self.number = number
        # What all links of its pair share.
        self.path = number
        self.pair = pair
        self.quic = quic
        # Whether its packets are larger than the least.
        self.is_large = quic.proves_size
        # Stream bytes carried, how many are to be before larger packets are thought of, and since when.
        self.carried = 0
        self.grow_at = math.inf
        self.marked_at = 0.0
        # When it came up.
        self.up_at = math.inf
        # How often it was found to be stalled.
        self.stalls = 0
        self._table = table
        self.pump = Pump[Transmit, LinkEvent](quic, table.send, lambda event: table.on_event(self, event))

    @property
    def key(self) -> tuple[Address, Address]:
        return (self.quic.local, self.quic.destination)

    @property
    def category(self) -> str:
        """``relay`` or ``direct``: one link of each is kept."""
        return category_of(self.pair)

    @property
    def merit(self) -> int:
        """Orders the links of one rank: by their pairs, on each pair those with larger packets first."""
        return 2 * self.pair.priority + self.is_large

    @property
    def is_up(self) -> bool:
        return self.quic.is_up

    @property
    def has_been_up(self) -> bool:
        return self.up_at < math.inf

    @property
    def is_stalled(self) -> bool:
        """Whether the pair has answered long after the link fell silent."""
        since = self.unanswered_since
        return since is not None and self.pair.proven_at >= since + STALL_TIME

    @property
    def unanswered_since(self) -> float | None:
        return self.quic.unanswered_since

    def room(self) -> int:
        return self.quic.room()

    def send(self, data: Buffer, now: float) -> None:
        self.quic.send(data, now)
        self._table.dirty.add(self)
        self.count(len(data))

    def count(self, size: int) -> None:
        """Stream bytes went by this link, or came."""
        self.carried += size
        if self.carried >= self.grow_at:
            self.grow_at = math.inf
            self._table.grow_soon(self)

    @property
    def max_datagram_size(self) -> int:
        return self.quic.max_datagram_size

    def send_datagram(self, data: Buffer, now: float) -> bool:
        self._table.dirty.add(self)
        return self.quic.send_datagram(data, now)
