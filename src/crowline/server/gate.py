"""Who is connected how often."""

from __future__ import annotations

import ipaddress
from collections import Counter
from collections.abc import Sequence

from crowline.base.addresses import IPNetwork
from crowline.rendezvous.rate import source_of

MAX_PER_SOURCE = 256
"""Connections of one IPv4 address or IPv6 /64: an office behind one NAT."""

MAX_CONNECTIONS = 8192
"""Connections of all; a WebSocket takes about 30 KB, so these are 240 MB."""


class Gate:
    """Counts connections by source: an IPv4 address or an IPv6 /64.

    Reverse proxies connect for everybody: loopback, and whoever is in `proxies`, has only the common cap.
    """

    def __init__(
        self,
        per_source: int = MAX_PER_SOURCE,
        total: int = MAX_CONNECTIONS,
        proxies: Sequence[IPNetwork] = (),
        *,
        counts_loopback: bool = False,
    ) -> None:
        """`counts_loopback`: no reverse proxy speaks this protocol, and loopback is a source like others."""
        self._per_source = per_source
        self._total = total
        self._proxies = proxies
        self._counts_loopback = counts_loopback
        self._sources: Counter[str] = Counter()
        self._count = 0

    def __len__(self) -> int:
        return self._count

    def enter(self, host: str) -> bool:
        """Count a connection; False if there are too many already, and then it is not counted."""
        source = source_of(host)
        is_crowded = self._sources[source] >= self._per_source and not self._is_for_many(host)
        if is_crowded or len(self) >= self._total:
            return False
        self._sources[source] += 1
        self._count += 1
        return True

    def leave(self, host: str) -> None:
        source = source_of(host)
        self._count -= 1
        self._sources[source] -= 1
        if not self._sources[source]:
            del self._sources[source]

    def _is_for_many(self, host: str) -> bool:
        is_loopback = ipaddress.ip_address(host).is_loopback
        return (is_loopback and not self._counts_loopback) or is_one_of(host, self._proxies)


def canonical_host(host: str) -> str:
    """An address as a socket names it, without its zone, and IPv4 as IPv4 on a socket for both."""
    address = ipaddress.ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def is_one_of(host: str, networks: Sequence[IPNetwork]) -> bool:
    """Whether a canonical address is in one of `networks`."""
    address = ipaddress.ip_address(host)
    return any(address in network for network in networks)
