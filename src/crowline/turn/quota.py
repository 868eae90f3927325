"""What one user, one allocation and the whole server may hold."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from crowline.base.addresses import Address
from crowline.stun.budget import prefix_of

MAX_LIFETIME = 3600  # seconds, the most that RFC 8656 §7.2 recommends


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps, each with its unit. They are counted by user (RFC 8656 §7.2, check 10); where anybody may have
    users made, a cap for each source keeps one of them from taking all relays."""

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
    max_lifetime: int = MAX_LIFETIME
    """Seconds that one Allocate or Refresh can ask for."""
    bytes_per_second: float = 12_500_000.0
    """Relayed for one user, both directions together: 100 Mbit/s, what a good home line sends."""

    @property
    def burst(self) -> float:
        """Bytes at once: a quarter of a second, and never less than two of the largest runs."""
        return max(self.bytes_per_second / 4, 2 * 65536.0)


class _Account:
    """What one user holds now."""

    __slots__ = ("allocations", "time", "tokens")

    def __init__(self, tokens: float, now: float) -> None:
        self.allocations = 0
        self.tokens = tokens
        self.time = now


class Quota:
    """Counts each user's allocations and meters their traffic. A user without allocations costs nothing."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.allocations = 0
        self._accounts: dict[str, _Account] = {}
        self._sources: Counter[str | bytes] = Counter()

    def has_room(self, user: str, client: Address) -> bool:
        """Whether `user`, who is at `client`, may have one allocation more."""
        if self._sources[prefix_of(client)] >= self.limits.allocations_per_source:
            return False
        account = self._accounts.get(user)
        held = 0 if account is None else account.allocations
        return held < self.limits.allocations_per_user

    @property
    def is_full(self) -> bool:
        """Whether the whole server has no room for another allocation."""
        return self.allocations >= self.limits.allocations

    def charge_allocation(self, user: str, client: Address, now: float) -> None:
        account = self._accounts.get(user)
        if account is None:
            account = self._accounts[user] = _Account(self.limits.burst, now)
        account.allocations += 1
        self.allocations += 1
        self._sources[prefix_of(client)] += 1

    def release_allocation(self, user: str, client: Address) -> None:
        account = self._accounts[user]
        account.allocations -= 1
        self.allocations -= 1
        if account.allocations == 0:
            del self._accounts[user]
        source = prefix_of(client)
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    def take(self, user: str, size: int, now: float) -> bool:
        """Whether `size` more bytes are within the user's rate."""
        account = self._accounts[user]
        limits = self.limits
        account.tokens = min(limits.burst, account.tokens + (now - account.time) * limits.bytes_per_second)
        account.time = now
        if account.tokens < size:
            return False
        account.tokens -= size
        return True
