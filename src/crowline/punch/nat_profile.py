"""What kind of translator a host is behind: the findings of a discovery, with what the samples show of ports.

A profile orders plans and never forbids one: it is a measurement, of one moment and towards one server.
"""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from types import MappingProxyType
from typing import Any

from crowline.base.addresses import is_shared
from crowline.punch.facet_rows import facet_rows
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice
from crowline.punch.port_pattern import AllocationPattern, PortPattern, judge_ports
from crowline.punch.tcp_profile import TcpProfile
from crowline.stun.nat_findings import Facet, Filtering, Findings, Hairpinning, Mapping, Reason, Sample

__all__ = [
    "AllocationPattern", "Carrier", "Facet", "Filtering", "Hairpinning", "Lifetimes", "Mapping", "NatProfile",
    "PortPattern", "Reason", "TcpProfile",
]  # fmt: skip


class Carrier(Enum):
    """Signs of a carrier's translator."""

    SHARED_INSIDE = "this host has an address that carriers share among customers"
    SEVERAL_ADDRESSES = "servers see several outside addresses"
    PORT_BLOCK = "the ports are out of a small block, as carriers give to a customer"


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds that a mapping was seen to live, and to be dead; ``None``: not seen.

    `alive` and `dead` are of one that was idle, `busy_alive` and `busy_dead` of one that was in use all the
    time: some mobile carriers end these too. `reason` and `busy_reason` say why nothing is known.
    """

    alive: float | None = None
    dead: float | None = None
    busy_alive: float | None = None
    busy_dead: float | None = None
    reason: Reason | None = None
    busy_reason: Reason | None = None

    @property
    def is_measured(self) -> bool:
        """Whether anybody has tried."""
        return self != Lifetimes()

    def as_dict(self) -> dict[str, Any]:
        """Seconds, and reasons in words."""
        return {
            "idle_alive": self.alive,
            "idle_dead": self.dead,
            "idle_unknown": None if self.reason is None else self.reason.value,
            "busy_alive": self.busy_alive,
            "busy_dead": self.busy_dead,
            "busy_unknown": None if self.busy_reason is None else self.busy_reason.value,
        }

    def words(self) -> str:
        """One sentence for a person."""
        return (
            f"idle mappings {_span(self.alive, self.dead, self.reason)}; "
            f"busy ones {_span(self.busy_alive, self.busy_dead, self.busy_reason)}."
        )


@dataclass(frozen=True, slots=True)
class NatProfile:
    """One translator, or several in a row, as they are seen from inside.

    `answers` is whether UDP came back at all; all facets are of UDP, `tcp` has those of TCP where they were
    measured. `unknown` says of each unknown facet why; of one that is known, why it is only the likeliest.
    """

    answers: bool
    mapping: Mapping
    filtering: Filtering
    hairpinning: Hairpinning
    ports: PortPattern
    carrier: tuple[Carrier, ...] = ()
    lifetimes: Lifetimes = Lifetimes()
    outside_hosts: tuple[str, ...] = ()
    round_trip: float | None = None
    unknown: MappingOf[Facet, Reason] = field(default_factory=lambda: MappingProxyType({}))
    tcp: TcpProfile | None = None

    @classmethod
    def of(cls, findings: Findings) -> NatProfile:
        """The profile that follows from a discovery."""
        samples = findings.samples
        unknown = dict(findings.unknown)
        ports, no_pattern = judge_ports(findings.mapping, samples)
        if no_pattern is not None:
            unknown[Facet.ALLOCATION] = no_pattern
        return cls(
            answers=bool(samples),
            mapping=findings.mapping,
            filtering=findings.filtering,
            hairpinning=findings.hairpinning,
            ports=ports,
            carrier=_signs(samples, ports),
            outside_hosts=tuple(dict.fromkeys(sample.mapped.host for sample in samples)),
            round_trip=findings.round_trip,
            unknown=MappingProxyType(unknown),
        )

    def with_lifetimes(self, lifetimes: Lifetimes) -> NatProfile:
        """This profile after the longer test."""
        return replace(self, lifetimes=lifetimes)

    def with_tcp(self, tcp: TcpProfile) -> NatProfile:
        """This profile with that of TCP."""
        return replace(self, tcp=tcp)

    @property
    def classic_name(self) -> str:
        """The name in RFC 3489 §5, which people look for."""
        if not self.answers:
            return "UDP blocked"
        if self.mapping is Mapping.UNKNOWN:
            return "unknown"
        if self.mapping is Mapping.NONE:
            return _OPEN_NAMES[self.filtering]
        if self.mapping is Mapping.ENDPOINT_INDEPENDENT:
            return _CONE_NAMES[self.filtering]
        return "symmetric"

    def summary(self) -> NatSummary:
        """What the other side is told, and plans are chosen by."""
        return NatSummary(
            mapping=_MAPPINGS[self.mapping],
            filtering=_FILTERS[self.filtering],
            ports=_PORTS[self.ports.kind],
            has_udp=self.answers,
            tcp_mapping=MappingKind.UNKNOWN if self.tcp is None else _MAPPINGS[self.tcp.mapping],
        )

    def words(self) -> str:
        """One paragraph for a person."""
        sentences = [self._udp_words()]
        if self.tcp is not None:
            sentences.append(self.tcp.words())
        if self.lifetimes.is_measured:
            sentences.append(self.lifetimes.words())
        return " ".join(sentences)

    def rows(self) -> list[tuple[str, str]]:
        """Each facet of UDP and what is known of it, for a table."""
        return facet_rows(self, self.filtering)

    def as_dict(self) -> dict[str, Any]:
        """The same for programs: plain values, ready for JSON."""
        udp = {
            "answers": self.answers,
            "mapping": self.mapping.value,
            "filtering": self.filtering.value,
            "hairpinning": self.hairpinning.value,
            "ports": _ports_as_dict(self.ports),
            "unknown": _reasons_as_dict(self.unknown),
        }
        tcp = self.tcp and {
            "answers": self.tcp.answers,
            "mapping": self.tcp.mapping.value,
            "hairpinning": self.tcp.hairpinning.value,
            "ports": _ports_as_dict(self.tcp.ports),
            "unknown": _reasons_as_dict(self.tcp.unknown),
        }
        return {
            "classic": self.classic_name,
            "udp": udp,
            "tcp": tcp,
            "outside": list(self.outside_hosts),
            "signs": [sign.value for sign in self.carrier],
            "lifetimes": self.lifetimes.as_dict() if self.lifetimes.is_measured else None,
            "rtt_ms": None if self.round_trip is None else round(self.round_trip * 1000, 1),
        }

    def _udp_words(self) -> str:
        if not self.answers:
            return f"UDP blocked: {self.unknown.get(Facet.MAPPING, Reason.NO_ANSWER).value}."
        parts = [f"{name} {value}" for name, value in self.rows()]
        parts += [sign.value for sign in self.carrier]
        return f"{self.classic_name}: {'; '.join(parts)}."


_MAPPINGS = {
    Mapping.NONE: MappingKind.INDEPENDENT,
    Mapping.ENDPOINT_INDEPENDENT: MappingKind.INDEPENDENT,
    Mapping.ADDRESS_DEPENDENT: MappingKind.PER_HOST,
    Mapping.ADDRESS_AND_PORT_DEPENDENT: MappingKind.PER_PORT,
    Mapping.UNKNOWN: MappingKind.UNKNOWN,
}
_FILTERS = {
    Filtering.ENDPOINT_INDEPENDENT: FilterKind.OPEN,
    Filtering.ADDRESS_DEPENDENT: FilterKind.PER_HOST,
    Filtering.ADDRESS_AND_PORT_DEPENDENT: FilterKind.PER_PORT,
    Filtering.UNKNOWN: FilterKind.UNKNOWN,
}
_PORTS = {
    AllocationPattern.PRESERVING: PortChoice.PRESERVING,
    AllocationPattern.SEQUENTIAL: PortChoice.SEQUENTIAL,
    # Half of all ports is as good as all of them.
    AllocationPattern.PARITY: PortChoice.RANDOM,
    AllocationPattern.BLOCK: PortChoice.BLOCK,
    AllocationPattern.RANDOM: PortChoice.RANDOM,
    AllocationPattern.UNKNOWN: PortChoice.UNKNOWN,
}
_OPEN_NAMES = {
    Filtering.ENDPOINT_INDEPENDENT: "open internet",
    Filtering.ADDRESS_DEPENDENT: "symmetric UDP firewall",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "symmetric UDP firewall",
    Filtering.UNKNOWN: "no translation, filter unknown",
}
_CONE_NAMES = {
    Filtering.ENDPOINT_INDEPENDENT: "full cone",
    Filtering.ADDRESS_DEPENDENT: "restricted cone",
    Filtering.ADDRESS_AND_PORT_DEPENDENT: "port restricted cone",
    Filtering.UNKNOWN: "cone, filter unknown",
}


def _signs(samples: Sequence[Sample], ports: PortPattern) -> tuple[Carrier, ...]:
    """What the samples alone show."""
    signs = []
    if any(is_shared(sample.local.host) for sample in samples):
        signs.append(Carrier.SHARED_INSIDE)
    if len({sample.mapped.host for sample in samples}) > 1:
        signs.append(Carrier.SEVERAL_ADDRESSES)
    if ports.kind is AllocationPattern.BLOCK:
        signs.append(Carrier.PORT_BLOCK)
    return tuple(signs)


def _ports_as_dict(ports: PortPattern) -> dict[str, Any]:
    return {
        "kind": ports.kind.value,
        "delta": ports.delta,
        "cross_traffic": None if ports.cross_traffic is None else round(ports.cross_traffic, 1),
        "pool": ports.pool,
        "preserved": round(ports.preserved, 2),
        "parity": round(ports.parity, 2),
    }


def _reasons_as_dict(reasons: MappingOf[Facet, Reason]) -> dict[str, str]:
    return {facet.value: reason.value for facet, reason in reasons.items()}


def _span(alive: float | None, dead: float | None, reason: Reason | None) -> str:
    if alive is None:
        return "live for an unknown time" + (f" ({reason.value})" if reason is not None else "")
    if dead is None:
        return f"live {alive:.0f} s and longer"
    return f"live {alive:.0f} s, and not {dead:.0f} s"
