"""Whom this machine reaches directly: its summary against the kinds of peers that there are.

The same choice of plans that a meeting makes says which way leads to each kind, so that the doctor promises
what the product then does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from crowline.diagnosis.facts import Facts
from crowline.punch.plan_choice import (
    FilterKind,
    Fit,
    MappingKind,
    NatSummary,
    PlannedWay,
    PortChoice,
    Way,
    choose_plans,
)

IPV6_SHARE = 0.45
"""Peers that have IPv6: Google counted 50 % of its users in March 2026, APNIC 42 %."""

LEAST_DATAGRAM = 1228
"""Bytes of the smallest IPv4 packet that QUIC needs: 1,200 and the headers (RFC 9000 §14)."""


@dataclass(frozen=True, slots=True)
class PeerKind:
    """A kind of network that others are on, in words that follow "behind", and how common it is."""

    words: str
    weight: float
    summary: NatSummary


@dataclass(frozen=True, slots=True)
class Prospect:
    """What is to be expected with peers of one kind: by which way, how likely, and why."""

    kind: PeerKind
    way: Way
    fit: Fit
    reason: str

    @property
    def is_direct(self) -> bool:
        return self.way is not Way.RELAY and self.fit is Fit.LIKELY


def prospects(own: NatSummary, *, has_tcp: bool = True) -> tuple[Prospect, ...]:
    """One for each kind of peer. `has_tcp`: TCP gets out to any port."""
    return tuple(_prospect(own, kind, has_tcp) for kind in PEER_KINDS)


def reach(found: Sequence[Prospect], *, has_ipv6: bool) -> float:
    """The share of peers that are reached directly, 0 to 1; what is merely possible counts half."""
    total = sum(each.kind.weight for each in found)
    return sum(each.kind.weight * _chance(each, has_ipv6, _CERTAIN) for each in found) / total


def ease(found: Sequence[Prospect], *, has_ipv6: bool) -> float:
    """As `reach`, but a way that has to guess or wait counts less than one that leads across at once."""
    total = sum(each.kind.weight for each in found)
    return sum(each.kind.weight * _chance(each, has_ipv6, _EASE) for each in found) / total


def own_summary(facts: Facts) -> NatSummary:
    """What others meet: this machine's IPv4 with open ports, a small path MTU and blocked UDP reckoned in."""
    nat = facts.ipv4.nat if facts.ipv4.nat is not None else facts.ipv6.nat
    summary = NatSummary() if nat is None else nat.summary()
    if (
        facts.udp is False
        or facts.is_narrow
        or (facts.mtu.passed is not None and facts.mtu.passed < LEAST_DATAGRAM)
    ):
        summary = replace(summary, has_udp=False)
    if facts.ipv4.is_public:
        # No translator keeps TCP apart from UDP.
        summary = replace(summary, tcp_mapping=MappingKind.INDEPENDENT)
    return opened(summary, facts) if facts.opens_ports else summary


def opened(summary: NatSummary, facts: Facts) -> NatSummary:
    """The same with a port that everybody reaches, as a router that maps ports gives it, but for a firewall
    of this machine behind it."""
    return replace(
        summary,
        mapping=MappingKind.INDEPENDENT,
        filtering=FilterKind.OPEN if facts.lets_in else FilterKind.PER_PORT,
        tcp_mapping=MappingKind.INDEPENDENT,
    )


def _prospect(own: NatSummary, kind: PeerKind, has_tcp: bool) -> Prospect:
    plans = [plan for plan in choose_plans(own, kind.summary, leads=True) if _is_open(plan, own, has_tcp)]
    best = plans[0]
    if best.way is not Way.RELAY and best.fit is not Fit.UNLIKELY:
        return Prospect(kind, best.way, best.fit, best.reason)
    relay = next(plan for plan in plans if plan.way is Way.RELAY)
    return Prospect(kind, Way.RELAY, Fit.LIKELY, relay.reason)


def _is_open(plan: PlannedWay, own: NatSummary, has_tcp: bool) -> bool:
    if plan.way is Way.TCP:
        # TCP whose mapping nobody measured is a hope beside UDP, and no promise where UDP is blocked.
        return has_tcp and (own.has_udp or plan.fit is Fit.LIKELY)
    # A port that keeps its number by chance, and plans beside better ones, promise nothing.
    return plan.way is not Way.SAME_PORT


def _chance(prospect: Prospect, has_ipv6: bool, values: dict[Way, float]) -> float:
    value = values[prospect.way] * _FITS[prospect.fit]
    is_covered = has_ipv6 and prospect.kind.summary.has_udp
    return max(value, value + (1.0 - value) * IPV6_SHARE) if is_covered else value


_FITS = {Fit.LIKELY: 1.0, Fit.POSSIBLE: 0.5, Fit.UNLIKELY: 0.0}
_CERTAIN = {way: 0.0 if way is Way.RELAY else 1.0 for way in Way}
# A guess takes a second or two, and misses now and then.
_EASE = {
    **_CERTAIN,
    Way.TCP: 0.9,
    Way.PREDICT_ONE: 0.85,
    Way.PREDICT_BOTH: 0.75,
    Way.SPRAY: 0.75,
}

_EASY, _HARD = MappingKind.INDEPENDENT, MappingKind.PER_PORT


def _hard(ports: PortChoice) -> NatSummary:
    return NatSummary(_HARD, FilterKind.PER_PORT, ports, tcp_mapping=_HARD)


def _easy(filtering: FilterKind, ports: PortChoice = PortChoice.PRESERVING) -> NatSummary:
    return NatSummary(_EASY, filtering, ports, tcp_mapping=_EASY)


ORDINARY = _easy(FilterKind.PER_PORT)
"""What most networks are: a home router."""

# The classes and weights of the laboratory's population, whose sources stand in `lab/population.toml`.
PEER_KINDS = (
    PeerKind("a public address", 5, _easy(FilterKind.OPEN)),
    PeerKind("a NAT that lets everybody in", 9, _easy(FilterKind.OPEN)),
    PeerKind("a NAT that looks at hosts only", 7, _easy(FilterKind.PER_HOST)),
    PeerKind("an ordinary home router", 52, ORDINARY),
    PeerKind("a well-behaved carrier's NAT", 7, _easy(FilterKind.PER_PORT, PortChoice.RANDOM)),
    PeerKind("a hard NAT that counts its ports", 3, _hard(PortChoice.SEQUENTIAL)),
    PeerKind("a hard NAT with a small block of ports", 3, _hard(PortChoice.BLOCK)),
    PeerKind("a hard NAT with random ports", 11, _hard(PortChoice.RANDOM)),
    PeerKind("a network without UDP", 3, replace(ORDINARY, has_udp=False)),
)
