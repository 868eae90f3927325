"""The short way of single ChannelData datagrams: every check of `relay.py`, and no object for each packet.

What is not plain is left to the long way: runs, streams, peers inside the server, clients on the move, and
whatever is refused there with a counter. Answers of ``None`` mean that.
"""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.turn.allocation import Allocation, Channel
from crowline.turn.allocations import Allocations
from crowline.turn.quota import Quota


class ShortWay:
    """Looks at the same tables as the `TurnServer` it belongs to."""

    def __init__(self, allocations: Allocations, quota: Quota) -> None:
        self._allocations = allocations
        self._quota = quota

    def of_client(self, client: Address, local: Address) -> Allocation | None:
        """The allocation of a UDP client; good to keep as long as `client` of it is the same object."""
        allocation = self._allocations.of_client(client, local)
        if allocation is None or allocation.client != client or allocation.local != local:
            return None
        return allocation if allocation.transport is Transport.UDP else None

    def of_relayed(self, relayed: Address) -> Allocation | None:
        return self._allocations.of_relayed(relayed)

    def to_peer(self, allocation: Allocation, number: int, now: float) -> Channel | None:
        """Where the data of a channel goes: RFC 8656 §12.6."""
        channel = allocation.channels.get(number)
        if channel is None or allocation.is_over or not allocation.is_attached:
            return None
        permission = channel.permission
        if channel.expires <= now or permission.expires <= now or permission.is_own:
            return None
        return None if self._allocations.alarms.is_due(now) else channel

    def to_client(self, allocation: Allocation, peer: Address, now: float) -> Channel | None:
        """The channel on which data of a peer reaches the client: RFC 8656 §12.7."""
        channel = allocation.channels_by_peer.get(peer)
        if channel is None or allocation.transport is not Transport.UDP:
            return None
        return self.to_peer(allocation, channel.number, now)

    def charge(self, allocation: Allocation, size: int, now: float) -> bool:
        """Whether `size` more bytes are within the user's rate."""
        return self._quota.take(allocation.user, size, now)
