"""The fast path: what comes most often and needs least, out of a batch and into the next.

Those are bare Binding requests, the plainest Allocate, which gets a challenge, and single ChannelData.

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
from crowline.stun.message import HEADER_SIZE
from crowline.stun.responder import BARE_REQUEST, Responder, bare_answer
from crowline.stun.sources import is_plausible_source
from crowline.turn.server import TurnServer
from crowline.turn.short_challenge import (
    PLAIN_ALLOCATE_END,
    PLAIN_ALLOCATE_SIZE,
    PLAIN_ALLOCATE_START,
    ShortChallenge,
)
from crowline.turn.short_way import ShortWay, Way

_REQUEST_SIZE = 20
_ANSWER_SIZE = 32  # over IPv4
_HEADER = struct.Struct("!HH")
_HEADER_SIZE = _HEADER.size
# Peers of one relayed address that are remembered: anybody can be one, and there are many such addresses.
_MOST_PEERS = 64
# Channels of one source that are remembered; an allocation has no more at a time unless it was allowed to.
_MOST_LANES = 32


class _Asker:
    """A source: its slot in the budget, its answer but for the transaction, and where its channels lead."""

    __slots__ = ("epoch", "head", "lanes", "slot", "tail", "way")

    def __init__(self, slot: int, head: bytes, tail: bytes) -> None:
        self.slot = slot
        self.head = head
        self.tail = tail
        self.epoch = -1
        self.way: Head = (0, 0, 0, 0)
        self.lanes: dict[int, _Lane] = {}


class _Lane:
    """A `Way` and how its datagrams leave. It is good while those who may end it say nothing."""

    __slots__ = ("account", "allocation", "epoch", "head", "number", "socket", "until", "version")

    def __init__(self, way: Way, carrier: BatchSocket, head: Head, epoch: int) -> None:
        self.allocation = way.allocation
        self.version = way.version
        self.until = way.until
        self.account = way.account
        self.number = way.channel.number
        self.socket = carrier
        self.head = head
        self.epoch = epoch


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
        challenge: ShortChallenge | None,
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
        self._challenge = challenge

    def take(self, offset: int, length: int, arrival: Arrival) -> bool:
        """One datagram (`net.arrival.Quick`)."""
        first = self._view[offset]
        if first & 0xF0 == 0x40:
            return self._relay(offset, length, arrival)
        if first or length != _REQUEST_SIZE or self._view[offset : offset + 8] != BARE_REQUEST:
            return length == PLAIN_ALLOCATE_SIZE and self._challenge_at(offset, arrival)
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
        self._answer(asker, arrival, offset, _ANSWER_SIZE)
        return True

    def _challenge_at(self, offset: int, arrival: Arrival) -> bool:
        """What may be the plainest Allocate: its answer is written over it."""
        view, body, end = self._view, offset + HEADER_SIZE, offset + PLAIN_ALLOCATE_SIZE
        start = offset + len(PLAIN_ALLOCATE_START)
        if view[offset:start] != PLAIN_ALLOCATE_START or view[body:end] != PLAIN_ALLOCATE_END:
            return False
        asker = arrival.note or self._meet(arrival)
        if self._challenge is None or not isinstance(asker, _Asker):
            return False
        answer = self._challenge.answer(bytes(view[start:body]), arrival.source, self._exchange.now)
        if answer is None:
            return False
        view[offset : offset + len(answer)] = answer
        self._answer(asker, arrival, offset, len(answer))
        return True

    def _answer(self, asker: _Asker, arrival: Arrival, offset: int, size: int) -> None:
        exchange = self._exchange
        if asker.epoch != exchange.epoch:
            asker.way = self._socket.head_of(arrival.source, arrival.local)
            asker.epoch = exchange.epoch
        exchange.stage(self._socket, asker.way, exchange.start + offset, size)

    def _relay(self, offset: int, length: int, arrival: Arrival) -> bool:
        """ChannelData: its payload goes on from where it lies."""
        if length < _HEADER_SIZE:
            return False
        number, size = _HEADER.unpack_from(self._view, offset)
        asker = arrival.note or self._meet(arrival)
        if not isinstance(asker, _Asker) or size > length - _HEADER_SIZE:
            return False
        exchange = self._exchange
        now = exchange.now
        lane = asker.lanes.get(number)
        if (
            lane is None
            or now >= lane.until
            or lane.version != lane.allocation.version
            or lane.epoch != exchange.epoch
        ):
            lane = self._find_lane(asker, arrival, number)
            if lane is None:
                return False
        if lane.socket.queue or not lane.account.take(size, now):
            return False
        exchange.stage(lane.socket, lane.head, exchange.start + offset + _HEADER_SIZE, size)
        return True

    def _find_lane(self, asker: _Asker, arrival: Arrival, number: int) -> _Lane | None:
        exchange = self._exchange
        asker.lanes.pop(number, None)
        way = self._short_way.to_peer(
            arrival.source, arrival.local or self._socket.local, number, exchange.now
        )
        if way is None:
            return None
        relay = self._relay_socket(way.channel.relayed)
        if not isinstance(relay, BatchSocket) or relay.fd < 0:
            return None
        if len(asker.lanes) >= _MOST_LANES:
            asker.lanes.clear()
        head = exchange.head_of(way.channel.peer, None)
        lane = asker.lanes[number] = _Lane(way, relay, head, exchange.epoch)
        return lane

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

    __slots__ = ("_exchange", "_front_socket", "_relayed", "_short_way")

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

    def take(self, offset: int, length: int, arrival: Arrival) -> bool:
        """One datagram of a peer: a header is put before it."""
        exchange = self._exchange
        now = exchange.now
        lane = arrival.note
        if (
            not isinstance(lane, _Lane)
            or now >= lane.until
            or lane.version != lane.allocation.version
            or lane.epoch != exchange.epoch
        ):
            lane = arrival.note = self._find_lane(arrival.source)
            if lane is None:
                return False
        if lane.socket.queue or not lane.account.take(length, now):
            return False
        start = offset - _HEADER_SIZE
        _HEADER.pack_into(exchange.view, start, lane.number, length)
        exchange.stage(lane.socket, lane.head, exchange.start + start, length + _HEADER_SIZE)
        return True

    def _find_lane(self, peer: Address) -> _Lane | None:
        exchange = self._exchange
        way = self._short_way.to_client(self._relayed, peer, exchange.now)
        if way is None:
            return None
        front = self._front_socket(way.allocation.local)
        if not isinstance(front, BatchSocket) or front.fd < 0:
            return None
        head = front.head_of(way.allocation.client, way.allocation.local)
        return _Lane(way, front, head, exchange.epoch)


def quicken(front: UdpFront, ports: SocketRelayPorts, machine: TurnServer) -> None:
    """Give the fast path to all sockets that `front` has and `ports` will open, where there are batches."""
    short_way = machine.short_way
    for bound in front.sockets:
        quicken_front(bound, front, short_way, ports.socket_of, machine.short_challenge)
    ports.on_open = lambda relayed, bound: quicken_relay(relayed, bound, front, short_way)


def quicken_front(
    bound: object,
    front: UdpFront,
    short_way: ShortWay,
    relay_socket: Callable[[Address], object],
    challenge: ShortChallenge | None = None,
) -> None:
    """Give the fast path to a socket of `front`; `relay_socket(relayed)` finds what the data leaves by, and
    `challenge` answers whoever begins."""
    if isinstance(bound, BatchSocket) and isinstance(bound.exchange, Exchange):
        fast = FastFront(
            bound,
            bound.exchange,
            responder=front.responder,
            budget=front.budget,
            counters=front.counters,
            short_way=short_way,
            relay_socket=relay_socket,
            challenge=challenge,
        )
        bound.ask_first(fast.take)


def quicken_relay(relayed: Address, bound: object, front: UdpFront, short_way: ShortWay) -> None:
    """Give the fast path to the socket of a relayed address."""
    if isinstance(bound, BatchSocket) and isinstance(bound.exchange, Exchange):
        relay = FastRelay(relayed, bound.exchange, short_way, front.socket_for)
        bound.ask_first(relay.take, _MOST_PEERS)
