"""An allocation with its permissions and channels, and the table that finds it (RFC 8656 §3.2, §9, §12)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.turn.quota import Limits

PERMISSION_LIFETIME = 300.0  # seconds, RFC 8656 §9
CHANNEL_LIFETIME = 600.0  # seconds, RFC 8656 §12
MAX_DEAD_ALARMS = 256  # alarms of allocations that are gone, before they are swept together


@dataclass(slots=True)
class Permission:
    """One peer address may send until `expires`. `is_own` marks this server's relay addresses."""

    expires: float
    is_own: bool


@dataclass(slots=True)
class Channel:
    """A number that stands for one peer until `expires`; it carries data only while `permission` lives."""

    number: int
    peer: Address
    expires: float
    permission: Permission

    def is_live(self, now: float) -> bool:
        return self.expires > now and self.permission.expires > now


@dataclass(slots=True, eq=False)
class Allocation:
    """What a client holds at this server. `client` and `local` are the 5-tuple (the protocol is UDP)."""

    client: Address
    local: Address | None
    relayed: Address
    username: str
    user: str
    key: bytes
    transaction_id: bytes
    expires: float
    success: bytes = b""
    """The answer to the Allocate that made it, for the retransmissions of that request."""
    permissions: dict[str, Permission] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    channels_by_peer: dict[Address, Channel] = field(default_factory=dict)

    def permits(self, host: str, now: float) -> Permission | None:
        """The live permission for a peer's IP address."""
        permission = self.permissions.get(host)
        return permission if permission is not None and permission.expires > now else None

    def channel_to(self, peer: Address, now: float) -> Channel | None:
        """The channel bound to `peer`, if it has not expired."""
        channel = self.channels_by_peer.get(peer)
        return channel if channel is not None and channel.expires > now else None

    def channel(self, number: int, now: float) -> Channel | None:
        """The channel of that number, if it has not expired."""
        channel = self.channels.get(number)
        return channel if channel is not None and channel.expires > now else None

    def has_room_for(self, hosts: set[str], limits: Limits, now: float) -> bool:
        """Whether permissions for all of `hosts` fit. Expired ones make room."""
        self.permissions = {h: p for h, p in self.permissions.items() if p.expires > now or self._in_use(p)}
        return len(self.permissions.keys() | hosts) <= limits.permissions

    def has_room_for_channel(self, limits: Limits, now: float) -> bool:
        """Whether one channel more fits. Expired ones make room."""
        for channel in [c for c in self.channels.values() if c.expires <= now]:
            self._unbind(channel)
        return len(self.channels) < limits.channels

    def permit(self, host: str, now: float, *, is_own: bool) -> Permission:
        """Install or refresh a permission."""
        permission = self.permissions.get(host)
        if permission is None:
            permission = self.permissions[host] = Permission(0.0, is_own)
        # The machine may have got or lost that address since.
        permission.is_own = is_own
        permission.expires = now + PERMISSION_LIFETIME
        return permission

    def bind(self, number: int, peer: Address, now: float, *, is_own: bool) -> None:
        """Bind or refresh a channel, and with it the permission. The caller has checked for conflicts."""
        permission = self.permit(peer.host, now, is_own=is_own)
        for stale in (self.channels.get(number), self.channels_by_peer.get(peer)):
            if stale is not None:
                self._unbind(stale)
        channel = Channel(number, peer, now + CHANNEL_LIFETIME, permission)
        self.channels[number] = channel
        self.channels_by_peer[peer] = channel

    def _unbind(self, channel: Channel) -> None:
        self.channels.pop(channel.number, None)
        self.channels_by_peer.pop(channel.peer, None)

    def _in_use(self, permission: Permission) -> bool:
        """A channel keeps the very permission that it was bound with, so that a refresh revives both."""
        return any(channel.permission is permission for channel in self.channels.values())


class Allocations:
    """All allocations of a server, by 5-tuple, by relayed address and by the time they end."""

    def __init__(self) -> None:
        self._by_client: dict[tuple[Address, Address | None], Allocation] = {}
        self._by_relayed: dict[Address, Allocation] = {}
        # Each allocation has one alarm that counts: the one whose serial stands in `_alarms`.
        self._ends: list[tuple[float, int, Address]] = []
        self._alarms: dict[Address, tuple[float, int]] = {}
        self._serial = 0

    def __len__(self) -> int:
        return len(self._by_client)

    def __iter__(self) -> Iterator[Allocation]:
        return iter(list(self._by_client.values()))

    def of_client(self, client: Address, local: Address | None) -> Allocation | None:
        return self._by_client.get((client, local))

    def of_relayed(self, relayed: Address) -> Allocation | None:
        return self._by_relayed.get(relayed)

    def add(self, allocation: Allocation) -> None:
        self._by_client[allocation.client, allocation.local] = allocation
        self._by_relayed[allocation.relayed] = allocation
        self._set_alarm(allocation)

    def extend(self, allocation: Allocation, expires: float) -> None:
        """Give an allocation another end. A later one is noticed when the old alarm goes off."""
        allocation.expires = expires
        if expires < self._alarms[allocation.relayed][0]:
            self._set_alarm(allocation)

    def remove(self, allocation: Allocation) -> None:
        self._by_client.pop((allocation.client, allocation.local), None)
        self._by_relayed.pop(allocation.relayed, None)
        self._alarms.pop(allocation.relayed, None)
        if len(self._ends) > 2 * len(self._alarms) + MAX_DEAD_ALARMS:
            self._ends = [(time, serial, relayed) for relayed, (time, serial) in self._alarms.items()]
            heapq.heapify(self._ends)

    def next_end(self) -> float | None:
        """No later than the next allocation's end."""
        return self._ends[0][0] if self._ends else None

    def ended(self, now: float) -> list[Allocation]:
        """Allocations that are over and still in the table."""
        over = []
        while self._ends and self._ends[0][0] <= now:
            _, serial, relayed = heapq.heappop(self._ends)
            allocation = self._by_relayed.get(relayed)
            if allocation is None or self._alarms[relayed][1] != serial:
                continue
            if allocation.expires <= now:
                over.append(allocation)
            else:
                self._set_alarm(allocation)
        return over

    def _set_alarm(self, allocation: Allocation) -> None:
        self._serial += 1
        self._alarms[allocation.relayed] = (allocation.expires, self._serial)
        heapq.heappush(self._ends, (allocation.expires, self._serial, allocation.relayed))
