"""How a translator treats TCP, from what STUN servers say of connections that come from ports of ours.

A port that connects to several addresses of servers shows the mapping; ports that connect to one address, one
after the other, show how outside ports are given out. Filtering cannot be learnt: it takes a server that
connects to its clients, which no RFC has.
"""

from __future__ import annotations

from dataclasses import replace

from crowline.base.addresses import Address, AddressClass
from crowline.base.nat64 import Nat64Prefix
from crowline.stun.mapping_judgement import judge_mapping
from crowline.stun.nat_evidence import HAIRPIN_BASE, NatEvidence, judge_hairpin
from crowline.stun.nat_findings import Facet, Hairpinning, Mapping, Reason, Sample, TcpFindings


class TcpEvidence:
    """Tell it what was `seen`; `server` is the one that saw the samples.

    `prefix` is the NAT64 prefix by which IPv4 servers are reached: what they say is of IPv4 then.
    """

    def __init__(self, server: Address, prefix: Nat64Prefix | None = None) -> None:
        self.server = server
        self.has_tried_hairpin = False
        self.hairpin: Hairpinning | None = None
        # What may be believed is the same as of UDP.
        self._rules = NatEvidence(server, prefix)
        self._seen: dict[Address, dict[Address, Address]] = {}
        self._times: dict[Address, float] = {}

    def seen(self, local: Address, server: Address, mapped: Address, at: float) -> bool:
        """`server` sees the port `local`, whose first SYN left at `at`, as `mapped`; whether that can be."""
        if not self._rules.is_possible(mapped, AddressClass.CLOSED):
            return False
        self._seen.setdefault(local, {}).setdefault(server, mapped)
        self._times[local] = min(at, self._times.get(local, at))
        return True

    def hairpin_ends(self) -> tuple[Sample, Sample] | None:
        """Two ports that may try to reach each other, by the addresses that lead to them from here."""
        if self._why_no_hairpin() is not None:
            return None
        one, two = (replace(each, mapped=self._rules.reached(each.mapped)) for each in self._samples()[1:3])
        return one, two

    def findings(self) -> TcpFindings:
        """What follows."""
        mapping, doubt = self._mapping()
        hairpinning, no_hairpinning = self._hairpinning(mapping)
        reasons = {
            Facet.MAPPING: doubt,
            Facet.FILTERING: Reason.NO_CALLS_BACK,
            Facet.HAIRPINNING: no_hairpinning,
        }
        unknown = {facet: reason for facet, reason in reasons.items() if reason is not None}
        return TcpFindings(self.server, mapping, hairpinning, self._samples(), unknown)

    def _hairpinning(self, mapping: Mapping) -> tuple[Hairpinning, Reason | None]:
        reason = self._why_no_hairpin()
        if reason is None and not self.has_tried_hairpin:
            reason = Reason.NOT_TRIED
        return judge_hairpin(reason, self.hairpin, mapping)

    def _why_no_hairpin(self) -> Reason | None:
        """The first port is for the mapping, the second and the third are for this."""
        self._rules.samples = dict(enumerate(self._samples()[1:3], start=HAIRPIN_BASE))
        return self._rules.why_no_hairpin()

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
