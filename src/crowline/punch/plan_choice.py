"""In which order two sides behind NATs try the ways to each other, and which of them opens.

What is known of the NATs orders the ways and never forbids one: profiles are measured in two seconds, against
servers that are not the other side, and change. Both sides come to the same order from the same profiles.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, IntEnum


class MappingKind(Enum):
    """Whether one socket gets one outside port (RFC 4787 §4.1)."""

    UNKNOWN = "unknown"
    INDEPENDENT = "one port for all destinations"
    PER_HOST = "another port for each host"
    PER_PORT = "another port for each destination"


class FilterKind(Enum):
    """From whom a mapping lets packets in (RFC 4787 §5)."""

    UNKNOWN = "unknown"
    OPEN = "from everybody"
    PER_HOST = "from hosts that were sent to"
    PER_PORT = "from addresses and ports that were sent to"


class PortChoice(Enum):
    """Which port a new mapping gets (RFC 4787 §4.2, RFC 7422)."""

    UNKNOWN = "unknown"
    PRESERVING = "the inside port"
    SEQUENTIAL = "the next one"
    BLOCK = "one of a block"
    RANDOM = "any"


@dataclass(frozen=True, slots=True)
class NatSummary:
    """What one side tells the other of its NAT, as far as it was measured.

    A host without one has independent mapping, and an open filter unless there is a firewall.
    """

    mapping: MappingKind = MappingKind.UNKNOWN
    filtering: FilterKind = FilterKind.UNKNOWN
    ports: PortChoice = PortChoice.UNKNOWN
    has_udp: bool = True
    tcp_mapping: MappingKind = MappingKind.UNKNOWN

    @property
    def is_easy(self) -> bool:
        """Its port for the other side is known beforehand."""
        return self.mapping is MappingKind.INDEPENDENT

    @property
    def is_hard(self) -> bool:
        return self.mapping in (MappingKind.PER_HOST, MappingKind.PER_PORT)

    @property
    def looks_at_hosts_only(self) -> bool:
        """Once it has sent anything to a host, every port of that host may answer."""
        return self.filtering in (FilterKind.OPEN, FilterKind.PER_HOST)


class Way(Enum):
    """How to get through; each begins at once as far as nothing before it has won."""

    LOW_TTL = "both send at once, the first packets with a low hop limit"
    PEER_FIRST = "one side opens its filter for the other's host and waits; the other dials"
    SAME_PORT = "the public host with the inside port, as a static forward keeps it"
    PREDICT_ONE = "one side opens a mapping, the other sends to the ports that it may have"
    PREDICT_BOTH = "both open many mappings at once towards one port of the other"
    SPRAY = "one side opens many sockets, the other tries many ports"
    TCP = "both connect at once by TCP"
    RELAY = "a relay carries the data"


class Opens(Enum):
    """Who makes the mapping or opens the filter that the other side then looks for."""

    OWN = "this side"
    PEER = "the other side"
    BOTH = "both sides"


class Fit(IntEnum):
    """What is to be hoped for."""

    LIKELY = 0
    POSSIBLE = 1
    UNLIKELY = 2


@dataclass(frozen=True, slots=True)
class PlannedWay:
    """One way with its reason, in words for people."""

    way: Way
    opens: Opens
    fit: Fit
    reason: str


# Ways cheap in packets and time before dear ones; the relay carries data from the first moment, and is the
# last only as a result.
WAYS = tuple(Way)
ONE_SIDED = (Way.PEER_FIRST, Way.SAME_PORT, Way.PREDICT_ONE, Way.SPRAY)
_WITHOUT_UDP = (Way.TCP, Way.RELAY)

_Judgement = tuple[Fit, str]


def choose_plans(own: NatSummary, peer: NatSummary, *, leads: bool) -> tuple[PlannedWay, ...]:
    """All ways, the most promising first, then the cheapest; of two alike the side that `leads` opens first.

    One side leads and the other does not: then both have the same order.
    """
    plans = [plan for way in WAYS for plan in _plans(way, own, peer)]
    first = Opens.OWN if leads else Opens.PEER

    def rank(plan: PlannedWay) -> tuple[bool, Fit, int, bool]:
        return (plan.way is Way.RELAY, plan.fit, WAYS.index(plan.way), plan.opens not in (first, Opens.BOTH))

    return tuple(sorted(plans, key=rank))


def _plans(way: Way, own: NatSummary, peer: NatSummary) -> list[PlannedWay]:
    if way in ONE_SIDED:
        sides = ((Opens.OWN, own, peer), (Opens.PEER, peer, own))
        return [PlannedWay(way, opens, *_judge(way, opener, other)) for opens, opener, other in sides]
    return [PlannedWay(way, Opens.BOTH, *_judge(way, own, peer))]


def _judge(way: Way, one: NatSummary, other: NatSummary) -> _Judgement:
    """Of a way with an opener, that is `one`."""
    if way not in _WITHOUT_UDP and not (one.has_udp and other.has_udp):
        return Fit.UNLIKELY, "no UDP gets out on one side at least"
    return _JUDGES[way](one, other)


# --- ways of both sides alike ---------------------------------------------------------------------------


def _low_ttl(one: NatSummary, other: NatSummary) -> _Judgement:
    if one.is_easy and other.is_easy:
        return Fit.LIKELY, "both ports are known beforehand"
    if one.is_hard and other.is_hard:
        return Fit.UNLIKELY, "neither side's port is the one that a server saw"
    if one.is_hard or other.is_hard:
        return Fit.UNLIKELY, "one side's port is not the one that a server saw"
    return Fit.POSSIBLE, "it costs little, and not both NATs were measured"


def _predict_both(one: NatSummary, other: NatSummary) -> _Judgement:
    sides = (one, other)
    if all(side.is_hard and side.ports is PortChoice.SEQUENTIAL for side in sides):
        return Fit.LIKELY, "both NATs count their ports"
    if any(side.is_easy for side in sides):
        return Fit.UNLIKELY, "one side's port is known; nothing is to be guessed for it"
    if any(side.ports in (PortChoice.RANDOM, PortChoice.BLOCK) for side in sides):
        return Fit.UNLIKELY, "one NAT at least draws its ports at random"
    return Fit.POSSIBLE, "not known to be wrong: not both NATs were measured"


def _tcp(one: NatSummary, other: NatSummary) -> _Judgement:
    kinds = (one.tcp_mapping, other.tcp_mapping)
    if all(kind is MappingKind.INDEPENDENT for kind in kinds):
        return Fit.LIKELY, "both NATs keep one port for TCP, whatever they do for UDP"
    if any(kind in (MappingKind.PER_HOST, MappingKind.PER_PORT) for kind in kinds):
        return Fit.UNLIKELY, "one NAT at least gives each TCP destination another port"
    return Fit.POSSIBLE, "TCP goes beside everything else; its mapping was not measured"


def _relay(one: NatSummary, other: NatSummary) -> _Judgement:
    if not (one.has_udp and other.has_udp):
        return Fit.LIKELY, "it carries the data meanwhile, over TCP where no UDP gets out"
    if all(side.is_hard and side.ports is PortChoice.RANDOM for side in (one, other)):
        return Fit.LIKELY, "both NATs draw a new random port for each destination: nobody can guess both"
    return Fit.LIKELY, "it carries the data meanwhile, and for good if no other way leads across"


# --- ways with an opener --------------------------------------------------------------------------------


def _peer_first(opener: NatSummary, other: NatSummary) -> _Judgement:
    if opener.is_easy and opener.looks_at_hosts_only:
        return Fit.LIKELY, "the opener's port is known, and its filter looks at hosts only"
    if opener.is_hard:
        return Fit.UNLIKELY, "the opener's port is not known"
    if opener.filtering is FilterKind.PER_PORT:
        return Fit.UNLIKELY, "the opener's filter looks at ports too"
    return Fit.POSSIBLE, "one packet more, and the opener was not measured"


def _same_port(opener: NatSummary, other: NatSummary) -> _Judgement:
    if opener.ports is PortChoice.PRESERVING and not other.is_hard:
        return Fit.LIKELY, "the opener's NAT keeps inside ports where it can"
    if opener.is_hard and opener.ports in (PortChoice.SEQUENTIAL, PortChoice.BLOCK, PortChoice.RANDOM):
        return Fit.UNLIKELY, "the opener's NAT does not keep inside ports"
    if other.is_hard:
        return Fit.UNLIKELY, "the other side's port is not known to the opener"
    return Fit.POSSIBLE, "the opener's NAT may keep inside ports; it costs one packet"


def _predict_one(opener: NatSummary, other: NatSummary) -> _Judgement:
    if opener.is_easy:
        return Fit.UNLIKELY, "the opener's port is known; nothing is to be predicted"
    if other.is_hard:
        return Fit.UNLIKELY, "the other side's port is not known to the opener"
    if opener.ports in (PortChoice.RANDOM, PortChoice.BLOCK):
        return Fit.UNLIKELY, "the opener's NAT draws its ports at random"
    if opener.is_hard and opener.ports is PortChoice.SEQUENTIAL and other.is_easy:
        return Fit.LIKELY, "the opener's NAT counts its ports, and the other side's port is known"
    return Fit.POSSIBLE, "not known to be wrong: not both NATs were measured"


def _spray(opener: NatSummary, other: NatSummary) -> _Judgement:
    if opener.is_easy:
        return Fit.UNLIKELY, "the opener's port is known; more sockets do not help"
    if other.mapping is MappingKind.PER_HOST and other.looks_at_hosts_only and opener.looks_at_hosts_only:
        return Fit.POSSIBLE, "both filters look at hosts only: one side's ports are enough to guess"
    if other.is_hard:
        return Fit.UNLIKELY, "both sides' ports would have to be guessed at once"
    if opener.is_hard and other.is_easy and opener.ports is PortChoice.BLOCK:
        return Fit.LIKELY, "the opener's NAT draws from a block, and the other side's port is known"
    if opener.is_hard and other.is_easy:
        return Fit.LIKELY, "256 sockets and about 1,000 guesses meet in 98 of 100 cases"
    return Fit.POSSIBLE, "not known to be wrong: not both NATs were measured"


_JUDGES: dict[Way, Callable[[NatSummary, NatSummary], _Judgement]] = {
    Way.LOW_TTL: _low_ttl,
    Way.PEER_FIRST: _peer_first,
    Way.SAME_PORT: _same_port,
    Way.PREDICT_ONE: _predict_one,
    Way.PREDICT_BOTH: _predict_both,
    Way.SPRAY: _spray,
    Way.TCP: _tcp,
    Way.RELAY: _relay,
}
