"""What one translator does, in the terms of RFC 4787 (UDP), RFC 5382 (TCP) and RFC 5508 (ICMP).

Everything here is a frozen value that survives JSON (`msgspec` takes it as it is): a laboratory in another
process builds the same translator from it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import ClassVar

from crowline.base.errors import UsageError

ICMP = 1  # protocol numbers of IP; of an ICMP echo, `Address.port` is the identifier
TCP = 6
UDP = 17


class Mapping(Enum):
    """Which packets of one inside address share an outside address (RFC 4787 §4.1)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Filtering(Enum):
    """Which remote addresses may send to a mapping (RFC 4787 §5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"


class Hairpin(Enum):
    """What becomes of a packet from inside to an outside address of the same translator (RFC 4787 §6)."""

    NONE = "none"
    INTERNAL_SOURCE = "internal-source"  # passes, but shows the sender's inside address
    EXTERNAL_SOURCE = "external-source"  # passes as REQ-9 wants it, with the sender's outside address


class UnsolicitedSyn(Enum):
    """How a TCP SYN that the filter refuses is answered (RFC 5382 §4.3, REQ-4)."""

    DROP = "drop"
    RST = "rst"
    ICMP = "icmp"  # destination unreachable, at once; REQ-4 would wait 6 s


class AllocationKind(Enum):
    """How a new mapping gets its outside port (RFC 4787 §4.2)."""

    PRESERVING = "preserving"  # the inside port; when that is taken, a random one
    SEQUENTIAL = "sequential"  # the last one given plus `step`, from the other end when the range is over
    BLOCK = "block"  # a random one of the `size` that belong to the inside host (RFC 7422)
    RANDOM = "random"
    PARITY = "parity"  # a random one, even for even inside ports, odd for odd ones (RFC 4787 §4.2.2)


@dataclass(frozen=True, slots=True)
class Allocation:
    """A kind of port allocation with its parameter.

    `step` is what a sequential one adds, negative to count down; `size` the ports of a block. Both are 0
    where they mean nothing.
    """

    kind: AllocationKind
    step: int = 0
    size: int = 0

    PRESERVING: ClassVar[Allocation]
    RANDOM: ClassVar[Allocation]
    PARITY: ClassVar[Allocation]

    @classmethod
    def sequential(cls, step: int = 1) -> Allocation:
        """Each new mapping is `step` from the one before."""
        if step == 0:
            raise UsageError("a sequence needs a step")
        return cls(AllocationKind.SEQUENTIAL, step=step)

    @classmethod
    def block(cls, size: int) -> Allocation:
        """Every inside host has `size` ports of its own."""
        if size < 1:
            raise UsageError("a block needs ports")
        return cls(AllocationKind.BLOCK, size=size)

    def __str__(self) -> str:
        if self.kind is AllocationKind.SEQUENTIAL:
            return f"sequential {self.step:+d}"
        return f"block of {self.size}" if self.kind is AllocationKind.BLOCK else self.kind.value


Allocation.PRESERVING = Allocation(AllocationKind.PRESERVING)
Allocation.RANDOM = Allocation(AllocationKind.RANDOM)
Allocation.PARITY = Allocation(AllocationKind.PARITY)


@dataclass(frozen=True, slots=True)
class Lifetimes:
    """Seconds. The idle ones count from the last packet out (RFC 4787 §4.3); `absolute` from the first one,
    and then a mapping ends however busy it is (no RFC knows this, some mobile carriers do it)."""

    udp_idle: float = 120.0  # the least that RFC 4787 REQ-5 allows
    tcp_idle: float = 7440.0  # RFC 5382 REQ-5: 2 h 4 min
    icmp_idle: float = 60.0  # RFC 5508 REQ-2
    absolute: float | None = None

    def idle(self, protocol: int) -> float:
        if protocol == TCP:
            return self.tcp_idle
        return self.icmp_idle if protocol == ICMP else self.udp_idle


@dataclass(frozen=True, slots=True)
class NatBehaviour:
    """What a translator does with UDP, and with TCP where nothing else is said.

    `tcp_mapping`, `tcp_filtering`, `tcp_allocation`: ``None`` where TCP is treated like UDP.
    `inbound_refreshes`: packets that are let in keep a mapping and its filter alive too; RFC 4787 REQ-6b
    leaves it to the box.
    `ports`: lowest and highest port given out; a preserved port may lie outside.
    `table_size`: most mappings alive at a time; a packet that needs one more is dropped.
    `cross_traffic`: mappings a second that other hosts inside make, at random times; a sequence counts them.
    """

    mapping: Mapping
    filtering: Filtering
    allocation: Allocation
    hairpin: Hairpin = Hairpin.NONE
    unsolicited_syn: UnsolicitedSyn = UnsolicitedSyn.DROP
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    tcp_mapping: Mapping | None = None
    tcp_filtering: Filtering | None = None
    tcp_allocation: Allocation | None = None
    inbound_refreshes: bool = False
    ports: tuple[int, int] = (1024, 65535)
    table_size: int = 16384
    cross_traffic: float = 0.0

    def mapping_of(self, protocol: int) -> Mapping:
        return self.tcp_mapping if protocol == TCP and self.tcp_mapping else self.mapping

    def filtering_of(self, protocol: int) -> Filtering:
        return self.tcp_filtering if protocol == TCP and self.tcp_filtering else self.filtering

    def allocation_of(self, protocol: int) -> Allocation:
        return self.tcp_allocation if protocol == TCP and self.tcp_allocation else self.allocation
