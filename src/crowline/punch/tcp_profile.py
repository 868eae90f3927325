"""How a translator treats TCP, as far as connections with STUN servers show it."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from types import MappingProxyType

from crowline.punch.port_pattern import AllocationPattern, PortPattern, read_ports
from crowline.stun.nat_findings import Facet, Mapping, Reason, TcpFindings


@dataclass(frozen=True, slots=True)
class TcpProfile:
    """`answers` is whether a server was reached at all. `unknown` says of each facet in doubt why."""

    answers: bool
    mapping: Mapping
    ports: PortPattern
    outside_hosts: tuple[str, ...] = ()
    unknown: MappingOf[Facet, Reason] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, findings: TcpFindings) -> TcpProfile:
        """The profile that follows."""
        samples = findings.samples
        unknown, ports = dict(findings.unknown), read_ports(samples)
        if findings.mapping is Mapping.NONE:
            ports = PortPattern(AllocationPattern.UNKNOWN)
            unknown[Facet.ALLOCATION] = unknown[Facet.HAIRPINNING] = Reason.NO_TRANSLATION
        elif ports.kind is AllocationPattern.UNKNOWN:
            unknown[Facet.ALLOCATION] = Reason.TOO_FEW_SAMPLES if samples else Reason.NO_ANSWER
        return cls(
            answers=bool(samples),
            mapping=findings.mapping,
            ports=ports,
            outside_hosts=tuple(dict.fromkeys(sample.mapped.host for sample in samples)),
            unknown=MappingProxyType(unknown),
        )

    @property
    def keeps_port(self) -> bool:
        """Whether outside ports are the inside ones, so that they are known without asking."""
        return self.mapping is Mapping.NONE or self.ports.kind is AllocationPattern.PRESERVING

    def words(self) -> str:
        """One sentence for a person."""
        if not self.answers:
            return f"TCP: {self.unknown.get(Facet.MAPPING, Reason.NO_ANSWER).value}."
        parts = [f"TCP: {said(self.unknown, Facet.MAPPING, 'mapping', self.mapping.value)}"]
        if self.mapping is not Mapping.NONE:
            parts.append(said(self.unknown, Facet.ALLOCATION, "ports", str(self.ports)))
        parts.append(said(self.unknown, Facet.FILTERING, "filtering", "unknown"))
        return "; ".join(parts) + "."


def said(unknown: MappingOf[Facet, Reason], facet: Facet, name: str, value: str) -> str:
    """One facet in words, with the reason where it is unknown or not certain."""
    if facet not in unknown:
        return f"{name} {value}"
    is_known = value != Mapping.UNKNOWN.value
    return f"{name} {'probably ' if is_known else ''}{value} ({unknown[facet].value})"
