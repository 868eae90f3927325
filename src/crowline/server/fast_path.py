"""The fast path: what comes most often and needs least, out of a batch and into the next.

Those are bare Binding requests, the plainest Allocate, which gets a challenge, and ChannelData.

All of it works in the memory that the datagram was received into: an answer is written over its request,
payload leaves from where it lies, behind the four bytes of a header or with them put before it; between two
clients of this server the header stays, with another number. The long way (`udp_front`, `turn_driver`)
decides whatever is not handled here, and nothing is allowed here that would not be allowed there.
"""

from __future__ import annotations

import struct
from collections import Counter
from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.base.machine import Transmit
from crowline.net.arrival import Arrival
from crowline.net.exchange import Exchange, Head
from crowline.net.udp import BatchSocket
from crowline.server.relay_ports import SocketRelayPorts
from crowline.server.udp_front import UdpFront
from crowline.stun.budget import ReplyBudget
from crowline.stun.message import HEADER_SIZE
from crowline.stun.responder import BARE_REQUEST, Responder, bare_answer
from crowline.stun.sources import is_plausible_source
from crowline.turn.channel_data import number_of_run, renumber_run
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

    __slots__ = (
        "account", "allocation", "beyond", "epoch", "head", "number", "socket", "until", "version",
    )  # fmt: skip

    def __init__(
        self, way: Way, carrier: BatchSocket, head: Head, epoch: int, beyond: _Lane | None = None
    ) -> None:
        """`beyond`: the lane to the peer's client where that is one of this server too, by whose socket all
        leaves then."""
        self.allocation = way.allocation
        self.version = way.version
        self.until = way.until
        self.account = way.account
        self.number = way.channel.number
        self.socket = carrier
        self.head = head
        self.epoch = epoch
        self.beyond = beyond

    def is_good(self, now: float, epoch: int) -> bool:
        """Whether it leads where it led when it was found."""
        if now >= self.until or self.version != self.allocation.version or self.epoch != epoch:
            return False
        return self.beyond is None or self.beyond.is_good(now, epoch)

    def takes(self, size: int, now: float) -> bool:
        """Whether so many bytes may go by it; they are charged then."""
        if self.socket.queue or not self.account.take(size, now):
            return False
        if self.beyond is None or self.beyond.takes(size, now):
            return True
        self.account.give_back(size)
        return False


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
        front_socket: Callable[[Address | None], object],
        challenge: ShortChallenge | None,
    ) -> None:
        """`relay_socket(relayed)` is the socket of a relayed address, `front_socket(local)` the one that a
        client's allocation asked."""
        self._socket = bound
        self._exchange = exchange
        self._view = exchange.view
        self._responder = responder
        self._budget = budget
        self._counters = counters
        self._short_way = short_way
        self._relay_socket = relay_socket
        self._front_socket = front_socket
        self._challenge = challenge

    def take(self, offset: int, length: int, arrival: Arrival) -> bool:
        """One datagram or run (`net.arrival.Quick`)."""
        if arrival.segment_size:
            return self._relay_run(offset, length, arrival)
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
        lane = self._lane(arrival, number) if size <= length - _HEADER_SIZE else None
        if lane is None or not lane.takes(size, self._exchange.now):
            return False
        place = self._exchange.start + offset
        if lane.beyond is None:
            self._exchange.stage(lane.socket, lane.head, place + _HEADER_SIZE, size)
        else:
            _HEADER.pack_into(self._view, offset, lane.beyond.number, size)
            self._exchange.stage(lane.socket, lane.head, place, _HEADER_SIZE + size)
        return True

    def _relay_run(self, offset: int, length: int, arrival: Arrival) -> bool:
        """A run of it for another client of this server. To peers outside, the long way is no longer."""
        size = arrival.segment_size
        run = self._view[offset : offset + length]
        number = number_of_run(run, size)
        lane = self._lane(arrival, number) if number is not None else None
        beyond = lane.beyond if lane is not None else None
        payload = length - _HEADER_SIZE * -(-length // size)
        if lane is None or beyond is None or not lane.takes(payload, self._exchange.now):
            return False
        renumber_run(run, size, beyond.number)
        client, local = beyond.allocation.client, beyond.allocation.local
        beyond.socket.send(Transmit(run, client, local, size))
        return True

    def _lane(self, arrival: Arrival, number: int) -> _Lane | None:
        """Where a channel of that source leads."""
        asker = arrival.note or self._meet(arrival)
        if not isinstance(asker, _Asker):
            return None
        lane = asker.lanes.get(number)
        if lane is not None and lane.is_good(self._exchange.now, self._exchange.epoch):
            return lane
        asker.lanes.pop(number, None)
        lane = self._find_lane(arrival, number)
        if lane is not None:
            if len(asker.lanes) >= _MOST_LANES:
                asker.lanes.clear()
            asker.lanes[number] = lane
        return lane

    def _find_lane(self, arrival: Arrival, number: int) -> _Lane | None:
        exchange = self._exchange
        way = self._short_way.to_peer(
            arrival.source, arrival.local or self._socket.local, number, exchange.now
        )
        if way is None:
            return None
        if way.is_inside:
            beyond = self._lane_inside(way)
            return beyond and _Lane(way, beyond.socket, beyond.head, exchange.epoch, beyond)
        relay = self._relay_socket(way.channel.relayed)
        if not isinstance(relay, BatchSocket) or relay.fd < 0:
            return None
        return _Lane(way, relay, exchange.head_of(way.channel.peer, None), exchange.epoch)

    def _lane_inside(self, way: Way) -> _Lane | None:
        back = self._short_way.inside(way, self._exchange.now)
        return _lane_to_client(back, self._front_socket, self._exchange)

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
        """One datagram of a peer: a header is put before it. There is no room for those of a run."""
        if arrival.segment_size:
            return False
        exchange, lane = self._exchange, arrival.note
        if not isinstance(lane, _Lane) or not lane.is_good(exchange.now, exchange.epoch):
            lane = arrival.note = self._find_lane(arrival.source)
        if lane is None or not lane.takes(length, exchange.now):
            return False
        start = offset - _HEADER_SIZE
        _HEADER.pack_into(exchange.view, start, lane.number, length)
        exchange.stage(lane.socket, lane.head, exchange.start + start, length + _HEADER_SIZE)
        return True

    def _find_lane(self, peer: Address) -> _Lane | None:
        way = self._short_way.to_client(self._relayed, peer, self._exchange.now)
        return _lane_to_client(way, self._front_socket, self._exchange)


def _lane_to_client(
    way: Way | None, front_socket: Callable[[Address | None], object], exchange: Exchange
) -> _Lane | None:
    """The lane of what comes for the client of an allocation."""
    if way is None:
        return None
    front = front_socket(way.allocation.local)
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
            front_socket=front.socket_for,
            challenge=challenge,
        )
        bound.ask_first(fast.take)


def quicken_relay(relayed: Address, bound: object, front: UdpFront, short_way: ShortWay) -> None:
    """Give the fast path to the socket of a relayed address."""
    if isinstance(bound, BatchSocket) and isinstance(bound.exchange, Exchange):
        relay = FastRelay(relayed, bound.exchange, short_way, front.socket_for)
        bound.ask_first(relay.take, _MOST_PEERS)
