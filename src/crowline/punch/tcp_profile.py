"""How a translator treats TCP, as far as connections with STUN servers show it."""

from __future__ import annotations

from collections.abc import Mapping as MappingOf
from dataclasses import dataclass, field
from types import MappingProxyType

from crowline.punch.facet_rows import facet_rows
from crowline.punch.port_pattern import PortPattern, judge_ports
from crowline.stun.nat_findings import Facet, Filtering, Hairpinning, Mapping, Reason, TcpFindings


@dataclass(frozen=True, slots=True)
class TcpProfile:
    """`answers` is whether a server was reached at all. `unknown` says of each facet in doubt why."""

    answers: bool
    mapping: Mapping
    ports: PortPattern
    hairpinning: Hairpinning = Hairpinning.UNKNOWN
    outside_hosts: tuple[str, ...] = ()
    unknown: MappingOf[Facet, Reason] = field(default_factory=lambda: MappingProxyType({}))

    @classmethod
    def of(cls, findings: TcpFindings) -> TcpProfile:
        """The profile that follows."""
        samples = findings.samples
        unknown = dict(findings.unknown)
        ports, no_pattern = judge_ports(findings.mapping, samples)
        if no_pattern is not None:
            unknown[Facet.ALLOCATION] = no_pattern
        return cls(
            answers=bool(samples),
            mapping=findings.mapping,
            ports=ports,
            hairpinning=findings.hairpinning,
            outside_hosts=tuple(dict.fromkeys(sample.mapped.host for sample in samples)),
            unknown=MappingProxyType(unknown),
        )

    def words(self) -> str:
        """One sentence for a person."""
        if not self.answers:
            return f"TCP: {self.unknown.get(Facet.MAPPING, Reason.NO_ANSWER).value}."
        return f"TCP: {'; '.join(f'{name} {value}' for name, value in self.rows())}."

    def rows(self) -> list[tuple[str, str]]:
        """Each facet and what is known of it."""
        return facet_rows(self, Filtering.UNKNOWN)
