"""What the relays of a meeting need of it, and tell it."""

from __future__ import annotations

from typing import Protocol

from crowline.api.traversal.relay import Relay
from crowline.base.addresses import Address
from crowline.net.udp import UdpSocket
from crowline.turn.events import Allocated


class RelaysOwner(Protocol):
    """The traversal, as its relays see it."""

    def on_relayed_address(self, relay: Relay, event: Allocated) -> None: ...

    def on_relay_lost(self, relay: Relay) -> None: ...

    def on_race_over(self) -> None:
        """Said once for each server: there is an allocation, or there will be none for now."""

    def socket_at(self, host: str) -> UdpSocket | None:
        """The socket with that local address, opened if need be."""

    def expect(self, server: Address) -> None:
        """Datagrams from there are answers of a server, and not a peer's."""

    def has_heard(self, server: Address) -> bool:
        """Whether a datagram has ever come from there."""

    def on_relayed(self, run: memoryview, segment_size: int, peer: Address, relayed: Address) -> None: ...

    def on_drained(self) -> None: ...
