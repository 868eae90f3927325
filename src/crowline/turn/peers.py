"""Who may be talked to: permissions and channels (RFC 8656 §10, §12), and the rule behind both."""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address, AddressClass, AddressPolicy, classify, hidden_host
from crowline.stun.attributes import AnyAttribute, ChannelNumber, XorPeerAddress
from crowline.turn import channel_data
from crowline.turn.allocation import Allocation, Relay
from crowline.turn.codes import (
    BAD_REQUEST,
    FORBIDDEN,
    INSUFFICIENT_CAPACITY,
    PEER_FAMILY_MISMATCH,
    Refusal,
)
from crowline.turn.holdings import Holdings
from crowline.turn.outbox import Request


class Peers:
    """Asked once for each permission, channel and connection.

    The address policy and `permits` must both agree. This server's own relay addresses are always allowed,
    and then reached inside; any other address of this machine never is, in whatever spelling.
    """

    def __init__(
        self, holdings: Holdings, policy: AddressPolicy, permits: Callable[[str, Address], bool]
    ) -> None:
        self._holdings = holdings
        self._ports = holdings.ports
        self._limits = holdings.quota.limits
        self._policy = policy
        self._permits = permits

    def check(self, peer: Address, allocation: Allocation) -> Relay:
        """The relayed address that speaks to `peer`. 443 where there is none of its family, 403 for a peer
        that policy or hub do not allow."""
        relay = allocation.relay_towards(peer)
        if relay is None:
            raise Refusal(PEER_FAMILY_MISMATCH)
        # The port of a permission has no meaning (RFC 8656 §10.1), and many clients send 0.
        judged = peer if peer.port else Address(peer.host, 1)
        if self._may_be_relayed(judged, relay):
            return relay
        if self._is_own(peer.host):
            raise Refusal(FORBIDDEN)
        if not self._policy.permits(judged) or not self._permits(allocation.user, judged):
            raise Refusal(FORBIDDEN)
        return relay

    def create_permission(self, request: Request, allocation: Allocation) -> tuple[AnyAttribute, ...]:
        """RFC 8656 §10.2: all of the peers, or none."""
        peers = [attribute.address for attribute in request.message.get_all(XorPeerAddress)]
        if not peers:
            raise Refusal(BAD_REQUEST)
        for peer in peers:
            self.check(peer, allocation)
        if not allocation.has_room_for({peer.host for peer in peers}, self._limits, request.now):
            raise Refusal(INSUFFICIENT_CAPACITY)
        for peer in peers:
            allocation.permit(peer.host, request.now, is_own=self._ports.is_own_host(peer.host))
        self._holdings.changed(allocation)
        return ()

    def bind_channel(self, request: Request, allocation: Allocation) -> tuple[AnyAttribute, ...]:
        """RFC 8656 §12.2. A TCP allocation has no channels: its data never passes as messages."""
        if allocation.relay_transport.is_stream:
            raise Refusal(BAD_REQUEST)
        number, peer = self._wanted_channel(request)
        bound = allocation.channel(number, request.now)
        if bound is not None and bound.peer != peer:
            raise Refusal(BAD_REQUEST)
        other = allocation.channel_to(peer, request.now)
        if other is not None and other.number != number:
            raise Refusal(BAD_REQUEST)
        relay = self.check(peer, allocation)
        is_own = self._ports.is_own_host(peer.host)
        if is_own and self._holdings.allocations.of_relayed(peer) is None:
            # The server's other sockets, its own front among them.
            raise Refusal(FORBIDDEN)
        if bound is None and not allocation.has_room_for_channel(self._limits, request.now):
            raise Refusal(INSUFFICIENT_CAPACITY)
        if not allocation.has_room_for({peer.host}, self._limits, request.now):
            raise Refusal(INSUFFICIENT_CAPACITY)
        allocation.bind(number, peer, relay.address, request.now, is_own=is_own)
        self._holdings.changed(allocation)
        return ()

    def _wanted_channel(self, request: Request) -> tuple[int, Address]:
        number, attribute = request.message.get(ChannelNumber), request.message.get(XorPeerAddress)
        if number is None or attribute is None or attribute.address.port == 0:
            raise Refusal(BAD_REQUEST)
        if not channel_data.FIRST_CHANNEL <= number.value <= channel_data.LAST_CHANNEL:
            raise Refusal(BAD_REQUEST)
        return number.value, attribute.address

    def _may_be_relayed(self, peer: Address, relay: Relay) -> bool:
        """Whether another client may have a relayed address there. A server that listens everywhere has them
        on loopback for clients of this machine, and nobody else can mean those."""
        if not self._ports.is_relay_host(peer.host):
            return False
        is_near = peer.host == relay.address.host or self._policy.permits(peer)
        return is_near or classify(peer.host) is not AddressClass.NEVER

    def _is_own(self, host: str) -> bool:
        """Whether packets to `host` end at this machine; an IPv4 address of ours may hide in an IPv6 one."""
        hidden = hidden_host(host)
        return self._ports.is_own_host(host) or (hidden is not None and self._ports.is_own_host(hidden))
