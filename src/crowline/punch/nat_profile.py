"""What kind of translator a host is behind: the findings of a discovery, with what the samples show of ports.

A profile orders plans and never forbids one: it is a measurement, of one moment and towards one server.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping as MappingOf
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from enum import Enum
from ipaddress import IPv4Address, IPv4Network, ip_address
from itertools import pairwise
from math import gcd
from types import MappingProxyType

from crowline.base.addresses import AddressClass, classify
from crowline.stun.nat_findings import Facet, Filtering, Findings, Hairpinning, Mapping, Reason, Sample

__all__ = [
    "AllocationPattern", "Carrier", "Facet", "Filtering", "Hairpinning", "Lifetimes", "Mapping", "NatProfile",
    "PortPattern", "Reason", "read_ports",
]  # fmt: skip

LEAST_SAMPLES = 4  # fewer ports fit too many patterns by chance
LARGEST_GAP = 512  # between two samples of one sequence: beyond it nobody predicts anything
LARGEST_BLOCK = 8192  # estimated ports; ten random ones out of 32,768 stay within it once in 100,000 times
_SHARED = IPv4Network("100.64.0.0/10")  # between a carrier and its customers, RFC 6598


class AllocationPattern(Enum):
    """How outside ports are given out (RFC 4787 §4.2)."""

    PRESERVING = "preserving"
    SEQUENTIAL = "sequential"
    PARITY = "parity"
    BLOCK = "block"
    RANDOM = "random"
    UNKNOWN = "unknown"


class Carrier(Enum):
    """Signs of a carrier's translator, or of a second one behind the first."""

    SHARED_INSIDE = "this host has an address that carriers share among customers"
    SHARED_GATEWAY = "the gateway's outside address is one that carriers share among customers"
    PRIVATE_GATEWAY = "the gateway's outside address is private: another translator follows"
    OTHER_GATEWAY = "servers see another address than the gateway's outside one: another translator follows"
    SEVERAL_ADDRESSES = "servers see several outside addresses"
    PORT_BLOCK = "the ports are out of a small block, as carriers give to a customer"


@dataclass(frozen=True, slots=True)
class PortPattern:
    """How ports were given to sockets that asked one after the other.

    `delta` is the step of a sequence, and `cross_traffic` the mappings a second that others made meanwhile;
    `pool` an estimate of how many ports there are to draw from. Each is ``None`` where it means nothing.
    `preserved` and `parity` are the shares of samples that kept the port, and its parity.
    """

    kind: AllocationPattern
    delta: int | None = None
    cross_traffic: float | None = None
    pool: int | None = None
    preserved: float = 0.0
    parity: float = 0.0

    def __str__(self) -> str:
        if self.kind is AllocationPattern.SEQUENTIAL:
            return f"sequential {self.delta:+d}"
        if self.kind is AllocationPattern.BLOCK:
            return f"block of about {self.pool}"
        return str(self.kind.value)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds that an idle mapping was seen to live, and to be dead; ``None``: not seen."""

    alive: float | None = None
    dead: float | None = None


@dataclass(frozen=True, slots=True)
class NatProfile:
    """One translator, or several in a row, as they are seen from inside.

    `answers` is whether UDP came back at all. `unknown` says of each unknown facet why.
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

    @classmethod
    def of(cls, findings: Findings) -> NatProfile:
        """The profile that follows from a discovery."""
        samples = findings.samples
        unknown, ports = dict(findings.unknown), read_ports(samples)
        if findings.mapping is Mapping.NONE:
            ports = PortPattern(AllocationPattern.UNKNOWN)
            unknown[Facet.ALLOCATION] = Reason.NO_TRANSLATION
        elif ports.kind is AllocationPattern.UNKNOWN:
            unknown[Facet.ALLOCATION] = Reason.TOO_FEW_SAMPLES if samples else Reason.NO_ANSWER
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

    def with_gateway(self, outside_host: str) -> NatProfile:
        """This profile, knowing which outside address the gateway itself says that it has (UPnP, PCP).

        Text that is no IP address changes nothing.
        """
        try:
            gateway = ip_address(outside_host)
        except ValueError:
            return self
        signs = list(self.carrier)
        if isinstance(gateway, IPv4Address) and gateway in _SHARED:
            signs.append(Carrier.SHARED_GATEWAY)
        elif gateway.is_private and classify(str(gateway)) is AddressClass.CLOSED:
            signs.append(Carrier.PRIVATE_GATEWAY)
        if self.outside_hosts and str(gateway) not in self.outside_hosts:
            signs.append(Carrier.OTHER_GATEWAY)
        return replace(self, carrier=tuple(dict.fromkeys(signs)))

    def with_lifetimes(self, lifetimes: Lifetimes) -> NatProfile:
        """This profile after the longer test."""
        return replace(self, lifetimes=lifetimes)

    @property
    def is_double(self) -> bool:
        """Whether there are signs of more than one translator in a row."""
        certain = {Carrier.SHARED_GATEWAY, Carrier.PRIVATE_GATEWAY, Carrier.OTHER_GATEWAY}
        return not certain.isdisjoint(self.carrier)

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

    def words(self) -> str:
        """One paragraph for a person."""
        if not self.answers:
            return f"UDP blocked: {self._why(Facet.MAPPING)}."
        parts = [
            f"{self.classic_name}: {self._said(Facet.MAPPING, 'mapping', self.mapping.value)}",
            self._said(Facet.FILTERING, "filtering", self.filtering.value),
        ]
        if self.mapping is not Mapping.NONE:
            parts.append(self._said(Facet.HAIRPINNING, "hairpinning", self.hairpinning.value))
            parts.append(self._said(Facet.ALLOCATION, "ports", str(self.ports)))
        parts += [sign.value for sign in self.carrier]
        return "; ".join(parts) + "."

    def _said(self, facet: Facet, name: str, value: str) -> str:
        return f"{name} {value}" + (f" ({self._why(facet)})" if facet in self.unknown else "")

    def _why(self, facet: Facet) -> str:
        return self.unknown[facet].value if facet in self.unknown else "no reason is known"


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


def read_ports(samples: Sequence[Sample]) -> PortPattern:
    """The pattern in the outside ports of fresh sockets, in the order in which they asked."""
    count = len(samples)
    if count < LEAST_SAMPLES:
        return PortPattern(AllocationPattern.UNKNOWN)
    ports = [sample.mapped.port for sample in samples]
    preserved = sum(sample.mapped.port == sample.local.port for sample in samples) / count
    parity = sum(sample.mapped.port % 2 == sample.local.port % 2 for sample in samples) / count
    # The largest of k draws out of a range stands at k/(k+1) of it, the smallest at 1/(k+1).
    pool = min(65535, round((max(ports) - min(ports)) * (count + 1) / (count - 1)))
    if preserved >= 0.5:
        return PortPattern(AllocationPattern.PRESERVING, None, None, None, preserved, parity)
    steps = _steps(ports)
    if steps:
        delta = _delta(steps)
        seconds = samples[-1].sent_at - samples[0].sent_at
        traffic = _cross_traffic(steps, delta, seconds * len(steps) / (count - 1))
        return PortPattern(AllocationPattern.SEQUENTIAL, delta, traffic, None, preserved, parity)
    if pool <= LARGEST_BLOCK:
        kind = AllocationPattern.BLOCK
    else:
        kind = AllocationPattern.PARITY if parity == 1.0 else AllocationPattern.RANDOM
    return PortPattern(kind, None, None, pool, preserved, parity)


def _steps(ports: Sequence[int]) -> list[int]:
    """The differences of a sequence, without the one where it begins anew; empty where there is none."""
    steps = [after - before for before, after in pairwise(ports)]
    is_rising = sum(step > 0 for step in steps) * 2 > len(steps)
    fitting = [step for step in steps if 0 < (step if is_rising else -step) <= LARGEST_GAP]
    return fitting if len(fitting) >= max(2, len(steps) - 1) else []


def _delta(steps: Sequence[int]) -> int:
    """The step of the translator: the usual one, or, among much traffic of others, what divides them all."""
    usual, times = Counter(steps).most_common(1)[0]
    if times * 2 >= len(steps) and all(step % usual == 0 for step in steps):
        return usual
    return gcd(*steps) * (1 if usual > 0 else -1)


def _cross_traffic(steps: Sequence[int], delta: int, seconds: float) -> float | None:
    if seconds <= 0:
        return None
    return sum(step / delta - 1 for step in steps) / seconds


def _signs(samples: Sequence[Sample], ports: PortPattern) -> tuple[Carrier, ...]:
    """What the samples alone show."""
    signs = []
    inside = [ip_address(sample.local.host) for sample in samples]
    if any(isinstance(host, IPv4Address) and host in _SHARED for host in inside):
        signs.append(Carrier.SHARED_INSIDE)
    if len({sample.mapped.host for sample in samples}) > 1:
        signs.append(Carrier.SEVERAL_ADDRESSES)
    if ports.kind is AllocationPattern.BLOCK:
        signs.append(Carrier.PORT_BLOCK)
    return tuple(signs)
