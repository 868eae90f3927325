"""The TURN client: one allocation on one server over UDP, kept alive until it is closed (RFC 8656)."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum, auto

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.base.machine import Buffer, Transmit
from crowline.base.secrets import Secret
from crowline.stun.attributes import (
    AnyAttribute,
    ChannelNumber,
    Data,
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
from crowline.stun.transaction import UDP, Schedule
from crowline.turn import channel_data
from crowline.turn.codes import (
    ALLOCATION_MISMATCH,
    BAD_REQUEST,
    REQUEST_TIMEOUT,
)
from crowline.turn.credentials import LongTermCredentials
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
from crowline.turn.requests import Channel, Outcome, Request, Requests

__all__ = [
    "Allocated", "AllocationFailed", "AllocationLost", "ChannelBound", "DataReceived", "PermissionCreated",
    "PermissionRefused", "TurnClient", "TurnEvent",
]  # fmt: skip

UDP_PROTOCOL = 17
DEFAULT_LIFETIME = 600  # seconds, RFC 8656 §3.2
# A refresh that nobody answers takes 39.5 s to fail; started so early it fails before the allocation does.
REFRESH_MARGIN = 60.0
# Seconds between refreshes at least, whatever lifetime a server may name: real ones name minutes.
MIN_REFRESH_INTERVAL = 1.0
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
        self._entropy = entropy
        self._lifetime = lifetime
        self._family = family
        self._state = _State.IDLE
        self._transmits: deque[Transmit] = deque()
        self._events: deque[TurnEvent] = deque()
        self._requests = Requests(
            server,
            LongTermCredentials(username, password),
            entropy=entropy,
            schedule=schedule,
            transmit=self._transmits.append,
        )
        self.counters = self._requests.counters
        self._permissions: dict[str, Address] = {}
        self._granted: set[str] = set()
        self._channels: dict[Address, Channel] = {}
        self._by_number: dict[int, Address] = {}
        self._refresh_at: float | None = None
        self._permissions_at: float | None = None
        self._keepalive_at: float | None = None

    # --- what its user does -----------------------------------------------------------------------------

    def allocate(self, now: float) -> None:
        """Ask for a relayed address; `Allocated` or `AllocationFailed` follows."""
        if self._state is not _State.IDLE:
            raise UsageError("A TURN client makes one allocation.")
        self._state = _State.ALLOCATING
        attributes: list[AnyAttribute] = [RequestedTransport(UDP_PROTOCOL), Lifetime(self._lifetime)]
        if self._family is not None:
            attributes.append(RequestedAddressFamily(self._family))
        self._requests.send(Request(Method.ALLOCATE, tuple(attributes)), now)

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
        channel = self._channels[peer] = Channel(number, peer)
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
            self._requests.send(Request(Method.REFRESH, (Lifetime(0),)), now)
        elif self._state is _State.IDLE:
            self._state = _State.CLOSED

    @property
    def is_closed(self) -> bool:
        return self._state is _State.CLOSED

    @property
    def is_busy(self) -> bool:
        """Whether an answer of the server is awaited."""
        return len(self._requests) > 0

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
        for outcome in self._requests.handle_timeout(now):
            self._on_failure(outcome, now)
        if self._state is _State.ALLOCATED:
            self._keep_alive(now)

    def next_timeout(self) -> float | None:
        if self._state is not _State.ALLOCATED:
            return self._requests.next_timeout()
        times = [self._requests.next_timeout(), self._refresh_at, self._permissions_at, self._keepalive_at]
        times += [channel.rebind_at for channel in self._channels.values()]
        return min([time for time in times if time is not None], default=None)

    def next_transmit(self) -> Transmit | None:
        return self._transmits.popleft() if self._transmits else None

    def next_event(self) -> TurnEvent | None:
        return self._events.popleft() if self._events else None

    # --- requests ---------------------------------------------------------------------------------------

    def _request_permissions(self, peers: tuple[Address, ...], now: float) -> None:
        for start in range(0, len(peers), MAX_PEERS_PER_REQUEST):
            batch = peers[start : start + MAX_PEERS_PER_REQUEST]
            attributes = tuple(XorPeerAddress(peer) for peer in batch)
            self._requests.send(Request(Method.CREATE_PERMISSION, attributes, batch), now)

    def _request_channel(self, channel: Channel, now: float) -> None:
        channel.rebind_at = None
        attributes = (ChannelNumber(channel.number), XorPeerAddress(channel.peer))
        self._requests.send(Request(Method.CHANNEL_BIND, attributes, channel=channel), now)

    def _keep_alive(self, now: float) -> None:
        if self._refresh_at is not None and now >= self._refresh_at:
            self._refresh_at = None
            self._requests.send(Request(Method.REFRESH, (Lifetime(self._lifetime),)), now)
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
            if self._state is _State.CLOSING:
                self._state = _State.CLOSED
            else:
                self._schedule_refresh(message, now)
        elif request.method is Method.CREATE_PERMISSION:
            new = [peer for peer in request.peers if peer.host not in self._granted]
            self._granted.update(peer.host for peer in new)
            self._events.extend(PermissionCreated(peer) for peer in new)
        elif request.channel is not None:
            self._on_channel_bound(request.channel, now)

    def _on_allocated(self, message: Message, now: float) -> None:
        relayed, mapped = message.get(XorRelayedAddress), message.get(XorMappedAddress)
        if relayed is None or mapped is None:
            self._state = _State.CLOSED
            self._events.append(AllocationFailed(BAD_REQUEST, "the answer names no relayed address"))
            return
        if self._state is _State.CLOSING:
            self._requests.send(Request(Method.REFRESH, (Lifetime(0),)), now)
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
        self._refresh_at = now + max(seconds - REFRESH_MARGIN, seconds / 2, MIN_REFRESH_INTERVAL)
        return seconds

    def _on_channel_bound(self, channel: Channel, now: float) -> None:
        channel.rebind_at = now + CHANNEL_INTERVAL
        if not channel.bound:
            channel.bound = True
            self._events.append(ChannelBound(channel.peer, channel.number))

    # --- failures ---------------------------------------------------------------------------------------

    def _on_failure(self, outcome: Outcome, now: float) -> None:
        request, code = outcome.request, outcome.code
        if self._state is _State.CLOSING:
            # RFC 8656 §8.3: what cannot be deleted is gone, or will be when its lifetime ends.
            self._state = _State.CLOSED
        elif request.method is Method.ALLOCATE:
            self._state = _State.CLOSED
            self._events.append(AllocationFailed(code, outcome.reason, outcome.alternate))
        elif request.method is Method.REFRESH or code == ALLOCATION_MISMATCH:
            self._state = _State.CLOSED
            self._requests.clear()
            self._events.append(AllocationLost(outcome.reason or f"the server says {code}"))
        elif request.channel is not None and code == REQUEST_TIMEOUT:
            self._request_channel(request.channel, now)
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
                self._granted.discard(peer.host)
                self._events.append(PermissionRefused(peer, code))
