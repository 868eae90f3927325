"""The TURN client: one allocation on one server over UDP, kept alive until it is closed (RFC 8656)."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from enum import Enum, auto

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.stun.attributes import (
    AlternateServer,
    AnyAttribute,
    ChannelNumber,
    Data,
    ErrorCode,
    Lifetime,
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
from crowline.stun.transaction import UDP, Schedule, Transaction
from crowline.turn import channel_data
from crowline.turn.codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    REQUEST_TIMEOUT,
    STALE_NONCE,
    TRY_ALTERNATE,
    UNAUTHORIZED,
)
from crowline.turn.credentials import MAX_STALE_IN_A_ROW, LongTermCredentials
from crowline.turn.events import (
    Allocated,
    AllocationFailed,
    AllocationLost,
    ChannelBound,
    DataReceived,
    PermissionCreated,
    PermissionRefused,
    TurnEvent,
)

__all__ = [
    "Allocated", "AllocationFailed", "AllocationLost", "ChannelBound", "DataReceived", "PermissionCreated",
    "PermissionRefused", "TurnClient", "TurnEvent",
]  # fmt: skip

UDP_PROTOCOL = 17
DEFAULT_LIFETIME = 600  # seconds, RFC 8656 §3.2
# A refresh that nobody answers takes 39.5 s to fail; started so early it fails before the allocation does.
REFRESH_MARGIN = 60.0
PERMISSION_INTERVAL = 240.0  # permissions live 300 s (RFC 8656 §9), and a request takes up to 39.5 s
CHANNEL_INTERVAL = 540.0  # channels live 600 s (RFC 8656 §12)
# RFC 8445 §11 asks for 15 s or more between keepalives; NATs of today forget a silent flow after 30 s.
KEEPALIVE_INTERVAL = 20.0
# Peers in one request: 32 IPv6 addresses and the credentials stay below 1,200 bytes.
MAX_PEERS_PER_REQUEST = 32


class _State(Enum):
    IDLE = auto()
    ALLOCATING = auto()
    ALLOCATED = auto()
    CLOSING = auto()
    CLOSED = auto()


@dataclass(slots=True)
class _Channel:
    number: int
    peer: Address
    bound: bool = False
    rebind_at: float | None = None


@dataclass(slots=True)
class _Request:
    """A request under way: enough to sign it again with another nonce."""

    method: Method
    attributes: tuple[AnyAttribute, ...]
    transaction: Transaction
    nonce: str | None
    stale: int = 0
    peers: tuple[Address, ...] = ()
    channel: _Channel | None = field(default=None)


class TurnClient:
    """One allocation. Permissions and channels asked for before it exists are asked of the server then.

    `wrap` and `unwrap` are the fast path for data; everything else goes through the five verbs.
    """

    def __init__(
        self,
        server: Address,
        username: str,
        password: Secret,
        *,
        entropy: Callable[[int], bytes],
        lifetime: int = DEFAULT_LIFETIME,
        family: int | None = None,
        schedule: Schedule = UDP,
    ) -> None:
        """`family` is 1 or 2 for a relayed IPv4 or IPv6 address; by default the server gives IPv4."""
        self.server = server
        self.relayed: Address | None = None
        self.counters: Counter[str] = Counter()
        self._entropy = entropy
        self._lifetime = lifetime
        self._family = family
        self._schedule = schedule
        self._credentials = LongTermCredentials(username, password)
        self._state = _State.IDLE
        self._requests: dict[bytes, _Request] = {}
        self._permissions: dict[str, Address] = {}
        self._channels: dict[Address, _Channel] = {}
        self._by_number: dict[int, Address] = {}
        self._refresh_at: float | None = None
        self._permissions_at: float | None = None
        self._keepalive_at: float | None = None
        self._transmits: deque[Transmit] = deque()
        self._events: deque[TurnEvent] = deque()

    # --- what its user does -----------------------------------------------------------------------------

    def allocate(self, now: float) -> None:
        """Ask for a relayed address; `Allocated` or `AllocationFailed` follows."""
        if self._state is not _State.IDLE:
            raise UsageError("A TURN client makes one allocation.")
        self._state = _State.ALLOCATING
        attributes: list[AnyAttribute] = [RequestedTransport(UDP_PROTOCOL), Lifetime(self._lifetime)]
        if self._family is not None:
            attributes.append(RequestedAddressFamily(self._family))
        self._request(Method.ALLOCATE, tuple(attributes), now)

    def create_permission(self, peers: Iterable[Address], now: float) -> None:
        """Let these peers reach us, from any port; asked at once, together, and kept until closed."""
        new = {peer.host: peer for peer in peers if peer.host not in self._permissions}
        self._permissions.update(new)
        if self._state is _State.ALLOCATED:
            self._request_permissions(tuple(new.values()), now)

    def bind_channel(self, peer: Address, now: float) -> None:
        """Make data to and from `peer` cheap. It travels as indications until `ChannelBound`."""
        if peer in self._channels:
            return
        number = channel_data.FIRST_CHANNEL + len(self._channels)
        if number > channel_data.LAST_CHANNEL:
            raise UsageError("An allocation has no more than 4,096 channels.")
        self._permissions.setdefault(peer.host, peer)
        channel = self._channels[peer] = _Channel(number, peer)
        self._by_number[number] = peer
        if self._state is _State.ALLOCATED:
            self._request_channel(channel, now)

    def close(self, now: float) -> None:
        """Give the allocation back. Send what `next_transmit` gives then; waiting for more is optional."""
        if self._state is _State.ALLOCATING:
            self._state = _State.CLOSING
        elif self._state is _State.ALLOCATED:
            self._state = _State.CLOSING
            self._requests.clear()
            self._refresh_at = self._permissions_at = self._keepalive_at = None
            self._request(Method.REFRESH, (Lifetime(0),), now)
        elif self._state is _State.IDLE:
            self._state = _State.CLOSED

    @property
    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    def wrap(self, data: Buffer, peer: Address) -> Transmit:
        """One datagram for `peer`: ChannelData on a bound channel, else a Send indication."""
        channel = self._channels.get(peer)
        if channel is not None and channel.bound:
            return Transmit(channel_data.wrap(channel.number, data), self.server)
        message = Message(
            Method.SEND,
            MessageClass.INDICATION,
            self._entropy(TRANSACTION_ID_SIZE),
            (XorPeerAddress(peer), Data(bytes(data))),
        )
        return Transmit(message.encode(), self.server)

    def wrap_run(self, data: Buffer, segment_size: int | None, peer: Address) -> list[Transmit]:
        """A run of datagrams for `peer`: one run of ChannelData on a bound channel, else one by one."""
        if segment_size is None or segment_size >= len(data):
            return [self.wrap(data, peer)]
        channel = self._channels.get(peer)
        if channel is not None and channel.bound:
            wrapped = channel_data.wrap_run(channel.number, data, segment_size)
            return [Transmit(wrapped, self.server, None, segment_size + channel_data.HEADER_SIZE)]
        view = memoryview(data)
        return [
            self.wrap(view[start : start + segment_size], peer) for start in range(0, len(view), segment_size)
        ]

    def unwrap(self, data: Buffer) -> tuple[Address, memoryview] | None:
        """Peer and payload of a ChannelData message; ``None`` for anything else, which `receive` wants."""
        if not channel_data.is_channel_data(data):
            return None
        unwrapped = channel_data.unwrap(data)
        peer = self._by_number.get(unwrapped[0]) if unwrapped is not None else None
        return None if unwrapped is None or peer is None else (peer, unwrapped[1])

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
        for request in list(self._requests.values()):
            if request.transaction.is_expired(now):
                del self._requests[request.transaction.transaction_id]
                self._on_failure(request, REQUEST_TIMEOUT, "the server does not answer", now)
            elif (transmit := request.transaction.due(now)) is not None:
                self._transmits.append(transmit)
        if self._state is _State.ALLOCATED:
            self._keep_alive(now)

    def next_timeout(self) -> float | None:
        times = [request.transaction.next_timeout() for request in self._requests.values()]
        times += [t for t in (self._refresh_at, self._permissions_at, self._keepalive_at) if t is not None]
        times += [c.rebind_at for c in self._channels.values() if c.rebind_at is not None]
        return min(times, default=None) if self._state is not _State.CLOSED else None

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> TurnEvent | None:
        return self._events.popleft() if self._events else None

    # --- requests ---------------------------------------------------------------------------------------

    def _request(
        self,
        method: Method,
        attributes: tuple[AnyAttribute, ...],
        now: float,
        *,
        peers: tuple[Address, ...] = (),
        channel: _Channel | None = None,
        stale: int = 0,
    ) -> None:
        transaction_id = self._entropy(TRANSACTION_ID_SIZE)
        data = self._credentials.sign(Message(method, MessageClass.REQUEST, transaction_id, attributes))
        transaction = Transaction(transaction_id, data, self.server, now, schedule=self._schedule)
        request = _Request(method, attributes, transaction, self._credentials.nonce, stale, peers, channel)
        self._requests[transaction_id] = request
        if (transmit := transaction.due(now)) is not None:
            self._transmits.append(transmit)

    def _request_permissions(self, peers: tuple[Address, ...], now: float) -> None:
        for start in range(0, len(peers), MAX_PEERS_PER_REQUEST):
            batch = peers[start : start + MAX_PEERS_PER_REQUEST]
            attributes = tuple(XorPeerAddress(peer) for peer in batch)
            self._request(Method.CREATE_PERMISSION, attributes, now, peers=batch)

    def _request_channel(self, channel: _Channel, now: float) -> None:
        channel.rebind_at = None
        attributes = (ChannelNumber(channel.number), XorPeerAddress(channel.peer))
        self._request(Method.CHANNEL_BIND, attributes, now, channel=channel)

    def _keep_alive(self, now: float) -> None:
        if self._refresh_at is not None and now >= self._refresh_at:
            self._refresh_at = None
            self._request(Method.REFRESH, (Lifetime(self._lifetime),), now)
        if self._permissions_at is not None and now >= self._permissions_at:
            self._permissions_at = now + PERMISSION_INTERVAL
            self._request_permissions(tuple(self._permissions.values()), now)
        if self._keepalive_at is not None and now >= self._keepalive_at:
            self._keepalive_at = now + KEEPALIVE_INTERVAL
            indication = Message(Method.BINDING, MessageClass.INDICATION, self._entropy(TRANSACTION_ID_SIZE))
            self._transmits.append(Transmit(indication.encode(), self.server))
        for channel in self._channels.values():
            if channel.rebind_at is not None and now >= channel.rebind_at:
                self._request_channel(channel, now)

    # --- responses --------------------------------------------------------------------------------------

    def _on_indication(self, received: Received) -> None:
        """RFC 8656 §11.4: a Data indication needs a peer that we know, and a payload."""
        peer, data = received.message.get(XorPeerAddress), received.message.get(Data)
        if received.message.method is not Method.DATA or received.unknown_required:
            self.counters["unexpected"] += 1
        elif peer is None or data is None or peer.address.host not in self._permissions:
            self.counters["unexpected_data"] += 1
        else:
            self._events.append(DataReceived(data.value, peer.address))

    def _on_response(self, received: Received, now: float) -> None:
        request = self._requests.get(received.message.transaction_id)
        if request is None or received.message.method is not request.method:
            self.counters["not_ours"] += 1
            return
        error = received.message.get(ErrorCode)
        is_error = received.message.message_class is MessageClass.ERROR
        if is_error and error is not None and error.code in (UNAUTHORIZED, STALE_NONCE):
            del self._requests[request.transaction.transaction_id]
            self._on_challenge(request, received, error, now)
            return
        if not self._is_believed(request, received, error) or (is_error and error is None):
            # RFC 8489 §9.2.5: what does not verify may be forged; the true answer may still come.
            self.counters["unverified"] += 1
            return
        del self._requests[request.transaction.transaction_id]
        if error is not None and is_error:
            alternate = received.message.get(AlternateServer)
            self._on_failure(request, error.code, error.reason, now, alternate.address if alternate else None)
        elif received.unknown_required:
            self._on_failure(request, BAD_REQUEST, "the answer cannot be understood", now)
        else:
            self._on_success(request, received.message, now)

    def _is_believed(self, request: _Request, received: Received, error: ErrorCode | None) -> bool:
        """Signed requests get signed answers. To the first, unsigned one any error but 300 and 400 counts."""
        if request.nonce is not None:
            return self._credentials.verify(received)
        return error is None or error.code not in (TRY_ALTERNATE, BAD_REQUEST)

    def _on_challenge(self, request: _Request, received: Received, error: ErrorCode, now: float) -> None:
        stale = request.stale + (error.code == STALE_NONCE)
        if stale <= MAX_STALE_IN_A_ROW and self._credentials.take_challenge(
            error.code, received, request.nonce
        ):
            self._request(
                request.method, request.attributes, now,
                peers=request.peers, channel=request.channel, stale=stale,
            )  # fmt: skip
            return
        self._on_failure(request, error.code, error.reason or "the credentials are not accepted", now)

    def _on_success(self, request: _Request, message: Message, now: float) -> None:
        if request.method is Method.ALLOCATE:
            self._on_allocated(message, now)
        elif request.method is Method.REFRESH:
            if self._state is _State.CLOSING:
                self._state = _State.CLOSED
            else:
                self._schedule_refresh(message, now)
        elif request.method is Method.CREATE_PERMISSION:
            self._events.extend(PermissionCreated(peer) for peer in request.peers)
        elif request.channel is not None:
            self._on_channel_bound(request.channel, now)

    def _on_allocated(self, message: Message, now: float) -> None:
        relayed, mapped = message.get(XorRelayedAddress), message.get(XorMappedAddress)
        if relayed is None or mapped is None:
            self._state = _State.CLOSED
            self._events.append(AllocationFailed(BAD_REQUEST, "the answer names no relayed address"))
            return
        if self._state is _State.CLOSING:
            self._request(Method.REFRESH, (Lifetime(0),), now)
            return
        self._state = _State.ALLOCATED
        self.relayed = relayed.address
        lifetime = self._schedule_refresh(message, now)
        self._permissions_at = now + PERMISSION_INTERVAL
        self._keepalive_at = now + KEEPALIVE_INTERVAL
        self._events.append(Allocated(relayed.address, mapped.address, lifetime))
        self._request_permissions(tuple(self._permissions.values()), now)
        for channel in self._channels.values():
            self._request_channel(channel, now)

    def _schedule_refresh(self, message: Message, now: float) -> int:
        lifetime = message.get(Lifetime)
        seconds = lifetime.seconds if lifetime is not None else DEFAULT_LIFETIME
        self._refresh_at = now + max(seconds - REFRESH_MARGIN, seconds / 2)
        return seconds

    def _on_channel_bound(self, channel: _Channel, now: float) -> None:
        channel.rebind_at = now + CHANNEL_INTERVAL
        if not channel.bound:
            channel.bound = True
            self._events.append(ChannelBound(channel.peer, channel.number))

    # --- failures ---------------------------------------------------------------------------------------

    def _on_failure(
        self, request: _Request, code: int, reason: str, now: float, alternate: Address | None = None
    ) -> None:
        if self._state is _State.CLOSING:
            # RFC 8656 §8.3: what cannot be deleted is gone, or will be when its lifetime ends.
            self._state = _State.CLOSED
        elif request.method is Method.ALLOCATE:
            self._state = _State.CLOSED
            self._events.append(AllocationFailed(code, reason, alternate))
        elif request.method is Method.REFRESH or code == ALLOCATION_MISMATCH:
            self._state = _State.CLOSED
            self._requests.clear()
            self._events.append(AllocationLost(reason or f"the server says {code}"))
        elif request.channel is not None:
            # Indications carry on; only the channel is not there (any more).
            request.channel.bound = False
            self.counters["channel_refused"] += 1
        elif code == REQUEST_TIMEOUT:
            self._request_permissions(request.peers, now)
        elif len(request.peers) > 1:
            # All or nothing (RFC 8656 §10.2): asked one by one, one bad peer does not cost the others.
            for peer in request.peers:
                self._request_permissions((peer,), now)
        else:
            for peer in request.peers:
                self._permissions.pop(peer.host, None)
                self._events.append(PermissionRefused(peer, code))
