"""A network address translator, a pure function of packets and time: RFC 4787, 5382 (TCP), 5508 (ICMP).

The model knows addresses only. Its driver (`lab/virtual.py`, or a tunnel device of the kernel lab) asks for
each packet what becomes of its address, and rewrites, carries or refuses the packet itself. Layers are
translators in a row: the outside of one is the inside of the next.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import NamedTuple

from crowline.base.addresses import Address
from crowline.base.errors import UsageError
from crowline.lab.behaviour import (
    ICMP,
    TCP,
    Allocation,
    AllocationKind,
    Filtering,
    Hairpin,
    Mapping,
    NatBehaviour,
)
from crowline.lab.cross_traffic import CrossTraffic
from crowline.lab.port_allocator import PortAllocator

_Key = tuple[int, Address, str, int]  # protocol, inside address, remote host or "", remote port or 0


class Turned(NamedTuple):
    """A hairpinned packet: `source` as the receiver sees it, and the inside address it goes to."""

    source: Address
    destination: Address


class _Rules(NamedTuple):
    """What holds for one protocol."""

    mapping: Mapping
    filtering: Filtering
    allocation: Allocation
    idle: float


@dataclass(slots=True)
class _Entry:
    key: _Key
    inside: Address
    outside: Address
    ends: float  # at the latest, however busy
    expires: float
    is_forward: bool = False  # opened by name, for everyone, and not by traffic
    is_answered: bool = False  # something came in by it
    # Remote address (port 0 where the filter does not look at it) to the time the permission ends. A forward
    # lets everybody in: of these it knows who came in by it, and is answered by it.
    permissions: dict[Address, float] = field(default_factory=dict)


class Nat:
    """One translator with one outside address of one IP family.

    `entropy` gives that many random bytes. `now` never goes backwards between calls. With `nat64` the inside
    is IPv6 and the outside IPv4 (RFC 6146); the driver takes the IPv4 destination out of the IPv6 one.
    """

    def __init__(
        self,
        behaviour: NatBehaviour,
        external_host: str,
        entropy: Callable[[int], bytes],
        *,
        nat64: bool = False,
    ) -> None:
        low, high = behaviour.ports
        if not 0 < low <= high <= 65535:
            raise UsageError(f"{low}-{high} is not a range of ports")
        self.behaviour = behaviour
        self.external_host = external_host
        self._outside_is_ipv6 = ":" in external_host
        if nat64 and self._outside_is_ipv6:
            raise UsageError("NAT64 has IPv4 outside")
        self._inside_is_ipv6 = nat64 or self._outside_is_ipv6
        self._absolute = inf if behaviour.lifetimes.absolute is None else behaviour.lifetimes.absolute
        self._entropy = entropy
        self._ports = PortAllocator(behaviour.ports, entropy)
        self._others = CrossTraffic(behaviour.cross_traffic, entropy)
        self._rules: dict[int, _Rules] = {}
        self._by_key: dict[_Key, _Entry] = {}
        self._by_port: dict[tuple[int, int], _Entry] = {}
        self._forwards: dict[tuple[int, Address], _Entry] = {}

    def __len__(self) -> int:
        """Mappings in the table, the expired ones that nothing has swept yet included."""
        return len(self._by_port)

    def outbound(self, protocol: int, source: Address, destination: Address, now: float) -> Address | None:
        """The outside address that a packet leaves by; ``None`` when it is dropped.

        Creates or refreshes the mapping and lets `destination` answer. What goes to `external_host` itself
        is dropped without hairpinning; with it, `hairpin` is the method to ask.
        """
        if destination.is_ipv6 != self._outside_is_ipv6 or source.is_ipv6 != self._inside_is_ipv6:
            return None
        if destination.host == self.external_host and self.behaviour.hairpin is Hairpin.NONE:
            return None
        rules = self._rules.get(protocol) or self._rules_of(protocol)
        entry = self._entry(protocol, source, destination, rules, now)
        if entry is None:
            return None
        self._refresh(entry, now + rules.idle)
        self._permit(entry, destination, rules, now)
        return entry.outside

    def inbound(self, protocol: int, external: Address, remote: Address, now: float) -> Address | None:
        """The inside address that a packet from `remote` to `external` goes to; ``None``: filtered.

        A filtered TCP SYN is the driver's to answer, as `behaviour.unsolicited_syn` says.
        """
        if external.host != self.external_host:
            return None
        entry = self._by_port.get((protocol, external.port))
        if entry is None or entry.expires <= now:
            return None
        rules = self._rules.get(protocol) or self._rules_of(protocol)
        if not self._passes(entry, remote, rules, now):
            return None
        entry.is_answered = True
        if entry.is_forward:
            self._permit(entry, remote, rules, now)
        elif self.behaviour.inbound_refreshes:
            self._refresh(entry, now + rules.idle)
            self._permit(entry, remote, rules, now)
        return entry.inside

    def hairpin(self, protocol: int, source: Address, destination: Address, now: float) -> Turned | None:
        """What becomes of a packet from inside to `external_host` (RFC 4787 §6); ``None``: dropped.

        The receiver's filter judges the sender's outside address, whichever source the receiver gets to see.
        """
        if destination.host != self.external_host:
            raise UsageError("only what is sent to the translator's own outside address turns round")
        outside = self.outbound(protocol, source, destination, now)
        if outside is None:
            return None
        inside = self.inbound(protocol, destination, outside, now)
        if inside is None:
            return None
        return Turned(source if self.behaviour.hairpin is Hairpin.INTERNAL_SOURCE else outside, inside)

    def forward(
        self,
        protocol: int,
        inside: Address,
        lifetime: float,
        now: float,
        *,
        suggested: int = 0,
        exactly: bool = False,
    ) -> Address | None:
        """Open a port for everyone, as a port mapping service does, or prolong it: the outside address.

        `suggested` is taken when it is free or has a mapping of `inside` itself; with `exactly`, no other
        one. New traffic of `inside` leaves by the forward, and so do answers to what came in by it; it does
        not prolong it. Flows that have a mapping and are answered keep it. ``None`` when no port is left.
        """
        entry = self._forwards.get((protocol, inside))
        if entry is not None and entry.expires <= now:
            self._remove(entry)
            entry = None
        if entry is None:
            traffic = self._by_port.get((protocol, suggested or inside.port))
            if traffic is not None and traffic.inside == inside:
                self._remove(traffic)
            if exactly and suggested and not self._is_free(protocol, suggested, now):
                return None
            entry = self._open(protocol, inside, suggested, now)
        if entry is None:
            return None
        entry.ends = entry.expires = now + lifetime
        return entry.outside

    def unforward(self, protocol: int, inside: Address) -> None:
        """Close what `forward` opened; nothing happens where nothing is open."""
        entry = self._forwards.get((protocol, inside))
        if entry is not None:
            self._remove(entry)

    def reboot(self) -> None:
        """Forget every mapping, as a restarted box does."""
        self._by_key.clear()
        self._by_port.clear()
        self._forwards.clear()
        self._ports = PortAllocator(self.behaviour.ports, self._entropy)

    def _rules_of(self, protocol: int) -> _Rules:
        what = self.behaviour
        rules = self._rules[protocol] = _Rules(
            what.mapping_of(protocol),
            what.filtering_of(protocol),
            what.allocation_of(protocol),
            what.lifetimes.idle(protocol),
        )
        return rules

    def _entry(
        self, protocol: int, source: Address, destination: Address, rules: _Rules, now: float
    ) -> _Entry | None:
        """The mapping that this packet leaves by, made where there is none."""
        key = _key(protocol, source, destination, rules.mapping)
        entry = self._by_key.get(key)
        if self._forwards:
            forward = self._forwards.get((protocol, source))
            if forward is not None and forward.expires > now:
                if entry is None or entry.expires <= now:
                    return forward
                # A flow of its own that nobody has answered gives way to one that came in.
                is_flow = rules.mapping is not Mapping.ENDPOINT_INDEPENDENT and entry.is_answered
                if not is_flow and forward.permissions.get(destination, now) > now:
                    return forward
        if entry is None:
            return self._create(key, rules.allocation, now)
        if entry.expires > now:
            return entry
        self._remove(entry)
        return self._create(key, rules.allocation, now)

    def _create(self, key: _Key, allocation: Allocation, now: float) -> _Entry | None:
        protocol, inside = key[0], key[1]
        port = self._allocate(allocation, protocol, inside, now)
        if port is None:
            return None
        ends = inf if protocol == TCP else now + self._absolute
        entry = _Entry(key, inside, Address(self.external_host, port), ends, now)
        self._by_key[key] = entry
        self._by_port[protocol, port] = entry
        return entry

    def _open(self, protocol: int, inside: Address, suggested: int, now: float) -> _Entry | None:
        wanted = Address(inside.host, suggested or inside.port)
        port = self._allocate(Allocation.PRESERVING, protocol, wanted, now)
        if port is None:
            return None
        key = (
            protocol,
            inside,
            "",
            -1,
        )  # beside the mappings of traffic, whose remote port is never negative
        entry = _Entry(key, inside, Address(self.external_host, port), now, now, is_forward=True)
        self._forwards[protocol, inside] = entry
        self._by_port[protocol, port] = entry
        return entry

    def _allocate(self, allocation: Allocation, protocol: int, inside: Address, now: float) -> int | None:
        """A free port, after sweeping where that is what it takes."""

        def is_free(port: int) -> bool:
            return self._is_free(protocol, port, now)

        if (passed := self._others.since(protocol, now)) and allocation.kind is AllocationKind.SEQUENTIAL:
            self._ports.pass_over(protocol, allocation.step * passed)
        if len(self._by_port) < self.behaviour.table_size:
            port = self._ports.allocate(allocation, protocol, inside, is_free)
            if port is not None:
                return port
        self._sweep(now)
        if len(self._by_port) >= self.behaviour.table_size:
            return None
        return self._ports.allocate(allocation, protocol, inside, is_free)

    def _is_free(self, protocol: int, port: int, now: float) -> bool:
        entry = self._by_port.get((protocol, port))
        if entry is None:
            return True
        if entry.expires > now:
            return False
        self._remove(entry)
        return True

    def _refresh(self, entry: _Entry, expires: float) -> None:
        entry.expires = entry.ends if entry.is_forward else min(expires, entry.ends)

    def _permit(self, entry: _Entry, remote: Address, rules: _Rules, now: float) -> None:
        if rules.filtering is Filtering.ENDPOINT_INDEPENDENT and not entry.is_forward:
            return
        permissions = entry.permissions
        if len(permissions) >= self.behaviour.table_size:
            entry.permissions = permissions = {a: end for a, end in permissions.items() if end > now}
            if len(permissions) >= self.behaviour.table_size:
                return
        key = remote if entry.is_forward else _filter_key(remote, entry.key[0], rules.filtering)
        permissions[key] = now + rules.idle

    def _passes(self, entry: _Entry, remote: Address, rules: _Rules, now: float) -> bool:
        if entry.is_forward or rules.filtering is Filtering.ENDPOINT_INDEPENDENT:
            return True
        return entry.permissions.get(_filter_key(remote, entry.key[0], rules.filtering), now) > now

    def _sweep(self, now: float) -> None:
        for entry in [entry for entry in self._by_port.values() if entry.expires <= now]:
            self._remove(entry)

    def _remove(self, entry: _Entry) -> None:
        protocol = entry.key[0]
        del self._by_port[protocol, entry.outside.port]
        if entry.is_forward:
            del self._forwards[protocol, entry.inside]
        else:
            del self._by_key[entry.key]
        self._ports.release(entry.inside.host)


def _key(protocol: int, source: Address, destination: Address, mapping: Mapping) -> _Key:
    if mapping is Mapping.ENDPOINT_INDEPENDENT:
        return (protocol, source, "", 0)
    if mapping is Mapping.ADDRESS_DEPENDENT or protocol == ICMP:
        return (protocol, source, destination.host, 0)
    return (protocol, source, destination.host, destination.port)


def _filter_key(remote: Address, protocol: int, filtering: Filtering) -> Address:
    if filtering is Filtering.ADDRESS_DEPENDENT or protocol == ICMP:
        return Address(remote.host, 0)
    return remote
