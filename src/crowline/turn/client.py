"""The TURN client: one allocation on one server, kept alive until it is closed (RFC 8656, RFC 8016)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from enum import Enum, auto

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.base.transport import Transport
from crowline.stun.attributes import (
    FAMILY_IPV6,
    AdditionalAddressFamily,
    AnyAttribute,
    Data,
    Lifetime,
    MobilityTicket,
    RequestedAddressFamily,
    RequestedTransport,
    XorMappedAddress,
    XorPeerAddress,
    XorRelayedAddress,
)
from crowline.stun.message import (
    TRANSACTION_ID_SIZE,
    MalformedStun,
    Message,
    MessageClass,
    Method,
    Received,
    parse,
)
from crowline.stun.transaction import RELIABLE, UDP, Schedule
from crowline.turn import channel_data
from crowline.turn.client_peers import ClientPeers
from crowline.turn.codes import ALLOCATION_MISMATCH, BAD_REQUEST, MOBILITY_FORBIDDEN
from crowline.turn.credentials import LongTermCredentials
from crowline.turn.events import Allocated, AllocationFailed, AllocationLost, DataReceived, Moved, TurnEvent
from crowline.turn.framing import pad
from crowline.turn.requests import Outcome, Request, Requests
from crowline.turn.upkeep import Upkeep

UDP_PROTOCOL = 17
DEFAULT_LIFETIME = 600  # seconds, RFC 8656 §3.2


class _State(Enum):
    IDLE = auto()
    ALLOCATING = auto()
    ALLOCATED = auto()
    CLOSING = auto()
    CLOSED = auto()


class TurnClient:
    """One allocation at a TURN server (RFC 8656). Permissions and channels asked for before it exists are
    asked of the server then.

    On a stream, what `next_transmit`, `wrap` and `wrap_run` give is written in order, and `receive` and
    `unwrap` take whole messages (`turn/framing.py`). `wrap` and `unwrap` are the fast path for data.
    """

    PROTOCOL = UDP_PROTOCOL
    """What the relayed address speaks, as REQUESTED-TRANSPORT says it."""

    def __init__(
        self,
        server: Address,
        username: str,
        password: Secret,
        *,
        entropy: Callable[[int], bytes],
        lifetime: int = DEFAULT_LIFETIME,
        families: tuple[int, ...] = (),
        transport: Transport = Transport.UDP,
        mobility: bool = False,
        schedule: Schedule | None = None,
    ) -> None:
        """`families`: 1 and 2 for relayed IPv4 and IPv6 addresses; with none the server gives IPv4, with both
        it gives what it has of them. `mobility`: ask for a ticket to `move` by. `schedule`: by transport.
        """
        self.server = server
        self.transport = transport
        self.relayed: Address | None = None  # the first, where there are two
        self.ticket: bytes | None = None
        self.is_moving = False
        self._credentials = LongTermCredentials(username, password)
        self._entropy = entropy
        self._lifetime = lifetime
        self._families = families
        self._wants_ticket = mobility
        self._has_cleared = False  # the 5-tuple of what an earlier client left there
        self._schedule = schedule
        self._state = _State.IDLE
        self._transmits: deque[Transmit] = deque()
        self._events: deque[TurnEvent] = deque()
        self._requests = self._make_requests()
        self.counters = self._requests.counters
        self._peers = ClientPeers(self._ask, self._events.append, self.counters)
        self._upkeep = Upkeep()

    # --- what its user does -----------------------------------------------------------------------------

    def allocate(self, now: float) -> None:
        """Ask for relayed addresses; an `Allocated` for each, or `AllocationFailed`, follows."""
        if self._state is not _State.IDLE:
            raise UsageError("A TURN client makes one allocation.")
        self._state = _State.ALLOCATING
        self._request_allocation(now)

    def create_permission(self, peers: Iterable[Address], now: float) -> None:
        """Let these peers reach us, from any port; asked at once, together, and kept until closed."""
        self._peers.permit(peers, now)

    def forget_permission(self, hosts: Iterable[str]) -> None:
        """These hosts need not reach us any more; what they could stays until the server's time is over."""
        self._peers.forget(hosts)

    def bind_channel(self, peer: Address, now: float) -> None:
        """Make data to and from `peer` cheap. It travels as indications until `ChannelBound`."""
        self._peers.bind(peer, now)

    def verify(self, now: float) -> None:
        """Ask now whether the allocation is still there; `AllocationLost` follows if it is not."""
        if self._state is _State.ALLOCATED and self._upkeep.awaits_refresh:
            self._request_refresh(now)

    def move(self, now: float, *, server: Address | None = None, transport: Transport | None = None) -> None:
        """Take the allocation to a new 5-tuple, on which everything is sent from here on (RFC 8016 §3.2).

        `Moved` follows, or `AllocationLost`; send no data until then. Raises `UsageError` without a ticket.
        """
        if self._state is not _State.ALLOCATED or self.ticket is None:
            raise UsageError("Only an allocation with a ticket can move.")
        self.server = server or self.server
        self.transport = transport or self.transport
        self._transmits.clear()
        self._requests = self._make_requests(self._requests)
        self._peers.close()
        self.is_moving = True
        self._upkeep.stop()
        self._ask(Request(Method.REFRESH, (Lifetime(self._lifetime), MobilityTicket(self.ticket))), now)

    def close(self, now: float) -> None:
        """Give the allocation back, also one that is on its way. It is, once the client `is_closed`: until
        then go on as before, or the server may keep it for its lifetime.
        """
        if self._state is _State.ALLOCATING and self._credentials.nonce is not None:
            self._state = _State.CLOSING
        elif self._state is _State.ALLOCATED:
            self._state = _State.CLOSING
            self._peers.close()
            if not self.is_moving:  # else the answer to that comes first: it says where the allocation is
                self._requests.clear()
                self._give_back(now)
        elif self._state in (_State.IDLE, _State.ALLOCATING):
            # Nothing was signed, so nothing can have been allocated.
            self._state = _State.CLOSED
            self._requests.clear()

    @property
    def is_closed(self) -> bool:
        """Whether the allocation was given back, or lost, or never made."""
        return self._state is _State.CLOSED

    @property
    def is_busy(self) -> bool:
        """Whether an answer of the server is awaited."""
        return len(self._requests) > 0

    def wrap(self, data: Buffer, peer: Address) -> Transmit:
        """One datagram for `peer`: ChannelData on a bound channel, else a Send indication."""
        if (number := self._peers.channel(peer)) is not None:
            wrapped = channel_data.wrap(number, data)
            return self._outgoing(pad(wrapped) if self.transport.is_stream else wrapped)
        return self._outgoing(self._indication(Method.SEND, XorPeerAddress(peer), Data(bytes(data))))

    def wrap_run(self, data: Buffer, segment_size: int | None, peer: Address) -> list[Transmit]:
        """A run of datagrams for `peer`: one run of ChannelData on a bound channel, else one by one.

        On a stream all of it is one run of bytes.
        """
        if segment_size is None or segment_size >= len(data):
            return [self.wrap(data, peer)]
        if (number := self._peers.channel(peer)) is not None and not self.transport.is_stream:
            wrapped = channel_data.wrap_run(number, data, segment_size)
            return [Transmit(wrapped, self.server, None, segment_size + channel_data.HEADER_SIZE)]
        view, starts = memoryview(data), range(0, len(data), segment_size)
        each = [self.wrap(view[start : start + segment_size], peer) for start in starts]
        return [self._outgoing(b"".join(t.data for t in each))] if self.transport.is_stream else each

    def unwrap(self, data: Buffer) -> tuple[Address, memoryview] | None:
        """Peer and payload of a ChannelData message; ``None`` for anything else, which `receive` wants."""
        number, payload = channel_data.unwrap(data) or (0, None)
        peer = self._peers.behind(number)
        return None if peer is None or payload is None else (peer, payload)

    def unwrap_run(self, data: Buffer, segment_size: int) -> Iterator[tuple[Address, list[memoryview]]]:
        """A run of ChannelData messages as runs of payload of one peer, see `channel_data.unwrap_run`."""
        for number, parts in channel_data.unwrap_run(data, segment_size):
            if (peer := self._peers.behind(number)) is not None:
                yield peer, parts

    # --- the five verbs ---------------------------------------------------------------------------------

    def receive(self, data: Buffer, source: Address, now: float, local: Address | None = None) -> None:
        if source != self.server:
            self.counters["wrong_source"] += 1
            return
        unwrapped = self.unwrap(data)
        if unwrapped is not None:
            self._events.append(DataReceived(bytes(unwrapped[1]), unwrapped[0]))
            return
        try:
            received = parse(data)
        except MalformedStun:
            self.counters["malformed"] += 1
            return
        message_class = received.message.message_class
        if message_class is MessageClass.INDICATION:
            self._on_indication(received)
        elif message_class is MessageClass.REQUEST:
            self.counters["unexpected"] += 1
        else:
            self._on_response(received, now)

    def handle_timeout(self, now: float) -> None:
        for outcome in self._requests.handle_timeout(now):
            self._on_failure(outcome, now)
        if self._state is _State.ALLOCATED:
            self._keep_alive(now)

    def next_timeout(self) -> float | None:
        times = [self._requests.next_timeout()]
        if self._state is _State.ALLOCATED:
            times += [self._upkeep.next_timeout(), self._peers.next_timeout()]
        return min([time for time in times if time is not None], default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> TurnEvent | None:
        return self._events.popleft() if self._events else None

    # --- requests ---------------------------------------------------------------------------------------

    def _make_requests(self, before: Requests | None = None) -> Requests:
        """For the current server and transport; counting goes on where `before` stood."""
        requests = Requests(
            self.server,
            self._credentials,
            entropy=self._entropy,
            schedule=self._schedule or (RELIABLE if self.transport.is_stream else UDP),
            transmit=lambda transmit: self._transmits.append(self._outgoing(transmit.data)),
        )
        if before is not None:
            requests.counters = before.counters
        return requests

    def _ask(self, request: Request, now: float) -> None:
        """By whichever 5-tuple is in use now."""
        self._requests.send(request, now)

    def _outgoing(self, data: Buffer) -> Transmit:
        return Transmit(data, self.server, transport=self.transport)

    def _indication(self, method: Method, *attributes: AnyAttribute) -> bytes:
        identity = self._entropy(TRANSACTION_ID_SIZE)
        return Message(method, MessageClass.INDICATION, identity, attributes).encode()

    def _request_allocation(self, now: float) -> None:
        attributes: list[AnyAttribute] = [RequestedTransport(self.PROTOCOL), Lifetime(self._lifetime)]
        if len(self._families) > 1:
            # RFC 8656 §7.1: IPv6 as the additional one is the only way to ask for both.
            attributes.append(AdditionalAddressFamily(FAMILY_IPV6))
        elif self._families:
            attributes.append(RequestedAddressFamily(self._families[0]))
        if self._wants_ticket:
            attributes.append(MobilityTicket(b""))
        self._ask(Request(Method.ALLOCATE, tuple(attributes)), now)

    def _give_back(self, now: float) -> None:
        self._ask(Request(Method.REFRESH, (Lifetime(0),)), now)

    def _request_refresh(self, now: float) -> None:
        """Without a family it counts for all relayed addresses (RFC 8656 §8.1)."""
        self._upkeep.asked()
        self._ask(Request(Method.REFRESH, (Lifetime(self._lifetime),)), now)

    def _keep_alive(self, now: float) -> None:
        if self._upkeep.is_refresh_due(now):
            self._request_refresh(now)
        if self._upkeep.takes_keepalive(now):
            self._transmits.append(self._outgoing(self._indication(Method.BINDING)))
        self._peers.handle_timeout(now)

    # --- responses --------------------------------------------------------------------------------------

    def _on_indication(self, received: Received) -> None:
        """RFC 8656 §11.4: a Data indication needs a peer that we know, and a payload."""
        peer, data = received.message.get(XorPeerAddress), received.message.get(Data)
        if received.message.method is not Method.DATA or received.unknown_required:
            self.counters["unexpected"] += 1
        elif peer is None or data is None or not self._peers.knows(peer.address):
            self.counters["unexpected_data"] += 1
        else:
            self._events.append(DataReceived(data.value, peer.address))

    def _on_response(self, received: Received, now: float) -> None:
        outcome = self._requests.receive(received, now)
        if outcome is None:
            return
        if outcome.message is not None:
            self._on_success(outcome.request, outcome.message, now)
        else:
            self._on_failure(outcome, now)

    def _on_success(self, request: Request, message: Message, now: float) -> None:
        if request.method is Method.ALLOCATE:
            self._on_allocated(message, now)
        elif request.method is Method.REFRESH:
            self._on_refreshed(message, now)
        else:
            self._peers.on_success(request, now)

    def _on_allocated(self, message: Message, now: float) -> None:
        given = [each.address for each in message.attributes if isinstance(each, XorRelayedAddress)]
        relayed = [each for each in given if each.port]  # coturn says port 0 for a family that it lacks
        mapped = message.get(XorMappedAddress)
        if not relayed or mapped is None:
            self._state = _State.CLOSED
            self._events.append(AllocationFailed(BAD_REQUEST, "the answer names no relayed address"))
            return
        if self._state is _State.CLOSING:
            self._give_back(now)
            return
        self._state = _State.ALLOCATED
        self.relayed = relayed[0]
        lifetime = self._take_up(message, now)
        self._events.extend(Allocated(address, mapped.address, lifetime) for address in relayed)
        self._peers.ask_all(now)

    def _on_refreshed(self, message: Message, now: float) -> None:
        has_moved, self.is_moving = self.is_moving, False
        if self._state is _State.ALLOCATING:
            self._request_allocation(now)
        elif self._state is _State.CLOSING and has_moved:
            self._give_back(now)
        elif self._state is _State.CLOSING:
            self._state = _State.CLOSED
        else:
            self._take_up(message, now)
            if has_moved:
                self._events.append(Moved())
                self._peers.ask_all(now)

    def _take_up(self, message: Message, now: float) -> int:
        """Note what a success says of the allocation's future; its lifetime in seconds."""
        ticket = message.get(MobilityTicket)
        if ticket is not None and self._wants_ticket and ticket.value:
            self.ticket = ticket.value
        lifetime = message.get(Lifetime)
        seconds = lifetime.seconds if lifetime is not None else DEFAULT_LIFETIME
        self._upkeep.granted(seconds, now)
        return seconds

    # --- failures ---------------------------------------------------------------------------------------

    def _on_failure(self, outcome: Outcome, now: float) -> None:
        request, code = outcome.request, outcome.code
        if self._state is _State.CLOSING:
            # RFC 8656 §8.3: what cannot be deleted is gone, or will be when its lifetime ends.
            self._state = _State.CLOSED
        elif request.method is Method.ALLOCATE and code == MOBILITY_FORBIDDEN and self._wants_ticket:
            self._wants_ticket = False
            self._request_allocation(now)
        elif self._state is _State.ALLOCATING and request.method is Method.REFRESH:
            self._request_allocation(now)
        elif request.method is Method.ALLOCATE and code == ALLOCATION_MISMATCH and not self._has_cleared:
            # RFC 8656 §7.4: the 5-tuple has an allocation, and it is ours: one that we lost sight of.
            self._has_cleared = True
            self._give_back(now)
        elif request.method is Method.ALLOCATE:
            self._state = _State.CLOSED
            self._events.append(AllocationFailed(code, outcome.reason, outcome.alternate, outcome.domain))
        elif request.method is Method.REFRESH or code == ALLOCATION_MISMATCH:
            self._lose(outcome.reason or f"the server says {code}")
        else:
            self._peers.on_failure(outcome, now)

    def _lose(self, reason: str) -> None:
        self._state = _State.CLOSED
        self._requests.clear()
        self._peers.close()
        self._events.append(AllocationLost(reason))
