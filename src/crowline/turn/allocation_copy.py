"""An allocation as one process tells it to another."""

from __future__ import annotations

import msgspec

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.turn.allocation import Allocation, Channel, Permission, Relay


class PermissionCopy(msgspec.Struct, frozen=True, array_like=True):
    """A peer's IP address, and until when it may send."""

    host: str
    expires: float
    is_own: bool


class ChannelCopy(msgspec.Struct, frozen=True, array_like=True):
    """A channel; its permission is the one of the peer's IP address."""

    number: int
    peer: Address
    expires: float
    relayed: Address


class RelayCopy(msgspec.Struct, frozen=True, array_like=True):
    """A relayed UDP address."""

    address: Address
    expires: float


class AllocationCopy(msgspec.Struct, frozen=True, array_like=True):
    """What moves data: everything but what authenticates. `number` stays the same for as long as it lives."""

    number: int
    client: Address
    local: Address
    user: str
    relays: tuple[RelayCopy, ...]
    permissions: tuple[PermissionCopy, ...]
    channels: tuple[ChannelCopy, ...]

    @classmethod
    def of(cls, number: int, allocation: Allocation) -> AllocationCopy:
        """A copy as of now. The client speaks UDP, and so do the peers."""
        assert allocation.local is not None, "who shares its clients out knows which address they asked"
        return cls(
            number,
            allocation.client,
            allocation.local,
            allocation.user,
            tuple(RelayCopy(relay.address, relay.expires) for relay in allocation.relays),
            tuple(PermissionCopy(host, p.expires, p.is_own) for host, p in allocation.permissions.items()),
            tuple(ChannelCopy(c.number, c.peer, c.expires, c.relayed) for c in allocation.channels.values()),
        )

    def allocation(self) -> Allocation:
        """The allocation again, without name and key."""
        allocation = Allocation(
            self.client,
            self.local,
            Transport.UDP,
            username="",
            user=self.user,
            key=b"",
            transaction_id=b"",
            relays=tuple(Relay(relay.address, Transport.UDP, relay.expires) for relay in self.relays),
            permissions={each.host: Permission(each.expires, each.is_own) for each in self.permissions},
        )
        for each in self.channels:
            permission = allocation.permissions.get(each.peer.host)
            if permission is not None:
                channel = Channel(each.number, each.peer, each.expires, permission, each.relayed)
                allocation.channels[each.number] = allocation.channels_by_peer[each.peer] = channel
        return allocation
