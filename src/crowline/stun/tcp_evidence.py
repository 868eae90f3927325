"""How a translator treats TCP, from what STUN servers say of connections that come from ports of ours.

A port that connects to several addresses of servers shows the mapping; ports that connect to one address, one
after the other, show how outside ports are given out. Filtering cannot be learnt: it takes a server that
connects to its clients, which no RFC has.
"""

from __future__ import annotations

from crowline.base.addresses import Address
from crowline.base.nat64 import Nat64Prefix
from crowline.stun.mapping_judgement import judge_mapping
from crowline.stun.nat_findings import Facet, Mapping, Reason, Sample, TcpFindings


class TcpEvidence:
    """Tell it what was `seen`; `server` is the one that saw the samples.

    `prefix` is the NAT64 prefix by which IPv4 servers are reached: what they say is of IPv4 then.
    """

    def __init__(self, server: Address, prefix: Nat64Prefix | None = None) -> None:
        self.server = server
        inside = prefix.extract(server.host) if prefix is not None else None
        self._is_ipv6 = server.is_ipv6 and inside is None
        self._seen: dict[Address, dict[Address, Address]] = {}
        self._times: dict[Address, float] = {}

    def seen(self, local: Address, server: Address, mapped: Address, at: float) -> bool:
        """`server` sees the port `local`, whose first SYN left at `at`, as `mapped`; whether that can be."""
        if mapped.is_ipv6 is not self._is_ipv6 or mapped.port == 0:
            return False
        self._seen.setdefault(local, {}).setdefault(server, mapped)
        self._times[local] = min(at, self._times.get(local, at))
        return True

    def findings(self) -> TcpFindings:
        """What follows."""
        mapping, doubt = self._mapping()
        unknown = {Facet.FILTERING: Reason.NO_CALLS_BACK, Facet.HAIRPINNING: Reason.NOT_TRIED}
        if doubt is not None:
            unknown[Facet.MAPPING] = doubt
        return TcpFindings(self.server, mapping, self._samples(), unknown)

    def _mapping(self) -> tuple[Mapping, Reason | None]:
        """Of the port that most servers have seen."""
        most = max(self._seen, key=lambda local: len(self._seen[local]), default=None)
        return (Mapping.UNKNOWN, Reason.NO_ANSWER) if most is None else judge_mapping(most, self._seen[most])

    def _samples(self) -> tuple[Sample, ...]:
        found = [
            Sample(local, by_server[self.server], self._times[local])
            for local, by_server in self._seen.items()
            if self.server in by_server
        ]
        return tuple(sorted(found, key=lambda sample: sample.sent_at))
