"""What the server does with data: from a client to its peers and back, in runs, with little work a packet.

Peers that are relay addresses of this server are reached inside it: their data goes to the allocation that
lives there, or nowhere. It never leaves for a socket of this machine, whatever listens there.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.stun.attributes import AnyAttribute, Data, DontFragment, Icmp, XorPeerAddress
from crowline.stun.message import TRANSACTION_ID_SIZE, Message, MessageClass, Method, Received
from crowline.turn import channel_data
from crowline.turn.allocation import Allocation, Permission
from crowline.turn.allocations import Allocations
from crowline.turn.quota import Quota

# What a Data indication adds at most: header, IPv6 peer, attribute header and padding.
INDICATION_OVERHEAD = 20 + 24 + 4 + 3
# The largest UDP payload over IPv4; what would not fit with its header is lost, never cut.
MAX_DATAGRAM = 65507
# The errors that a client hears of, RFC 8656 §11.5: destination unreachable and time exceeded, and for IPv6
# packet too big.
ICMPV4_TYPES = frozenset({3, 11})
ICMPV6_TYPES = frozenset({1, 2, 3})
FRAGMENTATION_NEEDED = (3, 4)
PACKET_TOO_BIG = 2
MAX_ICMP_CODE = 255
ICMP_SIZE = 64  # bytes that one costs its user: the indication on the wire, about


class DataRelay:
    """Moves data of live allocations; everything it sends goes into `transmits`."""

    def __init__(
        self,
        allocations: Allocations,
        quota: Quota,
        transmits: deque[Transmit],
        counters: Counter[str],
        entropy: Callable[[int], bytes],
        *,
        can_set_dont_fragment: bool = False,
        elsewhere: Callable[[Address], Address | None] = lambda relayed: None,
    ) -> None:
        """`elsewhere` says where a relayed address of this server is bound that another process has."""
        self._allocations = allocations
        self._quota = quota
        self._transmits = transmits
        self._counters = counters
        self._entropy = entropy
        self._can_set_dont_fragment = can_set_dont_fragment
        self._elsewhere = elsewhere

    def from_channel(self, allocation: Allocation, data: Buffer, segment_size: int, now: float) -> None:
        """A run of ChannelData from the client: RFC 8656 §12.6."""
        left_out = -(-len(data) // segment_size)
        for number, parts in channel_data.unwrap_run(data, segment_size):
            left_out -= len(parts)
            channel = allocation.channels.get(number)
            if channel is None or not channel.is_live(now):
                self._counters["dropped_channel"] += 1
                continue
            is_run = len(parts) > 1
            payload: Buffer = b"".join(parts) if is_run else parts[0]
            size = len(parts[0]) if is_run else None
            self._to_peer(allocation, payload, channel.relayed, channel.peer, size, now, channel.permission)
        if left_out:
            self._counters["dropped_channel"] += left_out

    def from_send(self, allocation: Allocation, received: Received, now: float) -> None:
        """A Send indication: RFC 8656 §11.2. Nothing is ever answered to one."""
        message = received.message
        peer, data = message.get(XorPeerAddress), message.get(Data)
        stays_whole = message.get(DontFragment) is not None
        is_unknown = received.unknown_required or (stays_whole and not self._can_set_dont_fragment)
        if peer is None or data is None or is_unknown or allocation.relay_transport.is_stream:
            self._counters["dropped_send"] += 1
            return
        permission = allocation.permits(peer.address.host, now)
        relay = allocation.relay_towards(peer.address)
        if permission is None or relay is None or peer.address.port == 0:
            self._counters["dropped_send"] += 1
            return
        self._to_peer(
            allocation,
            data.value,
            relay.address,
            peer.address,
            None,
            now,
            permission,
            stays_whole=stays_whole,
        )

    def from_peer(
        self,
        allocation: Allocation,
        data: Buffer,
        peer: Address,
        segment_size: int | None,
        now: float,
        *,
        is_inside: bool = False,
    ) -> None:
        """A run that reached the relayed address: RFC 8656 §11.3 and §12.7.

        `is_inside` says that it came from another allocation of this server, not from the network.
        """
        permission = allocation.permits(peer.host, now)
        if permission is None or permission.is_own != is_inside or not allocation.is_attached:
            self._counters["dropped_peer"] += 1
            return
        if not self._quota.take(allocation.user, len(data), now):
            self._counters["dropped_rate"] += 1
            return
        channel = allocation.channel_to(peer, now)
        if channel is not None:
            self._to_channel(allocation, channel.number, data, segment_size)
            return
        view = memoryview(data)
        for start in range(0, len(view) or 1, segment_size or len(view) or 1):
            self._to_indication(allocation, view[start : start + (segment_size or len(view))], peer)

    def icmp_from_peer(
        self, allocation: Allocation, peer: Address, icmp_type: int, icmp_code: int, data: int, now: float
    ) -> None:
        """An ICMP error that something on the way to `peer` sent: RFC 8656 §11.5."""
        types = ICMPV6_TYPES if peer.is_ipv6 else ICMPV4_TYPES
        permission = allocation.permits(peer.host, now)
        is_known = icmp_type in types and 0 <= icmp_code <= MAX_ICMP_CODE
        if not is_known or permission is None or permission.is_own or not allocation.is_attached:
            self._counters["dropped_icmp"] += 1
            return
        if not self._quota.take(allocation.user, ICMP_SIZE, now):
            self._counters["dropped_rate"] += 1
            return
        is_too_big = (icmp_type, icmp_code) == FRAGMENTATION_NEEDED and not peer.is_ipv6
        is_too_big = is_too_big or (peer.is_ipv6 and icmp_type == PACKET_TOO_BIG)
        mtu = data & 0xFFFFFFFF if is_too_big else 0
        self._indicate(allocation, XorPeerAddress(peer), Icmp(icmp_type, icmp_code, mtu))

    def _to_peer(
        self,
        allocation: Allocation,
        payload: Buffer,
        relayed: Address,
        peer: Address,
        segment_size: int | None,
        now: float,
        permission: Permission,
        *,
        stays_whole: bool = False,
    ) -> None:
        if not self._quota.take(allocation.user, len(payload), now):
            self._counters["dropped_rate"] += 1
            return
        if not permission.is_own:
            transmit = Transmit(payload, peer, relayed, segment_size, dont_fragment=stays_whole)
            self._transmits.append(transmit)
            return
        other = self._allocations.of_relayed(peer)
        if other is not None:
            self.from_peer(other, payload, relayed, segment_size, now, is_inside=True)
            return
        bound = self._elsewhere(peer)
        if bound is None:
            self._counters["dropped_inside"] += 1
            return
        self._transmits.append(Transmit(payload, bound, relayed, segment_size))

    def _to_channel(
        self, allocation: Allocation, number: int, data: Buffer, segment_size: int | None
    ) -> None:
        client, local, transport = allocation.client, allocation.local, allocation.transport
        if transport.is_stream:
            stream = channel_data.wrap_stream(number, data, segment_size)
            self._transmits.append(Transmit(stream, client, local, transport=transport))
            return
        if segment_size is None or segment_size >= len(data):
            if len(data) > MAX_DATAGRAM - channel_data.HEADER_SIZE:
                self._counters["dropped_large"] += 1
                return
            self._transmits.append(Transmit(channel_data.wrap(number, data), client, local))
            return
        wrapped = channel_data.wrap_run(number, data, segment_size)
        self._transmits.append(Transmit(wrapped, client, local, segment_size + channel_data.HEADER_SIZE))

    def _to_indication(self, allocation: Allocation, data: memoryview, peer: Address) -> None:
        if len(data) > MAX_DATAGRAM - INDICATION_OVERHEAD:
            self._counters["dropped_large"] += 1
            return
        self._indicate(allocation, XorPeerAddress(peer), Data(bytes(data)))

    def _indicate(self, allocation: Allocation, *attributes: AnyAttribute) -> None:
        indication = Message(
            Method.DATA, MessageClass.INDICATION, self._entropy(TRANSACTION_ID_SIZE), attributes
        )
        self._transmits.append(
            Transmit(indication.encode(), allocation.client, allocation.local, transport=allocation.transport)
        )
