"""The short way of ChannelData: every check of `relay.py`, made once for many packets.

What is not plain is left to the long way: streams, clients on the move, allocations of other processes, and
whatever is refused there with a counter. Answers of ``None`` mean that.
"""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.turn.allocation import Allocation, Channel
from crowline.turn.allocations import Allocations
from crowline.turn.quota import Quota


class Way:
    """What a channel of an allocation leads to. It is good before `until`, for as long as the allocation has
    that `version`; each datagram on it is to be taken from `account`."""

    __slots__ = ("account", "allocation", "channel", "until", "version")

    def __init__(self, allocation: Allocation, channel: Channel, quota: Quota) -> None:
        relay = allocation.relay_towards(channel.relayed)
        until = relay.expires if relay is not None else 0.0
        self.allocation = allocation
        self.channel = channel
        self.account = quota.account(allocation.user)
        self.until = min(channel.expires, channel.permission.expires, until)
        self.version = allocation.version

    @property
    def is_inside(self) -> bool:
        """Whether the peer is a relayed address of this server, so that no datagram leaves for it."""
        return self.channel.permission.is_own


class ShortWay:
    """Looks at the same tables as the `TurnServer` it belongs to."""

    def __init__(self, allocations: Allocations, quota: Quota) -> None:
        self._allocations = allocations
        self._quota = quota

    def to_peer(self, client: Address, local: Address, number: int, now: float) -> Way | None:
        """Where the data of a UDP client's channel goes: RFC 8656 §12.6."""
        allocation = self._allocations.of_client(client, local)
        if allocation is None or allocation.client != client or allocation.local != local:
            return None
        return self._way(allocation, allocation.channels.get(number), now)

    def to_client(self, relayed: Address, peer: Address, now: float) -> Way | None:
        """The channel on which data of a peer outside reaches the client: RFC 8656 §12.7."""
        way = self._back(relayed, peer, now)
        return None if way is None or way.is_inside else way

    def inside(self, way: Way, now: float) -> Way | None:
        """Where `way` leads inside this server, the channel on which its data reaches the other client."""
        back = self._back(way.channel.peer, way.channel.relayed, now)
        return back if back is not None and back.is_inside else None

    def _back(self, relayed: Address, peer: Address, now: float) -> Way | None:
        allocation = self._allocations.of_relayed(relayed)
        if allocation is None:
            return None
        return self._way(allocation, allocation.channels_by_peer.get(peer), now)

    def _way(self, allocation: Allocation, channel: Channel | None, now: float) -> Way | None:
        if channel is None or allocation.is_over:
            return None
        if allocation.transport is not Transport.UDP or not allocation.is_attached:
            return None
        way = Way(allocation, channel, self._quota)
        return way if now < way.until else None
