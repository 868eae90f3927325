"""What one user, one allocation and the whole server may hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.stun.budget import prefix_of

MAX_LIFETIME = 3600  # seconds, the most that RFC 8656 §7.2 recommends
DIAL_BURST = 32.0  # connections at once, see `Limits.dials_per_minute`


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps, each with its unit. They are counted by user (RFC 8656 §7.2, check 10); where anybody may have
    users made, a cap for each source keeps one of them from taking all relays.

    Allocations are counted by relayed address: a dual allocation is two, and so is one with a reservation.
    """

    allocations_per_user: int = 10
    """An ICE agent needs one for each of its interfaces."""
    allocations_per_source: int = 128
    """From one IPv4 address or IPv6 /64, whatever their users: an office behind one NAT."""
    allocations: int = 4096
    """All users together; one port and one socket each."""
    permissions: int = 64
    """IP addresses in one allocation; an ICE agent keeps at most 64 remote candidates."""
    channels: int = 32
    """Channels in one allocation."""
    connections: int = 16
    """TCP connections with peers in one allocation, waiting ones too; one or two descriptors each."""
    dials_per_minute: float = 60.0
    """TCP connections that one user asks for in the long run: at this pace a scan of all ports of one
    host takes 18 hours."""
    max_lifetime: int = MAX_LIFETIME
    """Seconds that one Allocate or Refresh can ask for."""
    bytes_per_second: float = 12_500_000.0
    """Relayed for one user, both directions together: 100 Mbit/s, what a good home line sends."""

    @property
    def burst(self) -> float:
        """Bytes at once: a quarter of a second, and never less than two of the largest runs."""
        return max(self.bytes_per_second / 4, 2 * 65536.0)

    @property
    def memory(self) -> float:
        """Seconds after which a user that does nothing has its whole rates again."""
        refill = self.burst / self.bytes_per_second if self.bytes_per_second else 0.0
        redial = DIAL_BURST * 60 / self.dials_per_minute if self.dials_per_minute else 0.0
        return max(refill, redial)


class Account:
    """What one user holds now, and what its rates have left.

    What the rate gained is added when it is needed, and never more than the burst: after a pause a user may
    have the burst twice in a row, but in all no more than one burst and what the rate gained.
    """

    __slots__ = ("burst", "dial_time", "dials", "held", "places", "rate", "time", "tokens")

    def __init__(self, limits: Limits, now: float) -> None:
        self.held = 0
        self.places = 1
        self.burst = self.tokens = limits.burst
        self.rate = limits.bytes_per_second
        self.time = now
        self.dials = DIAL_BURST
        self.dial_time = now

    def take(self, size: int, now: float) -> bool:
        """Whether `size` more bytes are within the user's rate."""
        cost = size * self.places
        if self.tokens < cost:
            self.refill(now)
            if self.tokens < cost and self.tokens < self.burst:
                return False
        self.tokens -= cost
        return True

    def give_back(self, size: int) -> None:
        """What was taken was not moved."""
        self.tokens += size * self.places

    def refill(self, now: float) -> None:
        """Add what the rate gained until `now`."""
        self.tokens = min(self.burst, self.tokens + (now - self.time) * self.rate)
        self.time = now


class Quota:
    """Counts each user's relayed addresses and meters their traffic.

    A user that holds nothing is remembered for as long as its rates take to fill up, so that a new
    allocation does not bring a new allowance.
    """

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.held = 0
        self._accounts: dict[str, Account] = {}
        self._sources: Counter[str | bytes] = Counter()
        self._idle: dict[str, None] = {}
        self._swept = 0.0

    def has_room(self, user: str, client: Address, count: int = 1) -> bool:
        """Whether `user`, who is at `client`, may have `count` relayed addresses more."""
        if not self.has_room_at(client, count):
            return False
        account = self._accounts.get(user)
        held = 0 if account is None else account.held
        return held + count <= self.limits.allocations_per_user

    def has_room_at(self, client: Address, count: int) -> bool:
        """Whether the source of `client` may have `count` relayed addresses more."""
        return self._sources[prefix_of(client)] + count <= self.limits.allocations_per_source

    def has_capacity(self, count: int = 1) -> bool:
        """Whether the whole server has room for `count` relayed addresses more."""
        return self.held + count <= self.limits.allocations

    def charge(self, user: str, client: Address, now: float) -> None:
        """One relayed address more."""
        self._sweep(now)
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = Account(self.limits, now)
        self._idle.pop(user, None)
        account.held += 1
        self.held += 1
        self._sources[prefix_of(client)] += 1

    def release(self, user: str, client: Address) -> None:
        """One relayed address less."""
        account = self._accounts[user]
        account.held -= 1
        self.held -= 1
        if account.held == 0:
            self._idle[user] = None
        self._release_source(client, 1)

    def move(self, old: Address, new: Address, count: int) -> None:
        """Let `count` relayed addresses of a client that moved count for its new source."""
        self._sources[prefix_of(new)] += count
        self._release_source(old, count)

    def divide(self, user: str, places: int) -> None:
        """A user's data flows in that many processes, each of which has a part of the rate."""
        account = self._accounts.get(user)
        if account is not None:
            account.places = places

    def account(self, user: str) -> Account:
        """What a user that holds something has left; the same object for as long as it does."""
        return self._accounts[user]

    def take(self, user: str, size: int, now: float) -> bool:
        """Whether `size` more bytes are within the user's rate."""
        return self._accounts[user].take(size, now)

    def take_all(self, user: str, size: int, now: float) -> float:
        """Charge `size` bytes that have been moved; seconds to wait until the next, 0.0 within the rate."""
        account = self._accounts[user]
        account.refill(now)
        account.tokens -= size * account.places
        return max(0.0, -account.tokens / max(self.limits.bytes_per_second, 1.0))

    def take_dial(self, user: str, now: float) -> bool:
        """Whether one more connection with a peer is within the user's rate."""
        account = self._accounts[user]
        gained = (now - account.dial_time) * self.limits.dials_per_minute / 60
        account.dials = min(DIAL_BURST, account.dials + gained)
        account.dial_time = now
        if account.dials < 1.0:
            return False
        account.dials -= 1.0
        return True

    def _release_source(self, client: Address, count: int) -> None:
        source = prefix_of(client)
        self._sources[source] -= count
        if not self._sources[source]:
            del self._sources[source]

    def _sweep(self, now: float) -> None:
        """Forget idle users whose rates are full, seldom enough to cost nothing for each allocation."""
        memory = self.limits.memory
        if now < self._swept + memory:
            return
        self._swept = now
        for user in list(self._idle):
            account = self._accounts[user]
            account.refill(now)
            is_full = account.tokens >= account.burst or not account.rate
            if is_full and account.dial_time + memory <= now:
                del self._accounts[user], self._idle[user]
