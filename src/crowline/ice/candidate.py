"""Candidates: transport addresses at which an agent may be reached (RFC 8445 §5.1)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

from crowline.base.addresses import Address

UDP = "udp"
TCP = "tcp"
COMPONENT = 1  # one component: everything of a session is multiplexed on one flow (RFC 8445 §13)
HIGHEST_LOCAL_PREFERENCE = 65535


class CandidateType(Enum):
    """The four types, with the names they have in session descriptions (RFC 8839 §5.1)."""

    HOST = "host"
    SERVER_REFLEXIVE = "srflx"
    PEER_REFLEXIVE = "prflx"
    RELAYED = "relay"


class TcpType(Enum):
    """Who dials between two TCP candidates, with their names in session descriptions (RFC 6544 §4.5)."""

    ACTIVE = "active"
    PASSIVE = "passive"
    SIMULTANEOUS_OPEN = "so"


TYPE_PREFERENCE = {
    CandidateType.HOST: 126,
    CandidateType.PEER_REFLEXIVE: 110,
    CandidateType.SERVER_REFLEXIVE: 100,
    CandidateType.RELAYED: 0,
}


def candidate_priority(
    type_: CandidateType, local_preference: int = HIGHEST_LOCAL_PREFERENCE, component: int = COMPONENT
) -> int:
    """RFC 8445 §5.1.2.1; a type preference in bits 24-30, the local one in 8-23."""
    return TYPE_PREFERENCE[type_] << 24 | local_preference << 8 | (256 - component)


@dataclass(frozen=True, slots=True)
class Candidate:
    """One candidate.

    `foundation` groups candidates that will probably fail or succeed together. `related` is the address it
    was derived from, for information only. `base` is the address that packets leave by when this is a local
    candidate, ``None`` when it is the other side's. `tcp_type` is set where `transport` is TCP.
    """

    foundation: str
    component: int
    transport: str
    priority: int
    address: Address
    type: CandidateType
    related: Address | None = None
    base: Address | None = None
    tcp_type: TcpType | None = None

    @property
    def sending_base(self) -> Address:
        """Where packets of this local candidate leave: its base, or itself where none is named."""
        return self.base if self.base is not None else self.address

    @property
    def peer_reflexive_priority(self) -> int:
        """What a check announces in PRIORITY: the same local preference under the type prflx (§7.1.1)."""
        return TYPE_PREFERENCE[CandidateType.PEER_REFLEXIVE] << 24 | (self.priority & 0xFFFFFF)


class CandidateFactory:
    """Makes the local candidates of one agent, with foundations and unique local preferences.

    Foundations are numbers given in the order of asking: a hash of the base address could be reversed by
    trying all private addresses. Add the preferred interface first; each further base gets a lower local
    preference (RFC 8445 §5.1.2.1 wants them unique for one type).
    """

    def __init__(self) -> None:
        self._foundations: dict[tuple[CandidateType, str, str], str] = {}
        self._preferences: dict[Address, int] = {}

    def host(self, address: Address) -> Candidate:
        """The address of a socket."""
        return self._make(CandidateType.HOST, address, base=address)

    def server_reflexive(self, address: Address, base: Address, server: Address) -> Candidate:
        """What `server` saw as the source of packets from `base`."""
        return self._make(
            CandidateType.SERVER_REFLEXIVE, address, base=base, related=base, server=server.host
        )

    def relayed(self, address: Address, mapped: Address, server: Address) -> Candidate:
        """An address allocated at `server`, which saw us at `mapped`."""
        return self._make(CandidateType.RELAYED, address, base=address, related=mapped, server=server.host)

    def _make(
        self,
        type_: CandidateType,
        address: Address,
        *,
        base: Address,
        related: Address | None = None,
        server: str = "",
    ) -> Candidate:
        preference = self._preferences.setdefault(base, HIGHEST_LOCAL_PREFERENCE - len(self._preferences))
        key = (type_, base.host, server)
        foundation = self._foundations.setdefault(key, str(len(self._foundations) + 1))
        priority = candidate_priority(type_, max(preference, 0))
        return Candidate(foundation, COMPONENT, UDP, priority, address, type_, related, base)
