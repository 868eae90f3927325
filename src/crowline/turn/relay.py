"""What the server does with data: from a client to its peers and back, in runs, with little work a packet.

Peers that are relay addresses of this server are reached inside it: their data goes to the allocation that
lives there, or nowhere. It never leaves for a socket of this machine, whatever listens there.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.stun.attributes import Data, DontFragment, XorPeerAddress
from crowline.stun.message import TRANSACTION_ID_SIZE, Message, MessageClass, Method, Received
from crowline.turn import channel_data
from crowline.turn.allocation import Allocation, Allocations
from crowline.turn.quota import Quota

# What a Data indication adds at most: header, IPv6 peer, attribute header and padding.
INDICATION_OVERHEAD = 20 + 24 + 4 + 3
# The largest UDP payload over IPv4; what would not fit with its header is lost, never cut.
MAX_DATAGRAM = 65507


class DataRelay:
    """Moves data of live allocations; everything it sends goes into `transmits`."""

    def __init__(
        self,
        allocations: Allocations,
        quota: Quota,
        transmits: deque[Transmit],
        counters: Counter[str],
        entropy: Callable[[int], bytes],
    ) -> None:
        self._allocations = allocations
        self._quota = quota
        self._transmits = transmits
        self._counters = counters
        self._entropy = entropy

    def from_channel(self, allocation: Allocation, data: Buffer, segment_size: int, now: float) -> None:
        """A run of ChannelData from the client: RFC 8656 §12.6."""
        for number, parts in channel_data.unwrap_run(data, segment_size):
            channel = allocation.channels.get(number)
            if channel is None or not channel.is_live(now):
                self._counters["dropped_channel"] += 1
                continue
            is_run = len(parts) > 1
            payload: Buffer = b"".join(parts) if is_run else parts[0]
            size = len(parts[0]) if is_run else None
            self._to_peer(allocation, payload, channel.peer, size, now, is_own=channel.permission.is_own)

    def from_send(self, allocation: Allocation, received: Received, now: float) -> None:
        """A Send indication: RFC 8656 §11.2. Nothing is ever answered to one."""
        peer, data = received.message.get(XorPeerAddress), received.message.get(Data)
        if peer is None or data is None or received.message.get(DontFragment) or received.unknown_required:
            self._counters["dropped_send"] += 1
            return
        permission = allocation.permits(peer.address.host, now)
        if permission is None or peer.address.port == 0:
            self._counters["dropped_send"] += 1
            return
        self._to_peer(allocation, data.value, peer.address, None, now, is_own=permission.is_own)

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
        if permission is None or permission.is_own != is_inside:
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

    def _to_peer(
        self,
        allocation: Allocation,
        payload: Buffer,
        peer: Address,
        segment_size: int | None,
        now: float,
        *,
        is_own: bool,
    ) -> None:
        if not self._quota.take(allocation.user, len(payload), now):
            self._counters["dropped_rate"] += 1
            return
        if not is_own:
            self._transmits.append(Transmit(payload, peer, allocation.relayed, segment_size))
            return
        other = self._allocations.of_relayed(peer)
        if other is None:
            self._counters["dropped_inside"] += 1
            return
        self.from_peer(other, payload, allocation.relayed, segment_size, now, is_inside=True)

    def _to_channel(
        self, allocation: Allocation, number: int, data: Buffer, segment_size: int | None
    ) -> None:
        if segment_size is None or segment_size >= len(data):
            if len(data) > MAX_DATAGRAM - channel_data.HEADER_SIZE:
                self._counters["dropped_large"] += 1
                return
            wrapped = channel_data.wrap(number, data)
            self._transmits.append(Transmit(wrapped, allocation.client, allocation.local))
            return
        wrapped = channel_data.wrap_run(number, data, segment_size)
        size = segment_size + channel_data.HEADER_SIZE
        self._transmits.append(Transmit(wrapped, allocation.client, allocation.local, size))

    def _to_indication(self, allocation: Allocation, data: memoryview, peer: Address) -> None:
        if len(data) > MAX_DATAGRAM - INDICATION_OVERHEAD:
            self._counters["dropped_large"] += 1
            return
        indication = Message(
            Method.DATA,
            MessageClass.INDICATION,
            self._entropy(TRANSACTION_ID_SIZE),
            (XorPeerAddress(peer), Data(bytes(data))),
        )
        self._transmits.append(Transmit(indication.encode(), allocation.client, allocation.local))
