"""An allocation with its relayed addresses, permissions and channels (RFC 8656 §3.2, §6, §9, §12)."""

from __future__ import annotations

from dataclasses import dataclass, field

from crowline.base.addresses import Address
from crowline.base.transport import Transport
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.quota import Limits

PERMISSION_LIFETIME = 300.0  # seconds, RFC 8656 §9
CHANNEL_LIFETIME = 600.0  # seconds, RFC 8656 §12


@dataclass(slots=True)
class Permission:
    """One peer address may send until `expires`. `is_own` marks this server's relay addresses."""

    expires: float
    is_own: bool


@dataclass(slots=True)
class Channel:
    """A number that stands for one peer until `expires`; it carries data only while `permission` lives.

    `relayed` is the address that its datagrams leave from.
    """

    number: int
    peer: Address
    expires: float
    permission: Permission
    relayed: Address

    def is_live(self, now: float) -> bool:
        return self.expires > now and self.permission.expires > now


@dataclass(slots=True, eq=False)
class Relay:
    """One relayed transport address, with its time-to-expiry; a dual allocation has two."""

    address: Address
    transport: Transport
    expires: float


@dataclass(slots=True, eq=False)
class Allocation:
    """What a client holds at this server. `client`, `local` and `transport` are the 5-tuple that it is
    spoken to on."""

    client: Address
    local: Address | None
    transport: Transport
    username: str
    user: str
    key: bytes = field(repr=False)
    transaction_id: bytes
    success: bytes = b""
    """The answer to the Allocate that made it, for the retransmissions of that request."""
    relays: tuple[Relay, ...] = ()
    """One for each address family, all of one transport. Still there when the allocation is over."""
    charged: Address | None = None
    """The client address whose share of the relays this one counts in."""
    is_over: bool = False
    is_attached: bool = True
    """Whether the 5-tuple lives. The stream of a client on the move may have ended."""
    moving_to: FiveTuple | None = None
    """A 5-tuple that takes over as soon as the client sends data on it (RFC 8016 §3.2.2)."""
    version: int = 0
    """Grows when anything here changes that data depends on."""
    permissions: dict[str, Permission] = field(default_factory=dict)
    channels: dict[int, Channel] = field(default_factory=dict)
    channels_by_peer: dict[Address, Channel] = field(default_factory=dict)

    @property
    def relayed(self) -> Address:
        """The first relayed address."""
        return self.relays[0].address

    @property
    def expires(self) -> float:
        """When the last of its relayed addresses goes."""
        return max(relay.expires for relay in self.relays)

    @property
    def five_tuple(self) -> FiveTuple:
        return FiveTuple(self.client, self.local, self.transport)

    @property
    def relay_transport(self) -> Transport:
        """The transport between this server and the peers."""
        return self.relays[0].transport

    def relay_towards(self, address: Address) -> Relay | None:
        """The relayed address of the same family, if there is one."""
        is_ipv6 = address.is_ipv6
        for relay in self.relays:
            if relay.address.is_ipv6 == is_ipv6:
                return relay
        return None

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

    def bind(self, number: int, peer: Address, relayed: Address, now: float, *, is_own: bool) -> None:
        """Bind or refresh a channel, and with it the permission. The caller has checked for conflicts."""
        permission = self.permit(peer.host, now, is_own=is_own)
        for stale in (self.channels.get(number), self.channels_by_peer.get(peer)):
            if stale is not None:
                self._unbind(stale)
        channel = Channel(number, peer, now + CHANNEL_LIFETIME, permission, relayed)
        self.channels[number] = channel
        self.channels_by_peer[peer] = channel

    def drop(self, relay: Relay) -> None:
        """Forget one of two relayed addresses, with what was permitted for it (RFC 8656 §8.1)."""
        self.relays = tuple(other for other in self.relays if other is not relay)
        for channel in [c for c in self.channels.values() if c.relayed == relay.address]:
            self._unbind(channel)
        is_ipv6 = relay.address.is_ipv6
        self.permissions = {host: p for host, p in self.permissions.items() if (":" in host) != is_ipv6}

    def _unbind(self, channel: Channel) -> None:
        self.channels.pop(channel.number, None)
        self.channels_by_peer.pop(channel.peer, None)

    def _in_use(self, permission: Permission) -> bool:
        """A channel keeps the very permission that it was bound with, so that a refresh revives both."""
        return any(channel.permission is permission for channel in self.channels.values())
