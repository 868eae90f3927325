"""Whom a client's allocation may talk to: permissions and channels, asked for and kept (RFC 8656 §9-12)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.stun.attributes import ChannelNumber, XorPeerAddress
from crowline.stun.message import Method
from crowline.turn import channel_data
from crowline.turn.codes import REQUEST_TIMEOUT
from crowline.turn.events import ChannelBound, PermissionCreated, PermissionRefused, TurnEvent
from crowline.turn.requests import Channel, Outcome, Request

PERMISSION_INTERVAL = 240.0  # permissions live 300 s (RFC 8656 §9), and a request takes up to 39.5 s
CHANNEL_INTERVAL = 540.0  # channels live 600 s (RFC 8656 §12)
# Peers in one request: 32 IPv6 addresses and the credentials stay below 1,200 bytes.
MAX_PEERS_PER_REQUEST = 32


class ClientPeers:
    """Asks only while `is_open`; what is wanted before is asked by `ask_all`.

    `ask` sends a request, `tell` takes events.
    """

    def __init__(
        self,
        ask: Callable[[Request, float], None],
        tell: Callable[[TurnEvent], None],
        counters: Counter[str],
    ) -> None:
        self.is_open = False
        self._ask = ask
        self._tell = tell
        self._counters = counters
        self._permissions: dict[str, Address] = {}
        self._granted: set[str] = set()
        self._channels: dict[Address, Channel] = {}
        self._by_number: dict[int, Address] = {}
        self._permissions_at: float | None = None

    def knows(self, peer: Address) -> bool:
        """Whether the user has named the peer's host."""
        return peer.host in self._permissions

    def channel(self, peer: Address) -> int | None:
        """The number of the bound channel to `peer`."""
        channel = self._channels.get(peer)
        return channel.number if channel is not None and channel.bound else None

    def behind(self, number: int) -> Address | None:
        """The peer of a channel, bound or asked for."""
        return self._by_number.get(number)

    def permit(self, peers: Iterable[Address], now: float) -> None:
        new = {peer.host: peer for peer in peers if peer.host not in self._permissions}
        self._permissions.update(new)
        if self.is_open:
            self._request_permissions(tuple(new.values()), now)

    def forget(self, hosts: Iterable[str]) -> None:
        """Let their permissions lapse, but for those that have a channel."""
        kept = {peer.host for peer in self._channels}
        for host in set(hosts) - kept:
            self._permissions.pop(host, None)
            self._granted.discard(host)

    def bind(self, peer: Address, now: float) -> None:
        """Raises `UsageError` when all numbers are taken."""
        if peer in self._channels:
            return
        number = channel_data.FIRST_CHANNEL + len(self._channels)
        if number > channel_data.LAST_CHANNEL:
            raise UsageError("An allocation has no more than 4,096 channels.")
        self._permissions.setdefault(peer.host, peer)
        channel = self._channels[peer] = Channel(number, peer)
        self._by_number[number] = peer
        if self.is_open:
            self._request_channel(channel, now)

    def ask_all(self, now: float) -> None:
        """The allocation is there: ask for everything, also for what was granted on another 5-tuple."""
        self.is_open = True
        self._permissions_at = now + PERMISSION_INTERVAL
        self._request_permissions(tuple(self._permissions.values()), now)
        for channel in self._channels.values():
            self._request_channel(channel, now)

    def close(self) -> None:
        self.is_open = False

    def handle_timeout(self, now: float) -> None:
        """Renew what is due."""
        if not self.is_open:
            return
        if self._permissions_at is not None and now >= self._permissions_at:
            self._permissions_at = now + PERMISSION_INTERVAL
            self._request_permissions(tuple(self._permissions.values()), now)
        for channel in self._channels.values():
            if channel.rebind_at is not None and now >= channel.rebind_at:
                self._request_channel(channel, now)

    def next_timeout(self) -> float | None:
        if not self.is_open:
            return None
        times = [self._permissions_at, *(channel.rebind_at for channel in self._channels.values())]
        return min([time for time in times if time is not None], default=None)

    def on_success(self, request: Request, now: float) -> None:
        """The answer to a request of ours."""
        if request.channel is not None:
            self._on_bound(request.channel, now)
            return
        new = [peer for peer in request.peers if self.knows(peer) and peer.host not in self._granted]
        self._granted.update(peer.host for peer in new)
        for peer in new:
            self._tell(PermissionCreated(peer))

    def on_failure(self, outcome: Outcome, now: float) -> None:
        """A request of ours failed, while the allocation lives on."""
        request, code = outcome.request, outcome.code
        # An answer with a wrong signature comes at once on a stream, and would each time.
        is_unanswered = code == REQUEST_TIMEOUT and not request.violated
        if request.channel is not None:
            self._on_channel_failure(request.channel, is_unanswered, now)
        elif is_unanswered:
            self._request_permissions(request.peers, now)
        elif len(request.peers) > 1:
            # All or nothing (RFC 8656 §10.2): asked one by one, one bad peer does not cost the others.
            for peer in request.peers:
                self._request_permissions((peer,), now)
        else:
            for peer in request.peers:
                self._permissions.pop(peer.host, None)
                self._granted.discard(peer.host)
                self._tell(PermissionRefused(peer, code))

    def _on_bound(self, channel: Channel, now: float) -> None:
        channel.rebind_at = now + CHANNEL_INTERVAL
        if not channel.bound:
            channel.bound = True
            self._tell(ChannelBound(channel.peer, channel.number))

    def _on_channel_failure(self, channel: Channel, is_unanswered: bool, now: float) -> None:
        if is_unanswered:
            self._request_channel(channel, now)
        else:
            # Indications carry on; only the channel is not there (any more).
            channel.bound = False
            self._counters["channel_refused"] += 1

    def _request_permissions(self, peers: tuple[Address, ...], now: float) -> None:
        wanted = tuple(peer for peer in peers if self.knows(peer))
        for start in range(0, len(wanted), MAX_PEERS_PER_REQUEST):
            batch = wanted[start : start + MAX_PEERS_PER_REQUEST]
            attributes = tuple(XorPeerAddress(peer) for peer in batch)
            self._ask(Request(Method.CREATE_PERMISSION, attributes, batch), now)

    def _request_channel(self, channel: Channel, now: float) -> None:
        channel.rebind_at = None
        attributes = (ChannelNumber(channel.number), XorPeerAddress(channel.peer))
        self._ask(Request(Method.CHANNEL_BIND, attributes, channel=channel), now)
