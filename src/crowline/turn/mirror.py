"""Data of allocations that another process decides about.

The process with the `TurnServer` is the owner. A worker has a `Mirror`: it moves the data of clients whose
datagrams reach it, by copies of their allocations, and hands everything else to the owner:

1. Requests, so that whatever is decided is decided in one place.
2. The first data of a client that has moved here, which makes the move final (RFC 8016 §3.2.2).

Relayed addresses of this server that live in other processes are reached by the kernel, at the address that
is bound for them; who speaks from such an address is another allocation of this server. No other address of
this machine is reached, and nothing that comes from one passes as an allocation.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.base.machine import Buffer, Transmit
from crowline.stun.message import HEADER_SIZE, MalformedStun, MessageClass, Method, parse
from crowline.turn import channel_data
from crowline.turn.allocation import Allocation
from crowline.turn.allocation_copy import AllocationCopy
from crowline.turn.allocations import Allocations
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.quota import Limits, Quota
from crowline.turn.relay import DataRelay
from crowline.turn.short_way import ShortWay

# Bits of the message type that are zero in every request (RFC 8489 §5).
_NOT_A_REQUEST = 0x0110


@dataclass(frozen=True, slots=True)
class ForOwner:
    """A datagram that only the owner can answer."""

    data: bytes
    source: Address
    local: Address


class Mirror:
    """One for each worker. What has expired moves no data here, and is ended by the owner."""

    def __init__(
        self, limits: Limits, entropy: Callable[[int], bytes], *, can_set_dont_fragment: bool = False
    ) -> None:
        self.counters: Counter[str] = Counter()
        self.allocations = Allocations()
        self._quota = Quota(limits)
        self._transmits: deque[Transmit] = deque()
        self._events: deque[ForOwner] = deque()
        self.short_way = ShortWay(self.allocations, self._quota)
        self._copies: dict[int, tuple[AllocationCopy, Allocation]] = {}
        self._arriving: set[FiveTuple] = set()
        self._bound: dict[Address, Address] = {}
        self._relayed: dict[Address, Address] = {}
        self._relay = DataRelay(
            self.allocations,
            self._quota,
            self._transmits,
            self.counters,
            entropy,
            can_set_dont_fragment=can_set_dont_fragment,
            elsewhere=self._bound.get,
        )

    # --- what the owner says ----------------------------------------------------------------------------

    def update(self, copy: AllocationCopy, now: float) -> None:
        """An allocation is new, or has changed."""
        allocation = copy.allocation()
        # Charged before the old one is released: the user's rate goes on where it was.
        self._quota.charge(copy.user, copy.client, now)
        self.end(copy.number)
        self._copies[copy.number] = copy, allocation
        self.allocations.add(allocation)

    def end(self, number: int) -> None:
        """An allocation is over, or another worker's now."""
        copy, allocation = self._copies.pop(number, (None, None))
        if copy is None or allocation is None:
            return
        # Whoever still has it at hand sees that it counts no more.
        allocation.is_over = True
        allocation.version += 1
        self.allocations.remove(allocation)
        self._quota.release(copy.user, copy.client)

    def expect(self, five_tuple: FiveTuple) -> None:
        """A client may move to there, and has when it sends data: the owner is to hear of that."""
        self._arriving.add(five_tuple)

    def expect_no_more(self, five_tuple: FiveTuple) -> None:
        """The move is final, or off."""
        self._arriving.discard(five_tuple)

    def divide(self, user: str, places: int) -> None:
        """A user has allocations in that many processes, and a part of its rate in each."""
        self._quota.divide(user, places)

    def set_bound(self, relayed: Address, where: Address | None) -> None:
        """Where a relayed UDP address of this server is bound; behind a 1:1 NAT they differ. ``None``: it is
        gone."""
        before = self._bound.pop(relayed, None)
        if before is not None:
            self._relayed.pop(before, None)
        if where is not None:
            self._bound[relayed] = where
            self._relayed[where] = relayed

    # --- what clients and peers say ---------------------------------------------------------------------

    def receive(
        self, data: Buffer, source: Address, now: float, local: Address, segment_size: int | None = None
    ) -> None:
        """What a client sent: one datagram, or with `segment_size` a run of them; Binding is not for here.

        Bulk data is not copied: take and send every `next_transmit` before `data` is used again.
        """
        size = segment_size or len(data) or 1
        view = memoryview(data)
        five_tuple = FiveTuple(source, local)
        if five_tuple in self._arriving:
            self._for_owner(view, size, five_tuple)
            return
        allocation = self.allocations.of_client(source, local)
        if allocation is not None and allocation.expires <= now:
            allocation = None
        if allocation is not None and channel_data.is_channel_run(view, size):
            self._relay.from_channel(allocation, view, size, now)
            return
        for start in range(0, len(view), size):
            self._receive_datagram(view[start : start + size], allocation, five_tuple, now)

    def receive_from_peer(
        self, data: Buffer, source: Address, now: float, relayed: Address, segment_size: int | None = None
    ) -> None:
        """What a peer sent to the relayed address `relayed`: one datagram, or a run of them."""
        allocation = self.allocations.of_relayed(relayed)
        if allocation is None or allocation.expires <= now:
            self.counters["dropped_peer"] += 1
            return
        sibling = self._relayed.get(source)
        peer = source if sibling is None else sibling
        self._relay.from_peer(allocation, data, peer, segment_size, now, is_inside=sibling is not None)

    def receive_icmp(
        self, relayed: Address, peer: Address, icmp_type: int, icmp_code: int, error_data: int, now: float
    ) -> None:
        """An ICMP error for a datagram from `relayed` to `peer`, as `TurnServer.receive_icmp` takes it."""
        allocation = self.allocations.of_relayed(relayed)
        if allocation is None or allocation.expires <= now:
            self.counters["dropped_icmp"] += 1
            return
        self._relay.icmp_from_peer(allocation, peer, icmp_type, icmp_code, error_data, now)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> ForOwner | None:
        return self._events.popleft() if self._events else None

    def _receive_datagram(
        self, data: memoryview, allocation: Allocation | None, five_tuple: FiveTuple, now: float
    ) -> None:
        if channel_data.is_channel_data(data):
            if allocation is not None:
                self._relay.from_channel(allocation, data, len(data), now)
            else:
                self.counters["dropped_channel"] += 1
            return
        if len(data) < HEADER_SIZE or data[0] & 0xC0:
            self.counters["malformed"] += 1
        elif not int.from_bytes(data[:2], "big") & _NOT_A_REQUEST:
            self._for_owner(data, len(data), five_tuple)
        elif allocation is None:
            self.counters["dropped_send"] += 1
        else:
            self._receive_indication(data, allocation, now)

    def _receive_indication(self, data: memoryview, allocation: Allocation, now: float) -> None:
        try:
            received = parse(data)
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        message = received.message
        if message.message_class is MessageClass.INDICATION and message.method is Method.SEND:
            self._relay.from_send(allocation, received, now)
        else:
            self.counters["not_a_request"] += 1

    def _for_owner(self, data: memoryview, size: int, five_tuple: FiveTuple) -> None:
        assert five_tuple.local is not None, "a worker knows which of its sockets was asked"
        for start in range(0, len(data), size):
            datagram = bytes(data[start : start + size])
            self._events.append(ForOwner(datagram, five_tuple.client, five_tuple.local))
