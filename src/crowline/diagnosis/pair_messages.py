"""What the two sides of a common examination tell each other, on one stream of their session.

Both begin with `MAGIC`; then frames ``kind u8 · length u32 · payload``, big-endian. All payloads but those
of BULK and TRAIN_ENDED are JSON objects. Fields that a newer version adds are ignored, sizes are bounded
before anything is done, and text of the other side is to be escaped before it is shown.
"""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Annotated, TypeVar

import msgspec

from crowline.base.errors import MalformedMessage
from crowline.punch.plan_choice import FilterKind, MappingKind, NatSummary, PortChoice

MAGIC = b"crowline doctor 1\n"

HEADER = Struct(">BI")
MAX_PAYLOAD = 64 << 10
"""Bytes of one frame; those of BULK are the largest."""

MAX_WORDS, MAX_NAME, MAX_NAMES = 400, 40, 8
Words = Annotated[str, msgspec.Meta(max_length=MAX_WORDS)]
Name = Annotated[str, msgspec.Meta(max_length=MAX_NAME)]
Names = Annotated[tuple[Name, ...], msgspec.Meta(max_length=MAX_NAMES)]
Seconds = Annotated[float, msgspec.Meta(ge=0, le=3600)]
Count = Annotated[int, msgspec.Meta(ge=0, le=2**40)]

SHORTEST = 1e-5
"""Seconds below which a train tells no rate: no line is that quick, and clocks are not that fine."""

T = TypeVar("T")


class Kind(IntEnum):
    """What a frame is."""

    SIDE = 1
    SETTLED = 2
    BULK = 3
    TRAIN_ENDED = 4
    ARRIVED = 5
    RESULT = 6


class MalformedFrame(MalformedMessage):
    """The other side sent a frame that cannot be read."""


class SideFacts(msgspec.Struct, frozen=True):
    """What a side knows of itself. The four kinds are names of `MappingKind`, `FilterKind` and `PortChoice`.

    `verdict` is that of its own examination, `nat` its NAT in one line, `routers` the protocols by which its
    router opens ports, `is_double` whether another translator follows that one. `firewall` says of a firewall
    of that machine that keeps packets out, "" where none is known.
    """

    verdict: Name = ""
    nat: Words = ""
    mapping: Name = ""
    filtering: Name = ""
    ports: Name = ""
    tcp_mapping: Name = ""
    has_udp: bool = True
    has_ipv6: bool = False
    is_double: bool = False
    routers: Names = ()
    firewall: Words = ""

    @classmethod
    def of(cls, summary: NatSummary, **about: object) -> SideFacts:
        """With the kinds of a summary."""
        fields = {
            "mapping": summary.mapping.name,
            "filtering": summary.filtering.name,
            "ports": summary.ports.name,
            "tcp_mapping": summary.tcp_mapping.name,
            "has_udp": summary.has_udp,
        }
        return msgspec.convert({**fields, **about}, cls)

    @property
    def summary(self) -> NatSummary:
        """The NAT, as plans know it; a kind that this version does not know is unknown."""
        return NatSummary(
            MappingKind.__members__.get(self.mapping, MappingKind.UNKNOWN),
            FilterKind.__members__.get(self.filtering, FilterKind.UNKNOWN),
            PortChoice.__members__.get(self.ports, PortChoice.UNKNOWN),
            self.has_udp,
            MappingKind.__members__.get(self.tcp_mapping, MappingKind.UNKNOWN),
        )


class Settled(msgspec.Struct, frozen=True):
    """This side's paths are what they will be; `direct`: one without a server in between."""

    direct: bool = False


class Arrived(msgspec.Struct, frozen=True):
    """So many bytes came with the train that has ended, in so many seconds from the first to the last."""

    bytes: Count
    seconds: Seconds

    @property
    def rate(self) -> float | None:
        """Bytes a second; None where they came all at once, or that is said."""
        return self.bytes / self.seconds if self.seconds >= SHORTEST else None


class SideResult(msgspec.Struct, frozen=True):
    """How many pairs this side tried, and how many of them worked."""

    tried: Count = 0
    worked: Count = 0


def frame(kind: Kind, payload: bytes) -> bytes:
    """A frame on the wire."""
    return HEADER.pack(kind, len(payload)) + payload


def message(kind: Kind, body: msgspec.Struct) -> bytes:
    """A frame with a JSON object."""
    return frame(kind, msgspec.json.encode(body))


def parse_header(header: bytes) -> tuple[Kind, int]:
    """Kind and length of what follows. Raises `MalformedFrame`."""
    number, length = HEADER.unpack(header)
    if length > MAX_PAYLOAD:
        raise MalformedFrame
    try:
        return Kind(number), length
    except ValueError:
        raise MalformedFrame from None


def parse(payload: bytes, type_: type[T]) -> T:
    """The object in a payload. Raises `MalformedFrame`."""
    try:
        return msgspec.json.decode(payload, type=type_)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        raise MalformedFrame from None
