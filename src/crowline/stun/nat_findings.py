"""What a discovery of NAT behaviour found out, in the terms of RFC 4787 and RFC 5780.

What could not be learnt is ``UNKNOWN``, and `unknown` says why. Where it says something of a facet that has a
value, that value is the likeliest one, and this is why it is not certain.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum

from crowline.base.addresses import Address


class Mapping(Enum):
    """Which packets of one socket share an outside address (RFC 4787 §4.1)."""

    NONE = "no translation"
    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Filtering(Enum):
    """Which remote addresses may send to a socket that has talked to one of them (RFC 4787 §5)."""

    ENDPOINT_INDEPENDENT = "endpoint-independent"
    ADDRESS_DEPENDENT = "address-dependent"
    ADDRESS_AND_PORT_DEPENDENT = "address-and-port-dependent"
    UNKNOWN = "unknown"


class Hairpinning(Enum):
    """Whether two sockets behind a translator reach each other by their outside addresses (RFC 4787 §6)."""

    NO = "none"
    INTERNAL_SOURCE = "internal-source"
    EXTERNAL_SOURCE = "external-source"
    UNKNOWN = "unknown"


class Facet(Enum):
    """One thing that a discovery asks about."""

    MAPPING = "mapping"
    FILTERING = "filtering"
    HAIRPINNING = "hairpinning"
    ALLOCATION = "allocation"


class Reason(Enum):
    """Why something could not be learnt, in words for a person."""

    NO_ANSWER = "the server did not answer"
    REFUSED = "the server answered with an error"
    TOO_FEW_SOCKETS = "there were too few sockets to ask from"
    ONE_ADDRESS = "the server has only one address"
    ONE_PORT = "only one port of each server answered"
    OTHER_REFUSED = "the server named a second address that cannot be one"
    OTHER_SILENT = "the server's second address did not answer"
    NOT_CHANGED = "the server answered from the address that it was asked not to answer from"
    CONTRADICTION = "the server contradicted itself"
    IMPOSSIBLE_ADDRESS = "the server named an outside address that cannot be ours"
    NO_TRANSLATION = "there is no translator"
    SEVERAL_ADDRESSES = "the translator has several outside addresses"
    HIDDEN_BY_MAPPING = "only where mappings do not depend on the destination does silence say anything"
    TOO_FEW_SAMPLES = "too few sockets were answered"
    NO_CALLS_BACK = "no server connects to its clients by TCP"
    KEPT_PORTS = "the translator keeps ports, so that a new mapping looks like the old one"
    STILL_ASKED = "it is still being measured"
    NOT_TRIED = "it was not tried"


@dataclass(frozen=True, slots=True)
class Sample:
    """The server saw the socket `local` as `mapped`; its first request left at `sent_at` (seconds)."""

    local: Address
    mapped: Address
    sent_at: float


@dataclass(frozen=True, slots=True)
class Findings:
    """The end of a discovery.

    `samples` are fresh sockets in the order in which they asked. `other` is the server's second address, as
    it is reached from here; ``None`` where there is none to be used. `round_trip` is the shortest one seen.
    """

    server: Address
    other: Address | None = None
    mapping: Mapping = Mapping.UNKNOWN
    filtering: Filtering = Filtering.UNKNOWN
    hairpinning: Hairpinning = Hairpinning.UNKNOWN
    samples: tuple[Sample, ...] = ()
    round_trip: float | None = None
    unknown: dict[Facet, Reason] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class TcpFindings:
    """What connections with a STUN server showed of a translator's TCP.

    `samples` are fresh ports in the order in which they connected.
    """

    server: Address
    mapping: Mapping = Mapping.UNKNOWN
    hairpinning: Hairpinning = Hairpinning.UNKNOWN
    samples: tuple[Sample, ...] = ()
    unknown: dict[Facet, Reason] = field(default_factory=dict)
