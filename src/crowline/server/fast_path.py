"""The fast path: bare Binding requests and single ChannelData datagrams, out of a batch and into the next.

Both directions work in the memory that the datagram was received into: an answer is written over its request,
payload leaves from where it lies, behind the four bytes of a header or with them put before it. The long way
(`udp_front`, `turn_driver`) decides whatever is not handled here, and nothing is allowed here that would not
be allowed there.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.net.arrival import Arrival
from crowline.net.exchange import Exchange, Head
from crowline.net.udp import BatchSocket
from crowline.server.relay_ports import SocketRelayPorts
from crowline.server.udp_front import UdpFront
from crowline.stun.budget import ReplyBudget
from crowline.stun.responder import BARE_REQUEST, Responder, bare_answer
from crowline.stun.sources import is_plausible_source
from crowline.turn.allocation import Allocation, Channel
from crowline.turn.short_way import ShortWay

_REQUEST_SIZE = 20
_ANSWER_SIZE = 32  # over IPv4
_HEADER = struct.Struct("!HH")
_HEADER_SIZE = _HEADER.size


class _Asker:
    """A source: its slot in the budget, its answer but for the transaction, its allocation if it has one."""

    __slots__ = (
        "allocation", "channel", "client", "epoch", "head", "relay", "relay_epoch", "relay_way", "slot",
        "tail", "way",
    )  # fmt: skip

    def __init__(self, slot: int, head: bytes, tail: bytes) -> None:
        self.slot = slot
        self.head = head
        self.tail = tail
        self.epoch = -1
        self.way: Head = (0, 0, 0, 0)
        self.allocation: Allocation | None = None
        self.client: Address | None = None
        # The channel that was used last, and how its data leaves.
        self.channel: Channel | None = None
        self.relay: object = None
        self.relay_epoch = -1
        self.relay_way: Head = (0, 0, 0, 0)


class FastFront:
    """The fast path of one socket that clients talk to."""

    def __init__(
        self,
        bound: BatchSocket,
        exchange: Exchange,
        *,
        responder: Responder,
        budget: ReplyBudget,
        counters: Counter[str],
        short_way: ShortWay,
        relay_socket: Callable[[Address], object],
    ) -> None:
        """`relay_socket(relayed)` is the socket of a relayed address."""
        self._socket = bound
        self._exchange = exchange
        self._view = exchange.view
        self._responder = responder
        self._budget = budget
        self._counters = counters
        self._short_way = short_way
        self._relay_socket = relay_socket

    def take(self, offset: int, length: int, arrival: Arrival) -> bool:
        """One datagram (`net.arrival.Quick`)."""
        first = self._view[offset]
        if first & 0xF0 == 0x40:
            return self._relay(offset, length, arrival)
        if first or length != _REQUEST_SIZE or self._view[offset : offset + 8] != BARE_REQUEST:
            return False
        asker = arrival.note or self._meet(arrival)
        if not isinstance(asker, _Asker) or not asker.tail or self._responder.alternates is not None:
            return False
        exchange = self._exchange
        if not self._budget.take_at(asker.slot, exchange.now):
            self._counters["over_budget"] += 1
            return True
        self._view[offset : offset + 4] = asker.head
        self._view[offset + _REQUEST_SIZE : offset + _ANSWER_SIZE] = asker.tail
        self._responder.counters["answered"] += 1
        if asker.epoch != exchange.epoch:
            asker.way = self._socket.head_of(arrival.source, arrival.local)
            asker.epoch = exchange.epoch
        exchange.stage(self._socket, asker.way, exchange.start + offset, _ANSWER_SIZE)
        return True

    def _relay(self, offset: int, length: int, arrival: Arrival) -> bool:
        """ChannelData: its payload goes on from where it lies."""
        if length < _HEADER_SIZE:
            return False
        number, size = _HEADER.unpack_from(self._view, offset)
        asker = arrival.note or self._meet(arrival)
        if not isinstance(asker, _Asker) or size > length - _HEADER_SIZE:
            return False
        allocation = asker.allocation
        if allocation is None or allocation.is_over or allocation.client is not asker.client:
            local = arrival.local or self._socket.local
            allocation = asker.allocation = self._short_way.of_client(arrival.source, local)
            if allocation is None:
                return False
            asker.client = allocation.client
        exchange = self._exchange
        channel = self._short_way.to_peer(allocation, number, exchange.now)
        if channel is None:
            return False
        if asker.channel is not channel or asker.relay_epoch != exchange.epoch:
            asker.relay = self._relay_socket(channel.relayed)
            asker.relay_way = exchange.head_of(channel.peer, None)
            asker.channel, asker.relay_epoch = channel, exchange.epoch
        relay = asker.relay
        if not isinstance(relay, BatchSocket) or relay.queue or relay.fd < 0:
            return False
        if not self._short_way.charge(allocation, size, exchange.now):
            return False
        exchange.stage(relay, asker.relay_way, exchange.start + offset + _HEADER_SIZE, size)
        return True

    def _meet(self, arrival: Arrival) -> object:
        """Remember a source. Over IPv6 each answer is another one, since the transaction is part of it."""
        source = arrival.source
        if not is_plausible_source(source):
            arrival.note = False
        elif source.is_ipv6:
            arrival.note = _Asker(self._budget.slot_of(source), b"", b"")
        else:
            answer = bare_answer(bytes(12), source)
            arrival.note = _Asker(self._budget.slot_of(source), answer[:4], answer[_REQUEST_SIZE:])
        return arrival.note


class FastRelay:
    """The fast path of the socket of one relayed address."""

    __slots__ = (
        "_allocation", "_client", "_epoch", "_exchange", "_front", "_front_socket", "_relayed", "_short_way",
        "_way",
    )  # fmt: skip

    def __init__(
        self,
        relayed: Address,
        exchange: Exchange,
        short_way: ShortWay,
        front_socket: Callable[[Address | None], object],
    ) -> None:
        """`front_socket(local)` is the socket that a client's allocation asked."""
        self._relayed = relayed
        self._exchange = exchange
        self._short_way = short_way
        self._front_socket = front_socket
        self._allocation: Allocation | None = None
        self._client: Address | None = None
        self._front: BatchSocket | None = None
        self._epoch = -1
        self._way: Head = (0, 0, 0, 0)

    def take(self, offset: int, length: int, arrival: Arrival) -> bool:
        """One datagram of a peer: a header is put before it."""
        allocation = self._allocation
        if allocation is None or allocation.is_over or allocation.client is not self._client:
            allocation = self._learn()
        front = self._front
        if allocation is None or front is None or front.queue or front.fd < 0:
            return False
        exchange = self._exchange
        channel = self._short_way.to_client(allocation, arrival.source, exchange.now)
        if channel is None or not self._short_way.charge(allocation, length, exchange.now):
            return False
        start = offset - _HEADER_SIZE
        _HEADER.pack_into(exchange.view, start, channel.number, length)
        if self._epoch != exchange.epoch:
            self._way, self._epoch = front.head_of(allocation.client, allocation.local), exchange.epoch
        exchange.stage(front, self._way, exchange.start + start, length + _HEADER_SIZE)
        return True

    def _learn(self) -> Allocation | None:
        allocation = self._allocation = self._short_way.of_relayed(self._relayed)
        if allocation is not None:
            self._client, self._epoch = allocation.client, -1
            found = self._front_socket(allocation.local)
            self._front = found if isinstance(found, BatchSocket) else None
        return allocation


def quicken(front: UdpFront, ports: SocketRelayPorts, short_way: ShortWay) -> None:
    """Give the fast path to all sockets that `front` has and `ports` will open, where there are batches."""
    for bound in front.sockets:
        quicken_front(bound, front, short_way, ports.socket_of)
    ports.on_open = lambda relayed, bound: quicken_relay(relayed, bound, front, short_way)


def quicken_front(
    bound: object, front: UdpFront, short_way: ShortWay, relay_socket: Callable[[Address], object]
) -> None:
    """Give the fast path to a socket of `front`; `relay_socket(relayed)` finds what the data leaves by."""
    if isinstance(bound, BatchSocket) and isinstance(bound.exchange, Exchange):
        fast = FastFront(
            bound,
            bound.exchange,
            responder=front.responder,
            budget=front.budget,
            counters=front.counters,
            short_way=short_way,
            relay_socket=relay_socket,
        )
        bound.ask_first(fast.take)


def quicken_relay(relayed: Address, bound: object, front: UdpFront, short_way: ShortWay) -> None:
    """Give the fast path to the socket of a relayed address."""
    if isinstance(bound, BatchSocket) and isinstance(bound.exchange, Exchange):
        bound.ask_first(FastRelay(relayed, bound.exchange, short_way, front.socket_for).take)
