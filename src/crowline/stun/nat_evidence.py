"""What the tests of RFC 5780 have shown so far, what of it may be believed, and what follows from it."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace
from enum import Enum

from crowline.base.addresses import Address, AddressClass, classify
from crowline.base.nat64 import Nat64Prefix
from crowline.stun.mapping_judgement import judge_mapping
from crowline.stun.nat_findings import Facet, Filtering, Findings, Hairpinning, Mapping, Reason, Sample

MAPPING_BASE, FILTERING_BASE, HAIRPIN_BASE, HAIRPIN_BACK_BASE = range(4)
"""Which of the sockets is for which tests."""


class NatTest(Enum):
    """One kind of question: the mapping of a fresh socket, or a test of RFC 5780 §4.3, §4.4 or §4.5."""

    SAMPLE = "mapping test I"
    OTHER_HOST = "mapping test II"
    OTHER_BOTH = "mapping test III"
    SECOND_PORT = "mapping test at another port"
    OTHER_SERVER = "mapping test at another server"
    CHANGE_BOTH = "filtering test II"
    CHANGE_PORT = "filtering test III"
    HAIRPIN = "hairpin test"


MAPPING_TESTS = {NatTest.OTHER_HOST, NatTest.OTHER_BOTH, NatTest.SECOND_PORT, NatTest.OTHER_SERVER}
_FILTERING_TESTS = {NatTest.CHANGE_BOTH, NatTest.CHANGE_PORT}


def second_address(server: Address, named: Collection[Address], prefix: Nat64Prefix | None) -> Address | None:
    """The second address of a server that named these, as it is reached from here.

    ``None`` where there is none, and where it cannot be believed.
    """
    evidence = NatEvidence(server, prefix)
    evidence.others.update(named)
    return evidence.other()


def judge_hairpin(
    why_not: Reason | None, seen: Hairpinning | None, mapping: Mapping
) -> tuple[Hairpinning, Reason | None]:
    """What follows from what two sockets have `seen` of each other, if nothing spoke against trying."""
    if why_not is not None:
        return Hairpinning.UNKNOWN, why_not
    if seen is not None:
        return seen, None
    if mapping is Mapping.ENDPOINT_INDEPENDENT:
        return Hairpinning.NO, None
    return Hairpinning.UNKNOWN, Reason.HIDDEN_BY_MAPPING


class NatEvidence:
    """Filled by a discovery: `samples` by the number of the base, `mapped` as other addresses see base 0, the
    filtering tests that `passed`, each second address that was named, and why tests failed (`problems`).
    """

    def __init__(self, server: Address, prefix: Nat64Prefix | None) -> None:
        self.server = server
        self.samples: dict[int, Sample] = {}
        self.mapped: dict[Address, Address] = {}
        self.passed: set[NatTest] = set()
        self.others: set[Address] = set()
        self.problems: dict[NatTest, Reason] = {}
        self.hairpin: Hairpinning | None = None
        self.round_trip: float | None = None
        inside = prefix.extract(server.host) if prefix is not None else None
        self._prefix = prefix if inside is not None else None
        self._native = Address(inside, server.port) if inside is not None else server

    def is_possible(self, address: Address, loosest: AddressClass) -> bool:
        """Whether an address that the server named is of its family, and at most so far from global."""
        if address.is_ipv6 != self._native.is_ipv6 or address.port == 0:
            return False
        return classify(address.host) <= max(loosest, classify(self._native.host))

    def reached(self, address: Address) -> Address:
        """How an address that the server named is written on this side of a NAT64."""
        if self._prefix is None:
            return address
        return Address(self._prefix.synthesize(address.host), address.port)

    def other(self) -> Address | None:
        """The server's second address, where there is one to be used."""
        return None if self._why_no_other() else self.reached(next(iter(self.others)))

    def has_one_address(self) -> bool:
        """Whether the server names no second address, as most do."""
        return not self.others

    def has_heard_other(self) -> bool:
        """Whether the host of the server's second address has answered."""
        other = self.other()
        return other is not None and any(server.host == other.host for server in self.mapped)

    def why_no_hairpin(self) -> Reason | None:
        """Why two sockets cannot try to reach each other; ``None``: they can."""
        reason = self._why_unasked(HAIRPIN_BASE) or self._why_unasked(HAIRPIN_BACK_BASE)
        if reason is not None:
            return reason
        here, there = self.samples[HAIRPIN_BASE], self.samples[HAIRPIN_BACK_BASE]
        if here.local == here.mapped or there.local == there.mapped:
            return Reason.NO_TRANSLATION
        if here.mapped.host != there.mapped.host:
            return Reason.SEVERAL_ADDRESSES
        if here.mapped.port == there.mapped.port or not self.is_possible(here.mapped, AddressClass.OPEN):
            return Reason.IMPOSSIBLE_ADDRESS
        return None

    def findings(self) -> Findings:
        """What follows."""
        mapping, no_mapping = self._mapping()
        filtering, no_filtering = self._filtering()
        hairpinning, no_hairpinning = self._hairpinning(mapping)
        reasons = {
            Facet.MAPPING: no_mapping,
            Facet.FILTERING: no_filtering,
            Facet.HAIRPINNING: no_hairpinning,
        }
        return Findings(
            self.server,
            self.other(),
            mapping,
            filtering,
            hairpinning,
            tuple(self.samples[index] for index in sorted(self.samples)),
            self.round_trip,
            {facet: reason for facet, reason in reasons.items() if reason is not None},
        )

    def foreseen(self, awaited: Collection[NatTest]) -> Findings:
        """What follows if the tests that are still open stay without an answer, with that doubt."""
        found = self.findings()
        doubts = {
            Facet.FILTERING: not _FILTERING_TESTS.isdisjoint(awaited),
            Facet.HAIRPINNING: NatTest.HAIRPIN in awaited,
        }
        unknown = {facet: Reason.STILL_ASKED for facet, is_open in doubts.items() if is_open}
        return replace(found, unknown=unknown | found.unknown)

    def _mapping(self) -> tuple[Mapping, Reason | None]:
        """RFC 5780 §4.3."""
        unasked = self._why_unasked(MAPPING_BASE)
        if unasked is not None:
            return Mapping.UNKNOWN, unasked
        first = self.samples[MAPPING_BASE]
        if first.mapped == first.local:
            return Mapping.NONE, None
        why = self._why_no_other()
        problem = self.problems.get(NatTest.OTHER_HOST) or self.problems.get(NatTest.OTHER_BOTH)
        if why is Reason.CONTRADICTION or problem is not None:
            return Mapping.UNKNOWN, why or problem
        mapping, doubt = judge_mapping(first.local, {self.server: first.mapped, **self.mapped})
        return mapping, (why or Reason.OTHER_SILENT) if doubt is Reason.ONE_ADDRESS else doubt

    def _filtering(self) -> tuple[Filtering, Reason | None]:
        """RFC 5780 §4.4. Silence is believed only of a server whose second address is heard otherwise."""
        why = self._why_unasked(FILTERING_BASE) or self._why_no_other()
        if why is not None:
            return Filtering.UNKNOWN, why
        if NatTest.CHANGE_BOTH in self.passed:
            return Filtering.ENDPOINT_INDEPENDENT, None
        problem = self.problems.get(NatTest.CHANGE_BOTH) or self.problems.get(NatTest.CHANGE_PORT)
        if problem is not None:
            return Filtering.UNKNOWN, problem
        if not self.has_heard_other():
            return Filtering.UNKNOWN, Reason.OTHER_SILENT
        if NatTest.CHANGE_PORT in self.passed:
            return Filtering.ADDRESS_DEPENDENT, None
        return Filtering.ADDRESS_AND_PORT_DEPENDENT, None

    def _hairpinning(self, mapping: Mapping) -> tuple[Hairpinning, Reason | None]:
        """RFC 5780 §4.5."""
        return judge_hairpin(self.why_no_hairpin(), self.hairpin, mapping)

    def _why_unasked(self, index: int) -> Reason | None:
        """Why nothing is known of a base; ``None``: it was answered."""
        if index in self.samples:
            return None
        # The driver gives fewer sockets than there are roles, or the server is mute or talks nonsense.
        return self.problems.get(NatTest.SAMPLE) or (
            Reason.TOO_FEW_SOCKETS if self.samples else Reason.NO_ANSWER
        )

    def _why_no_other(self) -> Reason | None:
        if len(self.others) > 1:
            return Reason.CONTRADICTION
        if not self.others:
            return Reason.ONE_ADDRESS
        (other,) = self.others
        differs = other.host != self._native.host and other.port != self._native.port
        return None if differs and self.is_possible(other, AddressClass.OPEN) else Reason.OTHER_REFUSED
