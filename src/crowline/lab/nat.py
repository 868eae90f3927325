"""A network address translator, a pure function of packets and time: RFC 4787, 5382 (TCP), 5508 (ICMP).

The model knows addresses only. Its driver (`lab/virtual.py`, or a tunnel device of the kernel lab) asks for
each packet what becomes of its address, and rewrites and carries the packet itself.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import chain

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import ICMP, AllocationKind, Filtering, Hairpin, Mapping, NatBehaviour

RANDOM_TRIES = 16  # random ports tried before the next free one above is searched for


_Key = tuple[int, Address, str, int]  # protocol, inside address, remote host or "", remote port or 0


@dataclass(slots=True)
class _Entry:
    key: _Key
    inside: Address
    port: int
    expires: float
    # Remote address (port 0 where the filter does not look at it) to the time the permission ends.
    permissions: dict[Address, float] = field(default_factory=dict)


class Nat:
    """One translator with one outside address of one IP family.

    `entropy` gives that many random bytes. `now` never goes backwards between calls.
    """

    def __init__(self, behaviour: NatBehaviour, external_host: str, entropy: Callable[[int], bytes]) -> None:
        low, high = behaviour.ports
        if not 0 < low <= high <= 65535:
            raise UsageError(f"{low}-{high} is not a range of ports")
        self.behaviour = behaviour
        self.external_host = external_host
        self._ipv6 = ":" in external_host
        self._entropy = entropy
        self._by_key: dict[_Key, _Entry] = {}
        self._by_port: dict[tuple[int, int], _Entry] = {}
        self._next_port = low

    def __len__(self) -> int:
        """Mappings in the table, the expired ones that nothing has swept yet included."""
        return len(self._by_key)

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Address | None:
        """The outside address that a packet leaves by; ``None`` when it is dropped.

        Creates or refreshes the mapping and lets `destination` answer. A packet to `external_host` itself is
        dropped without hairpinning; with it, hand the result to `inbound` as the remote of `destination`.
        """
        if destination.is_ipv6 != self._ipv6 or source.is_ipv6 != self._ipv6:
            return None
        if destination.host == self.external_host and self.behaviour.hairpin is Hairpin.NONE:
            return None
        key = self._key(protocol, source, destination)
        entry = self._by_key.get(key)
        if entry is not None and entry.expires <= now:
            self._remove(entry)
            entry = None
        if entry is None:
            entry = self._create(key, now)
            if entry is None:
                return None
        expires = now + self.behaviour.lifetimes.idle(protocol)
        entry.expires = expires
        self._permit(entry, destination, expires, now)
        return Address(self.external_host, entry.port)

    def inbound(self, protocol: int, external: Address, remote: Address, now: float) -> Address | None:
        """The inside address that a packet from `remote` to `external` goes to; ``None``: filtered."""
        if external.host != self.external_host:
            return None
        entry = self._by_port.get((protocol, external.port))
        if entry is None or entry.expires <= now or not self._passes(entry, remote, now):
            return None
        if self.behaviour.inbound_refreshes:
            entry.expires = now + self.behaviour.lifetimes.idle(protocol)
        return entry.inside

    def reboot(self) -> None:
        """Forget every mapping, as a restarted box does."""
        self._by_key.clear()
        self._by_port.clear()

    def _key(self, protocol: int, source: Address, destination: Address) -> _Key:
        mapping = self.behaviour.mapping
        if mapping is Mapping.ENDPOINT_INDEPENDENT:
            return (protocol, source, "", 0)
        if mapping is Mapping.ADDRESS_DEPENDENT or protocol == ICMP:
            return (protocol, source, destination.host, 0)
        return (protocol, source, destination.host, destination.port)

    def _create(self, key: _Key, now: float) -> _Entry | None:
        if len(self._by_key) >= self.behaviour.table_size:
            self._sweep(now)
            if len(self._by_key) >= self.behaviour.table_size:
                return None
        protocol, inside = key[0], key[1]
        port = self._allocate(protocol, inside.port, now)
        if port is None:
            return None
        entry = _Entry(key, inside, port, now)
        self._by_key[key] = entry
        self._by_port[protocol, port] = entry
        return entry

    def _allocate(self, protocol: int, inside_port: int, now: float) -> int | None:
        allocation = self.behaviour.allocation_of(protocol).kind
        if allocation is AllocationKind.SEQUENTIAL:
            port = self._free_from(protocol, self._next_port, now)
            if port is not None:
                low, high = self.behaviour.ports
                self._next_port = port + 1 if port < high else low
            return port
        if allocation is AllocationKind.PRESERVING and self._is_free(protocol, inside_port, now):
            return inside_port
        for _ in range(RANDOM_TRIES):
            port = self._random_port()
            if self._is_free(protocol, port, now):
                return port
        return self._free_from(protocol, self._random_port(), now)

    def _random_port(self) -> int:
        low, high = self.behaviour.ports
        return low + int.from_bytes(self._entropy(4), "big") % (high - low + 1)

    def _free_from(self, protocol: int, start: int, now: float) -> int | None:
        low, high = self.behaviour.ports
        for port in chain(range(start, high + 1), range(low, start)):
            if self._is_free(protocol, port, now):
                return port
        return None

    def _is_free(self, protocol: int, port: int, now: float) -> bool:
        entry = self._by_port.get((protocol, port))
        if entry is None:
            return True
        if entry.expires > now:
            return False
        self._remove(entry)
        return True

    def _filter_key(self, remote: Address, protocol: int) -> Address:
        if self.behaviour.filtering is Filtering.ADDRESS_DEPENDENT or protocol == ICMP:
            return Address(remote.host, 0)
        return remote

    def _permit(self, entry: _Entry, remote: Address, expires: float, now: float) -> None:
        if self.behaviour.filtering is Filtering.ENDPOINT_INDEPENDENT:
            return
        permissions = entry.permissions
        if len(permissions) >= self.behaviour.table_size:
            entry.permissions = permissions = {a: end for a, end in permissions.items() if end > now}
            if len(permissions) >= self.behaviour.table_size:
                return
        permissions[self._filter_key(remote, entry.key[0])] = expires

    def _passes(self, entry: _Entry, remote: Address, now: float) -> bool:
        if self.behaviour.filtering is Filtering.ENDPOINT_INDEPENDENT:
            return True
        return entry.permissions.get(self._filter_key(remote, entry.key[0]), now) > now

    def _sweep(self, now: float) -> None:
        for entry in [entry for entry in self._by_key.values() if entry.expires <= now]:
            self._remove(entry)

    def _remove(self, entry: _Entry) -> None:
        del self._by_key[entry.key]
        del self._by_port[entry.key[0], entry.port]
