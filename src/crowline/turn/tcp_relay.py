"""TCP allocations: connections with peers, both ways (RFC 6062).

The machine decides who may connect to whom and when it is over. Bytes do not pass it: its driver moves them
between the two sockets, at the pace that `take` allows.

A peer's refusal and its silence have the same answer, within 30 s, and each connection costs one of the few
that a user may ask for in a minute: a relay is a poor port scanner.
"""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address
from crowline.stun.attributes import AnyAttribute, ConnectionId, ErrorCode, XorPeerAddress
from crowline.stun.message import TRANSACTION_ID_SIZE, Message, MessageClass, Method
from crowline.turn.allocation import Allocation
from crowline.turn.codes import (
    BAD_REQUEST,
    CONNECTION_EXISTS,
    CONNECTION_FAILED,
    FORBIDDEN,
    INSUFFICIENT_CAPACITY,
    Refusal,
)
from crowline.turn.connections import Connection, Phase
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.holdings import Holdings
from crowline.turn.outbox import Request
from crowline.turn.peers import Peers
from crowline.turn.server_events import Dial, Splice

DIAL_TIMEOUT = 30.0  # seconds; the least that RFC 6062 §5.2 allows
BIND_TIMEOUT = 30.0  # seconds, RFC 6062 §5.2 and §5.3


class TcpRelay:
    """Connect and ConnectionBind, and what the driver tells of connections."""

    def __init__(self, holdings: Holdings, peers: Peers, entropy: Callable[[int], bytes]) -> None:
        self._holdings = holdings
        self._outbox = holdings.outbox
        self._connections = holdings.connections
        self._peers = peers
        self._entropy = entropy

    def connect(self, request: Request, allocation: Allocation) -> None:
        """RFC 6062 §5.2. The answer comes when the peer, or time, has given one."""
        if not allocation.relay_transport.is_stream:
            raise Refusal(BAD_REQUEST)
        attribute = request.message.get(XorPeerAddress)
        if attribute is None or attribute.address.port == 0:
            raise Refusal(BAD_REQUEST)
        peer = attribute.address
        held = self._connections.of(allocation)
        if any(connection.peer == peer for connection in held):
            raise Refusal(CONNECTION_EXISTS)
        relay = self._peers.check(peer, allocation)
        if not self._may_meet(peer, allocation):
            raise Refusal(FORBIDDEN)
        quota = self._holdings.quota
        if len(held) >= quota.limits.connections or not quota.take_dial(allocation.user, request.now):
            raise Refusal(INSUFFICIENT_CAPACITY)
        expires = request.now + DIAL_TIMEOUT
        connection = self._connections.open(allocation, peer, Phase.DIALLING, expires, request)
        self._outbox.events.append(Dial(connection.number, relay.address, peer))

    def bind(self, request: Request, allocation: Allocation) -> tuple[AnyAttribute, ...]:
        """RFC 6062 §5.4: the stream that the request came by belongs to the connection from now on."""
        five_tuple = request.five_tuple
        attribute = request.message.get(ConnectionId)
        connection = self._connections.get(attribute.value) if attribute is not None else None
        if connection is None or connection.phase is not Phase.WAITING or not self._is_free(five_tuple):
            raise Refusal(BAD_REQUEST)
        self._connections.bind(connection, five_tuple)
        self._outbox.events.append(
            Splice(connection.number, five_tuple.client, five_tuple.local, five_tuple.transport)
        )
        return (ConnectionId(connection.number),)

    def subject(self, message: Message) -> Allocation | None:
        """The allocation that a ConnectionBind is about."""
        attribute = message.get(ConnectionId)
        connection = self._connections.get(attribute.value) if attribute is not None else None
        return connection.allocation if connection is not None else None

    def dialled(self, number: int, now: float) -> None:
        """The peer has taken a connection; unless it has ended meanwhile, the client is told."""
        connection = self._connections.get(number)
        if connection is None or connection.connect is None:
            return
        request, connection.connect = connection.connect, None
        connection.phase = Phase.WAITING
        self._connections.alarms.set(number, now + BIND_TIMEOUT)
        self._outbox.succeed(request, (ConnectionId(number),))

    def dial_failed(self, number: int) -> None:
        """The peer could not be reached."""
        connection = self._connections.get(number)
        if connection is not None and connection.phase is Phase.DIALLING:
            self._connections.remove(connection)
            self._refuse(connection)

    def peer_connected(self, relayed: Address, peer: Address, now: float) -> int | None:
        """RFC 6062 §5.3: the number of a peer's connection, or ``None`` when it must be closed at once."""
        allocation = self._holdings.allocations.of_tcp_relayed(relayed)
        if allocation is None or not self._takes(allocation, peer, now):
            self._outbox.counters["dropped_connection"] += 1
            return None
        connection = self._connections.open(allocation, peer, Phase.WAITING, now + BIND_TIMEOUT)
        attempt = Message(
            Method.CONNECTION_ATTEMPT,
            MessageClass.INDICATION,
            self._entropy(TRANSACTION_ID_SIZE),
            (ConnectionId(connection.number), XorPeerAddress(peer)),
        )
        self._outbox.send(attempt.encode(), allocation.five_tuple)
        return connection.number

    def closed(self, number: int) -> None:
        """A connection has ended, by either side."""
        connection = self._connections.get(number)
        if connection is None:
            return
        self._connections.remove(connection)
        if connection.phase is Phase.DIALLING:
            self._refuse(connection)

    def take(self, number: int, size: int, now: float) -> float:
        """Charge `size` bytes that moved; seconds to wait before the next, 0.0 within the user's rate."""
        connection = self._connections.get(number)
        if connection is None:
            return 0.0
        return self._holdings.quota.take_all(connection.allocation.user, size, now)

    def handle_timeout(self, now: float) -> None:
        for number in self._connections.alarms.take_due(now):
            connection = self._connections.get(number)
            if connection is None:
                continue
            self._holdings.hang_up(connection)
            if connection.phase is Phase.DIALLING:
                self._refuse(connection)

    def _takes(self, allocation: Allocation, peer: Address, now: float) -> bool:
        """Whether a client that can be told of it wants a connection of `peer`, and has room for it."""
        is_full = len(self._connections.of(allocation)) >= self._holdings.quota.limits.connections
        is_wanted = allocation.is_attached and allocation.permits(peer.host, now) is not None
        return is_wanted and not is_full and self._may_meet(peer, allocation)

    def _is_free(self, five_tuple: FiveTuple) -> bool:
        """Whether it is a stream that carries nothing yet: no allocation, no other connection."""
        held = self._holdings.allocations.of_client(five_tuple.client, five_tuple.local, five_tuple.transport)
        taken = held is not None or self._connections.of_stream(five_tuple) is not None
        return five_tuple.transport.is_stream and not taken

    def _may_meet(self, peer: Address, allocation: Allocation) -> bool:
        """Of this machine's own addresses, only another client's relayed address is a peer."""
        if not self._holdings.ports.is_own_host(peer.host):
            return True
        other = self._holdings.allocations.of_tcp_relayed(peer)
        return other is not None and other is not allocation

    def _refuse(self, connection: Connection) -> None:
        self._outbox.counters[f"refused_{CONNECTION_FAILED}"] += 1
        if connection.connect is not None:
            self._outbox.refuse(connection.connect, (ErrorCode(CONNECTION_FAILED),))
