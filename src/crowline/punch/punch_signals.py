"""What two sides tell each other about plans for hard NATs: members of `rendezvous.signals.Signal`.

The side that leads calls rounds. In a round both sides prepare, tell what the other one has to know, and send
as soon as they know what they need; the order in which they do does not matter.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeAlias

import msgspec

from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice
from crowline.punch.port_pool import PortPool

MAX_PORTS = 64  # of a predicted window (`port_prediction.MAX_WINDOW`)

_Token = Annotated[str, msgspec.Meta(max_length=32)]
_Host = Annotated[str, msgspec.Meta(max_length=45)]
_Port = Annotated[int, msgspec.Meta(ge=1, le=65535)]
_Round = Annotated[int, msgspec.Meta(ge=1, le=10_000)]
WayName: TypeAlias = Literal["low-ttl", "peer-first", "same-port", "predict-one", "predict-both", "spray"]


class PunchProfile(msgspec.Struct, frozen=True, tag_field="t", tag="punch-profile"):
    """The NAT of a side, in the words of `plan_choice`, and the outside host under which a server sees it.

    A word that is not known here means that nothing is known.
    """

    mapping: _Token = "unknown"
    filtering: _Token = "unknown"
    ports: _Token = "unknown"
    udp: bool = True
    tcp_mapping: _Token = "unknown"
    host: _Host = ""

    @classmethod
    def of(cls, summary: NatSummary, host: str) -> PunchProfile:
        return cls(
            mapping=summary.mapping.name.lower(),
            filtering=summary.filtering.name.lower(),
            ports=summary.ports.name.lower(),
            udp=summary.has_udp,
            tcp_mapping=summary.tcp_mapping.name.lower(),
            host=host,
        )

    @property
    def summary(self) -> NatSummary:
        return NatSummary(
            MappingKind.__members__.get(self.mapping.upper(), MappingKind.UNKNOWN),
            FilterKind.__members__.get(self.filtering.upper(), FilterKind.UNKNOWN),
            PortChoice.__members__.get(self.ports.upper(), PortChoice.UNKNOWN),
            self.udp,
            MappingKind.__members__.get(self.tcp_mapping.upper(), MappingKind.UNKNOWN),
        )


class PunchCall(msgspec.Struct, frozen=True, tag_field="t", tag="punch-call"):
    """Begin that round, after whatever was before. `opens` says whose ports are looked for."""

    round: _Round
    way: WayName
    opens: Literal["caller", "callee", "both"]


class PunchPool(msgspec.Struct, frozen=True):
    """From which ports a NAT draws: `port_pool.PortPool`."""

    low: _Port
    high: _Port
    size: Annotated[int, msgspec.Meta(ge=1, le=65536)]
    step: Annotated[int, msgspec.Meta(ge=1, le=2)] = 1

    def __post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("a pool without ports")

    @classmethod
    def of(cls, pool: PortPool) -> PunchPool:
        return cls(pool.low, pool.high, pool.size, pool.step)

    @property
    def pool(self) -> PortPool:
        return PortPool(self.low, self.high, self.size, self.step)


class PunchReady(msgspec.Struct, frozen=True, tag_field="t", tag="punch-ready"):
    """This side can be sent to: at these ports of its outside host, the likeliest first, or in that pool."""

    round: _Round
    host: _Host
    ports: Annotated[tuple[_Port, ...], msgspec.Meta(max_length=MAX_PORTS)] = ()
    pool: PunchPool | None = None


class PunchOver(msgspec.Struct, frozen=True, tag_field="t", tag="punch-over"):
    """This side has ended the round; `reason` is a word for the other side's log."""

    round: _Round
    reason: _Token = ""


PunchSignal: TypeAlias = PunchProfile | PunchCall | PunchReady | PunchOver
