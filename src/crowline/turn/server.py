"""The TURN server: RFC 8656 over UDP, TCP and TLS, with TCP allocations (RFC 6062) and mobility (RFC 8016).

Rules of this machine:

1. Parse, authenticate, act. Before a request is authenticated nothing is stored for it; over UDP, where its
   source may be forged, the answer is small and within the budget of that source.
2. Whether a peer may be talked to is asked once, when a permission, a channel or a connection is made: the
   address policy and `permits` must both agree. This server's own relay addresses are always allowed, and
   then reached inside.
3. Indications and ChannelData are never answered.
4. Whatever ends, ends in `Holdings`, which gives back everything that hung on it.
"""

from __future__ import annotations

from collections.abc import Callable

from crowline.base.addresses import Address, AddressPolicy
from crowline.base.machine import Buffer, Transmit
from crowline.base.transport import Transport
from crowline.stun.attributes import AnyAttribute, ErrorCode, MobilityTicket
from crowline.stun.budget import CHALLENGE, MAX_AMPLIFICATION, ReplyBudget
from crowline.stun.message import MalformedStun, Message, MessageClass, Method, Received, parse
from crowline.stun.sources import is_plausible_source
from crowline.turn import channel_data
from crowline.turn.allocating import Allocator
from crowline.turn.allocation import Allocation
from crowline.turn.auth import Authenticator, Rejected
from crowline.turn.checks import check_unknown, held_by, is_retransmission
from crowline.turn.codes import BAD_REQUEST, NO_ANSWER, Refusal
from crowline.turn.five_tuple import FiveTuple
from crowline.turn.holdings import Holdings
from crowline.turn.outbox import Outbox, Request
from crowline.turn.peers import Peers
from crowline.turn.ports import RelayPorts
from crowline.turn.quota import Limits
from crowline.turn.refreshing import Refresher
from crowline.turn.relay import DataRelay
from crowline.turn.server_events import ServerEvent
from crowline.turn.short_challenge import ShortChallenge
from crowline.turn.short_way import ShortWay
from crowline.turn.tcp_relay import TcpRelay

_METHODS = frozenset({
    Method.ALLOCATE, Method.REFRESH, Method.CREATE_PERMISSION, Method.CHANNEL_BIND, Method.CONNECT,
    Method.CONNECTION_BIND,
})  # fmt: skip


class TurnServer:
    """One machine for all clients.

    Client address, `local` (the server address that the client asked) and `transport` are the 5-tuple.
    Streams come cut into whole messages, without padding; `turn.framing.StreamFramer` does that.
    """

    def __init__(
        self,
        authenticator: Authenticator,
        ports: RelayPorts,
        *,
        permits: Callable[[str, Address], bool],
        policy: AddressPolicy,
        entropy: Callable[[int], bytes],
        limits: Limits | None = None,
        budget: ReplyBudget | None = None,
        mobility: bool = True,
    ) -> None:
        """`permits(user, peer)` gets the user that credentials were issued to; it must agree to a peer."""
        self._outbox = outbox = Outbox()
        self._holdings = holdings = Holdings(ports, limits or Limits(), outbox, entropy)
        self.counters = outbox.counters
        self.allocations = holdings.allocations
        self._authenticator = authenticator
        self._ports = ports
        self._budget = budget or ReplyBudget(CHALLENGE)
        self._allocator = Allocator(holdings, mobility=mobility)
        self._refresher = Refresher(holdings, mobility=mobility)
        self._peers = Peers(holdings, policy, permits)
        self._tcp = TcpRelay(holdings, self._peers, entropy)
        self.short_way = ShortWay(holdings.allocations, holdings.quota)
        self.short_challenge = ShortChallenge(authenticator, self._budget, outbox.counters)
        self._relay = DataRelay(
            holdings.allocations,
            holdings.quota,
            outbox.transmits,
            outbox.counters,
            entropy,
            can_set_dont_fragment=ports.can_set_dont_fragment,
        )

    # --- datagrams and messages -------------------------------------------------------------------------

    def receive(
        self,
        data: Buffer,
        source: Address,
        now: float,
        local: Address | None = None,
        segment_size: int | None = None,
        transport: Transport = Transport.UDP,
    ) -> None:
        """What a client sent: one datagram, or with `segment_size` a run of them; of a stream one message.

        Bulk data is not copied: take and send every `next_transmit` before `data` is used again.
        """
        if self.allocations.alarms.is_due(now):
            self.handle_timeout(now)
        size = segment_size or len(data) or 1
        view = memoryview(data)
        allocation = self.allocations.of_client(source, local, transport)
        if allocation is not None and channel_data.is_channel_run(view, size):
            self._from_channel(allocation, view, size, source, local, transport, now)
            return
        for start in range(0, len(view), size):
            piece = view[start : start + size]
            if not channel_data.is_channel_data(piece):
                self._receive_stun(piece, FiveTuple(source, local, transport), now)
            elif allocation is not None and not allocation.is_over:
                self._from_channel(allocation, piece, len(piece), source, local, transport, now)
            else:
                self.counters["dropped_channel"] += 1

    def receive_from_peer(
        self,
        data: Buffer,
        source: Address,
        now: float,
        relayed: Address,
        segment_size: int | None = None,
        *,
        is_inside: bool = False,
    ) -> None:
        """What a peer sent to the relayed address `relayed`: one datagram, or a run of them.

        `is_inside` says that `source` is a relayed address of this server, which another process has.
        """
        if self.allocations.alarms.is_due(now):
            self.handle_timeout(now)
        allocation = self.allocations.of_relayed(relayed)
        if allocation is None:
            self.counters["dropped_peer"] += 1
            return
        self._relay.from_peer(allocation, data, source, segment_size, now, is_inside=is_inside)

    def receive_icmp(
        self, relayed: Address, peer: Address, icmp_type: int, icmp_code: int, error_data: int, now: float
    ) -> None:
        """An ICMP error for a datagram from `relayed` to `peer`; `error_data` is the MTU of a "too big".

        The port of `peer` is 0 where the driver does not know it.
        """
        allocation = self.allocations.of_relayed(relayed)
        if allocation is None:
            self.counters["dropped_icmp"] += 1
            return
        self._relay.icmp_from_peer(allocation, peer, icmp_type, icmp_code, error_data, now)

    def handle_timeout(self, now: float) -> None:
        self._holdings.handle_timeout(now)
        self._tcp.handle_timeout(now)

    def next_timeout(self) -> float | None:
        return self._holdings.next_timeout()

    def next_transmit(self) -> Transmit | None:
        transmits = self._outbox.transmits
        return transmits.popleft() if transmits else None

    def next_event(self) -> ServerEvent | None:
        """What to do about TCP connections with peers, after everything that `next_transmit` gives."""
        events = self._outbox.events
        return events.popleft() if events else None

    # --- streams and connections ------------------------------------------------------------------------

    def disconnect(self, client: Address, local: Address | None, transport: Transport, now: float) -> None:
        """The stream of a client ended, and with it its allocation, unless that may move."""
        five_tuple = FiveTuple(client, local, transport)
        connection = self._holdings.connections.of_stream(five_tuple)
        if connection is not None:
            self.connection_closed(connection.number, now)
        allocation = self.allocations.of_client(client, local, transport)
        if allocation is not None:
            self._refresher.lost(allocation, five_tuple)

    def is_busy(self, client: Address, local: Address | None, transport: Transport) -> bool:
        """Whether a client's stream carries an allocation or a connection, and may be silent."""
        five_tuple = FiveTuple(client, local, transport)
        is_spliced = self._holdings.connections.of_stream(five_tuple) is not None
        return is_spliced or self.allocations.of_client(client, local, transport) is not None

    def dialled(self, connection: int, now: float) -> None:
        """The connection that a `Dial` asked for is open."""
        self._tcp.dialled(connection, now)

    def dial_failed(self, connection: int, now: float) -> None:
        """The connection that a `Dial` asked for could not be opened."""
        self._tcp.dial_failed(connection)

    def peer_connected(self, relayed: Address, peer: Address, now: float) -> int | None:
        """A peer has connected to a relayed TCP address: the connection's number, or ``None`` to close it."""
        return self._tcp.peer_connected(relayed, peer, now)

    def connection_closed(self, connection: int, now: float) -> None:
        """Either half of a connection ended. The driver closes the other half: no `HangUp` comes."""
        self._tcp.closed(connection)

    def take(self, connection: int, size: int, now: float) -> float:
        """Charge `size` bytes of a connection; seconds until the next may, 0.0 within the user's rate."""
        return self._tcp.take(connection, size, now)

    # --- the whole server -------------------------------------------------------------------------------

    @property
    def on_change(self) -> Callable[[Allocation], None] | None:
        """Called with each allocation that was made, prolonged, opened to a peer, moved or ended."""
        return self._holdings.on_change

    @on_change.setter
    def on_change(self, hook: Callable[[Allocation], None] | None) -> None:
        self._holdings.on_change = hook

    def divide(self, user: str, places: int) -> None:
        """A user's data flows in that many processes, each of which has a part of the rate."""
        self._holdings.quota.divide(user, places)

    @property
    def is_idle(self) -> bool:
        """Whether nobody holds anything."""
        return not self.allocations and not self._holdings.reservations

    def drain(self, alternate: Address | None, now: float) -> None:
        """Take no new allocations: clients are sent to `alternate` (300) or away (508). Old ones go on."""
        self.handle_timeout(now)
        self._allocator.drain(alternate)

    def close(self) -> None:
        """End every allocation and give all ports back."""
        for allocation in self.allocations:
            self._holdings.end(allocation)
        self._holdings.end_reservations()

    # --- parse, authenticate, act -----------------------------------------------------------------------

    def _from_channel(
        self,
        allocation: Allocation,
        view: memoryview,
        size: int,
        source: Address,
        local: Address | None,
        transport: Transport,
        now: float,
    ) -> None:
        if allocation.moving_to is not None:
            self._refresher.heard(allocation, FiveTuple(source, local, transport))
        self._relay.from_channel(allocation, view, size, now)

    def _receive_stun(self, data: memoryview, five_tuple: FiveTuple, now: float) -> None:
        try:
            received = parse(data)
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        message = received.message
        if message.message_class is MessageClass.INDICATION and message.method is Method.SEND:
            self._on_send(received, five_tuple, now)
        elif message.message_class is not MessageClass.REQUEST or message.method not in _METHODS:
            self.counters["not_a_request"] += 1
        elif not is_plausible_source(five_tuple.client):
            self.counters["implausible_source"] += 1
        elif self._holdings.connections.of_stream(five_tuple) is not None:
            self.counters["dropped_spliced"] += 1
        else:
            self._on_request(received, five_tuple, now)

    def _on_send(self, received: Received, five_tuple: FiveTuple, now: float) -> None:
        allocation = self._of(five_tuple)
        if allocation is None:
            self.counters["dropped_send"] += 1
            return
        if allocation.moving_to is not None:
            self._refresher.heard(allocation, five_tuple)
        self._relay.from_send(allocation, received, now)

    def _on_request(self, received: Received, five_tuple: FiveTuple, now: float) -> None:
        due = self._holdings.next_timeout()
        if due is not None and due <= now:
            self.handle_timeout(now)
        message = received.message
        allocation = self._subject(message, five_tuple)
        is_allocate = message.method is Method.ALLOCATE
        if allocation is not None and is_allocate and is_retransmission(received, allocation):
            # RFC 8656 §7.2, the note: a success that was lost is given again, not turned into a 437.
            self._outbox.send(allocation.success, five_tuple)
            return
        who = self._authenticator.check(received, five_tuple.client, now, is_new=allocation is None)
        if isinstance(who, Rejected):
            self._reject(received, who.code, five_tuple, now)
            return
        request = Request(received, who, five_tuple, now)
        try:
            check_unknown(received, can_set_dont_fragment=self._ports.can_set_dont_fragment)
            attributes = self._act(request, allocation)
        except Refusal as refusal:
            self.counters[f"refused_{refusal.code}"] += 1
            self._outbox.refuse(request, (ErrorCode(refusal.code), *refusal.attributes))
            return
        if attributes is not None:
            self._outbox.succeed(request, attributes)

    def _subject(self, message: Message, five_tuple: FiveTuple) -> Allocation | None:
        """The allocation that a request is about; nobody is authenticated yet."""
        if message.method is Method.CONNECTION_BIND:
            return self._tcp.subject(message)
        if message.method is Method.REFRESH and message.get(MobilityTicket) is not None:
            return self._refresher.subject(message)
        return self._of(five_tuple)

    def _of(self, five_tuple: FiveTuple) -> Allocation | None:
        return self.allocations.of_client(five_tuple.client, five_tuple.local, five_tuple.transport)

    def _act(self, request: Request, allocation: Allocation | None) -> tuple[AnyAttribute, ...] | None:
        """Do what is asked; what the success says, or ``None`` where the answer has its own time."""
        match request.message.method:
            case Method.ALLOCATE:
                self._allocator.allocate(request)
                return None
            case Method.CONNECT:
                self._tcp.connect(request, held_by(request.who, allocation))
                return None
            case Method.CONNECTION_BIND:
                if allocation is None:
                    raise Refusal(BAD_REQUEST)
                return self._tcp.bind(request, held_by(request.who, allocation))
            case Method.REFRESH:
                self._refresher.check_ticket(request)
                return self._refresher.refresh(request, held_by(request.who, allocation))
            case Method.CREATE_PERMISSION:
                return self._peers.create_permission(request, held_by(request.who, allocation))
            case _:
                return self._peers.bind_channel(request, held_by(request.who, allocation))

    def _reject(self, received: Received, code: int, five_tuple: FiveTuple, now: float) -> None:
        """An unsigned answer: to a source that has proven nothing small and within its budget, else silence.

        Who speaks on a stream is where it says it is, and would never ask again."""
        if code == NO_ANSWER:
            self.counters["throttled"] += 1
            return
        attributes: tuple[AnyAttribute, ...] = (ErrorCode(code),)
        if code != BAD_REQUEST:
            attributes += self._authenticator.challenge(five_tuple.client, now)
        data = received.message.answer(MessageClass.ERROR, *attributes).encode()
        may_be_forged = not five_tuple.transport.is_stream
        if may_be_forged and len(data) > MAX_AMPLIFICATION * len(received.raw):
            self.counters["too_small"] += 1
        elif may_be_forged and not self._budget.take(five_tuple.client, now):
            self.counters["over_budget"] += 1
        else:
            self.counters[f"rejected_{code}"] += 1
            self._outbox.send(data, five_tuple)
